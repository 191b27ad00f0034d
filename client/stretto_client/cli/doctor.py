"""`stretto doctor`: what is installed, whether the weights are whole, and whether a server answers and how fast."""

from __future__ import annotations

import asyncio
import importlib.util
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text
from stretto_shared import weights
from stretto_shared.errors import StrettoError
from stretto_shared.grpc.hosting import ENTRY_POINT_GROUP

from stretto_client.cli.output import print_json, stdout_console
from stretto_client.cli.session import Address, AsJson, open_session
from stretto_client.settings import ClientSettings

OLDEST_PYTHON = (3, 11)
NUM_HEALTH_CHECKS = 5
SLOW_HEALTH_CHECK_S = 0.1


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `is_well` None is a remark that decides nothing."""

    what: str
    is_well: bool | None
    note: str


def doctor(address: Address = "", as_json: AsJson = False) -> None:
    """Check Python, packages, weights and the server; exit with 1 if something is wrong."""
    findings = [check_python(), *check_packages(), *check_weights(), *asyncio.run(check_server(address))]
    if as_json:
        print_json([{"what": f.what, "is_well": f.is_well, "note": f.note} for f in findings])
    else:
        table = Table(title="Stretto's health", title_justify="left", show_header=False)
        for finding in findings:
            table.add_row(_mark(finding), finding.what, finding.note)
        stdout_console().print(table)
    if any(finding.is_well is False for finding in findings):
        raise typer.Exit(1)


def _mark(finding: Finding) -> Text:
    if finding.is_well is None:
        return Text("note")
    return Text("well", style="green") if finding.is_well else Text("wrong", style="red")


def check_python() -> Finding:
    """The interpreter's version."""
    wanted = ".".join(map(str, OLDEST_PYTHON))
    return Finding("python", sys.version_info >= OLDEST_PYTHON, f"{sys.version.split()[0]}, wanted {wanted} or newer")


def check_packages() -> Iterator[Finding]:
    """Stretto's own packages have one version; torch is there where a service needs it, torchaudio is not."""
    ours = _version("stretto-client")
    for package in ("stretto-protos", "stretto-shared", "stretto-client"):
        version = _version(package)
        yield Finding(package, version is not None and version == ours, version or "not installed")
    services = sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name)
    if not services:
        yield Finding("services", None, "none installed: this environment can only call a server")
        return
    for point in services:
        version = _version(f"stretto-{point.name}")
        yield Finding(f"stretto-{point.name}", version == ours, version or "not installed")
    torch_version = _version("torch")
    yield Finding("torch", torch_version is not None, torch_version or "not installed, but services need it")
    if _version("torchaudio") is not None:
        yield Finding("torchaudio", False, "installed: it breaks transformers beside the CPU build of torch; remove it")


def check_weights() -> Iterator[Finding]:
    """Every committed checkpoint of every installed service is there and has the digest that its manifest says."""
    for point in sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        folder = _weights_folder(point.module)
        if folder is None:
            continue
        for checkpoint in sorted(path.parent for path in folder.glob(f"*/{weights.CONFIG_FILE}")):
            what = f"weights of {point.name}/{checkpoint.name}"
            try:
                resolved = weights.resolve("default", name=checkpoint.name, default_dir=folder)
            except StrettoError as error:
                yield Finding(what, False, error.message)
            else:
                yield Finding(what, True, f"sha256 {resolved.digest_sha256[:12]}…, as its manifest says")


async def check_server(address: str) -> list[Finding]:
    """Whether the server answers, is ready, and how long a health check takes."""
    named = address or ClientSettings().address
    what = f"server at {named}" if named else "server in this process"
    try:
        started_s = time.perf_counter()
        async with open_session(address) as client:
            is_ready = await client.check_health(timeout_s=5.0)
            opened_s = time.perf_counter() - started_s
            times_s = []
            for _ in range(NUM_HEALTH_CHECKS):
                started_s = time.perf_counter()
                await client.check_health(timeout_s=5.0)
                times_s.append(time.perf_counter() - started_s)
            listed = await client.list_models()
    except StrettoError as error:
        return [Finding(what, False, error.message)]
    median_s = statistics.median(times_s)
    unreachable = ", ".join(listed.unreachable_services)
    return [
        Finding(what, is_ready, f"answered after {opened_s:.2f} s, {'ready' if is_ready else 'not ready'}"),
        Finding("health check", median_s < SLOW_HEALTH_CHECK_S, f"median {median_s * 1000:.1f} ms"),
        Finding(
            "models",
            bool(listed.models) and not unreachable,
            f"{len(listed.models)} served" + (f"; no answer from {unreachable}" if unreachable else ""),
        ),
    ]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _weights_folder(module: str) -> Path | None:
    """The `weights` folder beside a service's package, found without importing the service."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(location).parent / "weights"
        if folder.is_dir():
            return folder
    return None
