"""What the commands show: progress and errors on stderr, results on stdout.

Nothing printed here is rich's markup: prompts, names of files and what servers say may hold brackets of their own.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from stretto_shared.features import ModelInfo

from stretto_client.values import Receipt


def stderr_console() -> Console:
    """Where people look while they wait."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False)


def stdout_console() -> Console:
    """Where results go."""
    return Console(soft_wrap=True, markup=False, emoji=False, highlight=False)


def progress_bar() -> Progress:
    """A bar on stderr that leaves nothing behind when it is done; nothing where nobody watches."""
    console = stderr_console()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def print_json(value: Any) -> None:
    """One JSON document on stdout, for programs."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def receipt_as_json(receipt: Receipt) -> dict[str, Any]:
    """A receipt as plain values, with its real-time factor."""
    return dataclasses.asdict(receipt) | {"real_time_factor": receipt.real_time_factor}


def model_as_json(model: ModelInfo) -> dict[str, Any]:
    """A model as plain values, with the id that tokens carry."""
    return dataclasses.asdict(model) | {"model_id": model.model_id}


def receipt_table(receipt: Receipt) -> Table:
    """A receipt for people."""
    table = Table(title="Receipt", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    sampling = dataclasses.asdict(receipt.sampling)
    rows = {
        "cascade": receipt.cascade,
        "prompt": receipt.prompt,
        "seed": str(receipt.seed),
        "duration": f"{receipt.duration_s:g} s",
        "sampling": ", ".join(f"{name} {value:g}" for name, value in sampling.items() if value is not None),
        "models": "\n".join(f"{model.service}: {model.model_id}" for model in receipt.models),
        "version": receipt.stretto_version,
        "input sha256": receipt.input_sha256,
        "output sha256": receipt.output_sha256,
        "first audio after": f"{receipt.first_audio_latency_s:.2f} s",
        "done after": f"{receipt.total_latency_s:.2f} s",
        "real-time factor": f"{receipt.real_time_factor:.2f}",
        "story": "\n".join(f"from {span.start_s:g} s: {span.prompt}" for span in receipt.story),
        "best of": f"{receipt.candidate_count}, similarity {receipt.similarity:.3f}"
        if receipt.candidate_count > 1
        else "",
        "resumed": f"{receipt.resume_count} times" if receipt.resume_count else "",
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table


def model_table(models: tuple[ModelInfo, ...]) -> Table:
    """Models for people; the default one of each service has a star."""
    table = Table(title="Models (* taken when none is named)", title_justify="left")
    for heading in ("service", "model", "digest", "parameters", "licence", "source", "score"):
        table.add_column(heading, justify="right" if heading == "parameters" else "left", overflow="fold")
    for model in models:
        table.add_row(
            model.service,
            model.name + (" *" if model.is_default else ""),
            model.digest_sha256[:12],
            f"{model.parameter_count:,}",
            model.licence,
            model.source,
            model.score,
        )
    return table
