"""Whatever rules, dashboards and autoscalers ask Prometheus for is exported by the code, with those labels."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from metric_expressions import Selector, selectors_of, unbalanced
from prometheus_client.metrics_core import Metric
from stretto_deploy.table import REPOSITORY, Table
from stretto_deploy.tree import RULES, expected_files
from stretto_deploy.yamls import load_all
from stretto_harmony.main import HarmonyMetrics
from stretto_orchestrator.main import CascadeMetrics
from stretto_shared.grpc.certificates import CertificateMetrics
from stretto_shared.grpc.metrics import Metrics, RpcMetrics
from stretto_shared.grpc.token_metrics import TokenStageMetrics
from stretto_transcriber.main import TranscriberMetrics

SCRAPED = {"namespace", "pod"}
PROMETHEUS_OWN = {"up": SCRAPED}


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Series by name, with their labels, of everything that the code registers."""
    metrics = Metrics()
    RpcMetrics(metrics)
    CertificateMetrics(metrics)
    metrics.stage("codec")
    TokenStageMetrics(metrics, "acoustic", "m").observe_stream(0.0, is_realtime=True)
    TranscriberMetrics(metrics, "notes")
    HarmonyMetrics(metrics)
    cascades = CascadeMetrics(metrics)
    cascades.meter_of("m").observe_stream(0.0, is_realtime=True, is_continuous=True)
    cascades.observe_resume("acoustic")
    series: dict[str, set[str]] = {}
    for made in metrics._made.values():  # families without a child show no labels on the page
        family: Metric = next(iter(made.collect()))
        suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}[family.type]
        for suffix in suffixes:
            extra = {"le"} if suffix == "_bucket" else set()
            series[family.name + suffix] = set(made._labelnames) | extra | SCRAPED
    return series


