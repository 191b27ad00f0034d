"""`stretto bench`: what the server does to its listeners under load, as a table, a picture and one line of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from stretto_client.bench.chart import draw_levels
from stretto_client.bench.load import MAX_BUFFER_S, MAX_REQUESTS, MAX_RUN_S, Load, Plan, check_requests, parse_loads
from stretto_client.bench.report import as_json, error_table, level_table, verdict
from stretto_client.bench.runner import LevelRun
from stretto_client.bench.sweep import Sweep, sweep
from stretto_client.cli.output import progress_bar, stderr_console, stdout_console
from stretto_client.cli.session import Address, Timeout, run_session
from stretto_client.client import StrettoClient
from stretto_client.errors import ServerFailure
from stretto_client.files import check_output
from stretto_client.picture import check_picture_path
from stretto_client.settings import ClientSettings
from stretto_client.values import Pace

DEFAULT_PROMPT = "a calm piano piece with soft strings"
DEFAULT_CONCURRENCY = "1,2,4,8"
OWN_SERVER = "this process"


def bench(
    prompts: Annotated[
        list[str] | None, typer.Argument(help="What to ask for, one after the other. Default: a calm piano piece.")
    ] = None,
    concurrency: Annotated[
        str,
        typer.Option(
            help="Closed loop: how many listen at once, for each level, with commas. Default: "
            f"{DEFAULT_CONCURRENCY} if there is no --rate.",
            show_default=False,
        ),
    ] = "",
    rate: Annotated[
        str,
        typer.Option(help="Open loop: requests a second, Poisson, for each level, with commas.", show_default=False),
    ] = "",
    requests: Annotated[
        int, typer.Option(min=1, max=MAX_REQUESTS, help="The most requests of a level.")
    ] = Plan.max_requests,
    run_s: Annotated[
        float, typer.Option(min=0.001, max=MAX_RUN_S, help="Seconds in which a level may start requests.")
    ] = Plan.run_s,
    duration_s: Annotated[
        float, typer.Option(min=0.1, max=30.0, help="Seconds of music of each piece.")
    ] = Plan.duration_s,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime",
            help="Listeners of --concurrency hear each piece to its end before they ask for the next.",
        ),
    ] = False,
    pace: Annotated[
        Pace,
        typer.Option(help="What each request asks for; of realtime, the server refuses what it cannot make in time."),
    ] = Plan.pace,
    buffer_s: Annotated[
        float, typer.Option(min=0.0, max=MAX_BUFFER_S, help="Seconds a listener waits after the first audio to play.")
    ] = Plan.buffer_s,
    cascade: Annotated[str, typer.Option(help="The cascade of models that makes the music.")] = "musicgen",
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first piece, each next one has the next, and of the arrivals.")
    ] = 0,
    timeout_s: Timeout = Plan.timeout_s,
    picture: Annotated[
        Path | None, typer.Option(help="Draw continuity and first audio against the load: .png, .pdf or .svg.")
    ] = None,
    json_only: Annotated[bool, typer.Option("--json-only", help="Print the line of JSON and no table.")] = False,
    address: Address = "",
) -> None:
    """Load the server, and say what its listeners heard: a table, and one JSON object as the last line."""
    # what can be checked without a server is checked before one starts, so that a mistake costs nothing
    if picture is not None:
        check_picture_path(picture)
        check_output(picture)
    loads = parse_loads(concurrency or ("" if rate else DEFAULT_CONCURRENCY), rate)
    plan = Plan(
        prompts=tuple(prompts or (DEFAULT_PROMPT,)),
        cascade=cascade,
        duration_s=duration_s,
        first_seed=seed,
        timeout_s=timeout_s,
        max_requests=requests,
        run_s=run_s,
        buffer_s=buffer_s,
        realtime=realtime,
        pace=pace,
    )
    check_requests(plan, loads)
    named = address or ClientSettings().address or OWN_SERVER
    if named == OWN_SERVER:
        stderr_console().print(
            "The server runs in this process and shares its time with the tester; for numbers to keep, name one.",
            soft_wrap=True,
        )

    async def work(client: StrettoClient) -> None:
        found = await _sweep_with_bar(client, plan, loads)
        drawn: Path | None = None
        try:
            if picture is not None:
                draw_levels(
                    picture, found.levels, title=f"{found.warm_up.cascade} at {named}, {duration_s:g} s a piece"
                )
                drawn = picture
        finally:  # the numbers are there, whatever becomes of their picture
            _report(found, as_json(found, plan, address=named) | {"picture": drawn and str(drawn)}, json_only)
        wrong = verdict(found)
        if wrong:
            raise ServerFailure(f"The load was not served: {wrong}.")

    run_session(address, work)


async def _sweep_with_bar(client: StrettoClient, plan: Plan, loads: tuple[Load, ...]) -> Sweep:
    with progress_bar() as bar:
        task = bar.add_task("One piece to warm up", total=len(loads))

        def watch(load: Load, level: LevelRun) -> None:
            done = f"{load}: {len(level.outcomes)} done, {level.num_in_flight} on their way"
            bar.update(task, description=done, completed=loads.index(load) + level.share_done)

        return await sweep(client, plan, loads, watch)


def _report(found: Sweep, facts: dict[str, Any], json_only: bool) -> None:
    if not json_only:
        console = stdout_console()
        console.print(level_table(found.levels))
        errors = error_table(found.levels)
        if errors is not None:
            console.print(errors)
    typer.echo(json.dumps(facts, allow_nan=False))
