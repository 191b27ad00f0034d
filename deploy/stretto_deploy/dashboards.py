"""Grafana dashboards as code: what listeners hear, the stages, and scaling, each made of panels of one question.

Every query is over metrics that the code exports (`tests/deploy/test_metric_names.py`). What a service is scaled by
gets a panel of its own, from the table, so that a new service has one too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stretto_deploy.objects.signals import describe, expression
from stretto_deploy.table import Table

DOOR = 'namespace="$namespace",pod=~"stretto-orchestrator-.*",method=~"/stretto[.].*"'
AT_DOOR = 'namespace="$namespace",stage="orchestrator"'
HERE = 'namespace="$namespace"'
PANEL_WIDTH, PANEL_HEIGHT, GRID_WIDTH = 12, 8, 24


@dataclass(frozen=True)
class Panel:
    """One question and the queries that answer it.

    Args:
        title: The question's name.
        queries: PromQL by legend, in Grafana's template language.
        unit: Grafana's unit, for example `s` or `percentunit`.
        line: A threshold to draw, as an SLO.
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    line: float | None = None


LISTENERS = (
    Panel(
        "Calls a second by code",
        {"{{code}}": f"sum by (code) (rate(stretto_rpc_handled_total{{{DOOR}}}[5m]))"},
        "reqps",
    ),
    Panel(
        "Share of failed calls",
        {"failed": 'stretto:door_error_ratio:rate5m{namespace="$namespace"}'},
        "percentunit",
        0.001,
    ),
    Panel(
        "First audio",
        {
            f"p{share * 100:g}": f"histogram_quantile({share:g}, "
            f"sum by (le) (rate(stretto_audio_ttfp_s_bucket{{{AT_DOOR}}}[5m])))"
            for share in (0.5, 0.95, 0.99)
        },
        "s",
        2.5,
    ),
    Panel(
        "Real-time streams without a gap",
        {"continuous": 'stretto:continuity:ratio_rate30m{namespace="$namespace"}'},
        "percentunit",
        0.99,
    ),
    Panel(
        "Silence of streams with a gap",
        {
            "p95, {{model}}": "histogram_quantile(0.95, sum by (le, model) "
            f"(rate(stretto_audio_underrun_s_bucket{{{AT_DOOR}}}[15m])))"
        },
        "s",
    ),
    Panel(
        "Gap from chunk to chunk",
        {
            "p95, {{model}}": "histogram_quantile(0.95, sum by (le, model) "
            f"(rate(stretto_chunk_gap_s_bucket{{{AT_DOOR}}}[5m])))"
        },
        "s",
    ),
    Panel(
        "Real-time factor",
        {"p95": f"histogram_quantile(0.95, sum by (le) (rate(stretto_audio_rtf_bucket{{{AT_DOOR}}}[5m])))"},
        line=1.0,
    ),
    Panel(
        "Streams resumed a second",
        {"{{stage}}": f"sum by (stage) (rate(stretto_stage_resumes_total{{{HERE}}}[5m]))"},
    ),
)

STAGES = (
    Panel("Waiting requests", {"{{stage}}": f"sum by (stage) (stretto_stage_waiting_requests{{{HERE}}})"}),
    Panel("Wait in the queue, p95", {"{{stage}}": 'stretto:queue_wait_s:p95_10m{namespace="$namespace"}'}, "s", 5.0),
    Panel("Slots in use", {"{{model}}": 'stretto:slots_used:ratio{namespace="$namespace"}'}, "percentunit", 0.95),
    Panel(
        "Attention caches of their budget",
        {
            "{{model}}": f"sum by (model) (stretto_kv_cache_bytes{{{HERE}}}) "
            f"/ sum by (model) (stretto_kv_cache_budget_bytes{{{HERE}}})"
        },
        "percentunit",
        0.95,
    ),
    Panel("Tokens a second", {"{{model}}": f"sum by (model) (rate(stretto_tokens_total{{{HERE}}}[5m]))"}),
    Panel(
        "Seconds of one pass, p95",
        {"{{model}}": f"histogram_quantile(0.95, sum by (le, model) (rate(stretto_step_s_bucket{{{HERE}}}[5m])))"},
        "s",
    ),
    Panel(
        "Rows of one pass, mean",
        {
            "{{model}}": f"sum by (model) (rate(stretto_step_rows_sum{{{HERE}}}[5m])) "
            f"/ sum by (model) (rate(stretto_step_rows_count{{{HERE}}}[5m]))"
        },
    ),
    Panel(
        "First frames, p95",
        {
            "{{model}}": "histogram_quantile(0.95, sum by (le, model) "
            f"(rate(stretto_request_ttff_s_bucket{{{HERE}}}[5m])))"
        },
        "s",
    ),
)


def dashboards(table: Table) -> dict[str, dict[str, Any]]:
    """Every dashboard, by the name of its file."""
    scaled = tuple(
        Panel(
            service.name,
            {describe(signal): expression(table, service, signal) for signal in service.signals},
        )
        for service in table.service
    )
    return {
        "stretto-listeners": _dashboard("stretto-listeners", "Stretto: what listeners hear", LISTENERS),
        "stretto-stages": _dashboard("stretto-stages", "Stretto: the stages", STAGES),
        "stretto-scaling": _dashboard("stretto-scaling", "Stretto: what services are scaled by", scaled),
    }


def _dashboard(uid: str, title: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    return {
        "uid": uid,
        "title": title,
        "tags": ["stretto"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_data_source(), _namespace()]},
        "panels": [_panel(place, panel) for place, panel in enumerate(panels)],
    }


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _namespace() -> dict[str, Any]:
    return {
        "name": "namespace",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": "label_values(stretto_rpc_in_flight, namespace)",
        "refresh": 2,
    }


def _panel(place: int, panel: Panel) -> dict[str, Any]:
    per_row = GRID_WIDTH // PANEL_WIDTH
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.line is not None:
        steps.append({"color": "red", "value": panel.line})
    return {
        "id": place + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {
            "x": place % per_row * PANEL_WIDTH,
            "y": place // per_row * PANEL_HEIGHT,
            "w": PANEL_WIDTH,
            "h": PANEL_HEIGHT,
        },
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {"thresholdsStyle": {"mode": "off" if panel.line is None else "line"}},
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend}
            for index, (legend, query) in enumerate(panel.queries.items())
        ],
    }