def rules() -> Iterator[tuple[str, str]]:
    for group in load_all(RULES.read_text("utf-8"), "rules")[0]["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]


def expressions(table: Table) -> Iterator[tuple[str, str]]:
    """Every query of rules, dashboards and autoscalers, and where it stands."""
    yield from rules()
    for name, text in expected_files(table).items():
        if name.endswith(".json"):
            for panel in json.loads(text)["panels"]:
                yield from ((f"{name}: {panel['title']}", target["expr"]) for target in panel["targets"])
        if name.endswith("scaledobjects.yaml"):
            for scaler in load_all(text, name):
                for trigger in scaler["spec"]["triggers"]:
                    yield f"{name}: {scaler['metadata']['name']}", trigger["metadata"]["query"]
        if name.endswith("adapter-rules.yaml"):
            for rule in load_all(text, name)[0]["rules"]["custom"]:
                query = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="n",pod=~"a|b"')
                yield f"{name}: {rule['name']['as']}", query.replace("<<.GroupBy>>", "pod")
                yield f"{name}: {rule['name']['as']}", rule["seriesQuery"]


def recorded() -> dict[str, set[str]]:
    labels = {"stretto:queue_wait_s:p95_10m": {"stage"}, "stretto:slots_used:ratio": {"stage", "model"}}
    return {name: {"namespace"} | labels.get(name, set()) for name, _ in rules() if ":" in name}


def test_every_metric_and_label_that_is_asked_for_is_exported(table: Table, exported: dict[str, set[str]]) -> None:
    known = exported | recorded() | PROMETHEUS_OWN
    asked = list(expressions(table))
    assert len(asked) > 40
    for where, expression in asked:
        found = selectors_of(expression)
        assert found, f"{where} asks for nothing: {expression}"
        for selector in found:
            assert selector.metric in known, f"{where} asks for {selector.metric}"
            wrong = selector.labels - known[selector.metric]
            assert not wrong, f"{where} asks {selector.metric} for the labels {sorted(wrong)}"


def test_every_expression_is_whole(table: Table) -> None:
    for where, expression in expressions(table):
        assert not unbalanced(expression), f"{where}: {expression}"


def test_every_exported_metric_of_listeners_and_queues_is_looked_at(
    table: Table, exported: dict[str, set[str]]
) -> None:
    asked = {selector.metric for _, expression in expressions(table) for selector in selectors_of(expression)}
    stems = {re.sub("_(bucket|sum|count|total)$", "", name) for name in asked}
    unseen = {re.sub("_(bucket|sum|count|total)$", "", name) for name in exported} - stems
    assert unseen == {"stretto_rpc_started", "stretto_rpc_response_messages", "stretto_transcriber_audio_s",
                      "stretto_transcriber_pass_windows", "stretto_harmony_measures",
                      "stretto_harmony_window_s"}  # fmt: skip


def test_codes_and_stages_that_are_asked_for_are_words_of_the_code(table: Table) -> None:
    from grpc import StatusCode

    codes = {code.name for code in StatusCode}
    stages = {service.name for service in table.service}
    for where, expression in expressions(table):
        for name, value in re.findall(r'(code|stage)=~?"([^"$]+)"', expression):
            words = set(value.split("|"))
            assert words <= (codes if name == "code" else stages), f"{where}: {words}"


def test_thresholds_on_histograms_are_bounds_of_their_buckets() -> None:
    from stretto_shared.grpc.metrics import LATENCY_BUCKETS_S, RTF_BUCKETS

    bounds = {str(bound) for bound in LATENCY_BUCKETS_S}
    for where, expression in rules():
        for bound in re.findall(r'le="([^"]+)"', expression):
            assert bound in bounds, where
    text = dict(rules())
    assert "> 2.5" in text["StrettoFirstAudioLate"] and 2.5 in LATENCY_BUCKETS_S
    assert "> 5" in text["StrettoQueueLong"] and 5.0 in LATENCY_BUCKETS_S
    assert "> 1" in text["StrettoSlowerThanPlaying"] and 1.0 in RTF_BUCKETS


@pytest.mark.parametrize(
    ("expression", "selectors"),
    [
        ('sum by (le) (rate(a_bucket{x="1",y=~"b|c"}[5m])) / sum(d)', [("a_bucket", "x,y,le"), ("d", "")]),
        (
            "histogram_quantile(0.95, sum by (namespace, le) (rate(a_bucket[10m]))) > 2.5",
            [("a_bucket", "namespace,le")],
        ),
        ("count by (s) (max_over_time(a[6h])) unless count by (s) (a)", [("a", "s"), ("a", "s")]),
        ("a:b:rate5m > 14.4 * 0.001 and c", [("a:b:rate5m", ""), ("c", "")]),
    ],
)
def test_metrics_and_labels_are_read_off_an_expression(expression: str, selectors: list[tuple[str, str]]) -> None:
    found = selectors_of(expression)
    assert found == [Selector(name, frozenset(filter(None, labels.split(",")))) for name, labels in selectors]


@pytest.mark.parametrize("expression", ["sum(a", 'a{x="1"', "rate(a[5m)", 'a{x="1}', "a)"])
def test_an_expression_that_is_not_whole_is_seen(expression: str) -> None:
    assert unbalanced(expression)


def test_the_runbook_has_a_section_for_every_alert_and_no_other() -> None:
    text = (REPOSITORY / "docs/runbook.md").read_text("utf-8")
    sections = dict(re.findall(r"^### (Stretto\w+)\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL))
    alerts = {name for name, _ in rules() if ":" not in name}
    assert set(sections) == alerts
    for name, section in sections.items():
        for part in ("**Meaning.**", "**Check.**", "**Cure.**"):
            assert part in section, f"{name} lacks {part}"


def test_every_alert_says_how_bad_it_is_and_where_its_cure_stands() -> None:
    for group in load_all(RULES.read_text("utf-8"), "rules")[0]["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert rule["labels"]["severity"] in ("page", "ticket")
                assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_every_alert_is_tried_on_series_that_fire_it() -> None:
    tests = load_all((Path(RULES).parent / "rules_test.yaml").read_text("utf-8"), "rules_test")[0]["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {name for name, _ in rules() if ":" not in name}
