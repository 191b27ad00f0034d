"""A picture of a run: continuity and first audio against the load, drawn with matplotlib into a PNG, PDF or SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stretto_client.bench.summary import LevelSummary
from stretto_client.files import whole_file
from stretto_client.picture import check_picture_path

NAN = float("nan")


def draw_levels(path: Path, levels: Sequence[LevelSummary], title: str) -> None:
    """Write the picture to `path`: a column for the listeners at once, one for the rates, as far as there are any.

    Raises:
        InvalidInput: If `path` cannot be a picture's, or its folder does not exist.
    """
    check_picture_path(path)
    # matplotlib is slow to import, and few commands draw
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    closed = sorted((level for level in levels if level.concurrency is not None), key=_load)
    opened = sorted((level for level in levels if level.rate_hz is not None), key=_load)
    kinds = [(closed, "listeners at once"), (opened, "requests a second, Poisson")]
    kinds = [(chosen, label) for chosen, label in kinds if chosen]
    figure = Figure(figsize=(6 * len(kinds), 6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title.encode("utf-8", "replace").decode("utf-8"), parse_math=False)
    axes = figure.subplots(2, len(kinds), sharex="col", squeeze=False)
    for column, (chosen, label) in enumerate(kinds):
        _draw_continuity(axes[0][column], chosen)
        _draw_first_audio(axes[1][column], chosen)
        loads = [_load(level) for level in chosen]
        axes[1][column].set(xlabel=label, xlim=(0, 1.08 * loads[-1]))
        axes[1][column].set_xticks(loads, [f"{load:g}" for load in loads])
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format=path.suffix.lower().removeprefix("."))


def _draw_continuity(axes: Any, levels: Sequence[LevelSummary]) -> None:
    _line(axes, levels, lambda level: _percent(level.audio_continuity_ok), "without an underrun", "o-", "#334466")
    _line(axes, levels, lambda level: _percent(_refused(level)), "refused", "x:", "#bb4433")
    axes.set(ylim=(-3, 103), ylabel="% of streams")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _draw_first_audio(axes: Any, levels: Sequence[LevelSummary]) -> None:
    def percentile(name: str) -> Callable[[LevelSummary], float]:
        return lambda level: NAN if level.audio_ttfp_s is None else float(getattr(level.audio_ttfp_s, name))

    _line(axes, levels, percentile("p50"), "median", "o-", "#334466")
    _line(axes, levels, percentile("p95"), "95th percentile", "s--", "#8899bb")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.set_ylabel("first audio after (s)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _line(
    axes: Any,
    levels: Sequence[LevelSummary],
    value: Callable[[LevelSummary], float],
    label: str,
    style: str,
    color: str,
) -> None:
    axes.plot([_load(level) for level in levels], [value(level) for level in levels], style, color=color, label=label)


def _load(level: LevelSummary) -> float:
    return level.rate_hz if level.rate_hz is not None else float(level.concurrency or 0)


def _refused(level: LevelSummary) -> float | None:
    return level.refused_count / level.request_count if level.request_count else None


def _percent(share: float | None) -> float:
    return NAN if share is None else 100 * share
