"""The component hpa: Kubernetes' own autoscaler by the signals of the table, and the adapter that serves them."""

import copy
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from reliability.manifest_errors import find
from stretto_deploy.kustomize import find_kubectl, render
from stretto_deploy.objects.autoscalers import adapter_rules, horizontal_autoscaler, scaled_object
from stretto_deploy.objects.signals import metric_of
from stretto_deploy.table import Signal, Table
from stretto_deploy.tree import KUSTOMIZE, expected_files
from stretto_deploy.validation.checking import check_manifests
from stretto_deploy.validation.schemas import VERSIONS
from stretto_deploy.validation.sense import quantity
from stretto_deploy.yamls import Manifest, dump_all, load_all
from stretto_shared.errors import InvalidInput

NEWEST = VERSIONS[-1:]


@pytest.fixture(scope="module")
def scaled_once() -> list[Manifest]:
    return render("gpu", ("hpa",))


@pytest.fixture
def scaled(scaled_once: list[Manifest]) -> list[Manifest]:
    return copy.deepcopy(scaled_once)


def spec_of(manifests: list[Manifest], name: str = "stretto-acoustic") -> dict[str, Any]:
    spec: dict[str, Any] = find(manifests, "HorizontalPodAutoscaler", name)["spec"]
    return spec


def test_each_service_is_scaled_by_its_own_signals_between_its_own_bounds(scaled: list[Manifest], table: Table) -> None:
    for service in table.service:
        spec = spec_of(scaled, service.object_name)
        asked = {
            metric["pods"]["metric"]["name"]: metric["pods"]["target"]["averageValue"] for metric in spec["metrics"]
        }
        assert list(asked) == [metric_of(signal.kind) for signal in service.signals]
        assert [quantity(value) for value in asked.values()] == [
            pytest.approx(Fraction(str(signal.target))) for signal in service.signals
        ]
        assert (spec["minReplicas"], spec["maxReplicas"]) == (service.replicas, service.max_replicas)
        assert spec["scaleTargetRef"]["name"] == service.object_name
        assert "replicas" not in find(scaled, "Deployment", service.object_name)["spec"]


@pytest.mark.parametrize(("target", "text"), [(24.0, "24"), (0.8, "800m"), (1.5, "1500m"), (0.333, "333m")])
def test_targets_are_quantities(table: Table, target: float, text: str) -> None:
    service = table.door.model_copy(update={"signals": (Signal(kind="waiting", target=target),)})
    (metric,) = horizontal_autoscaler(service)["spec"]["metrics"]
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": text}


def test_both_autoscalers_grow_and_shrink_alike(table: Table) -> None:
    for service in table.service:
        keda = scaled_object(table, service)["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert horizontal_autoscaler(service)["spec"]["behavior"] == keda


def test_the_adapter_serves_what_the_autoscalers_ask_for_and_nothing_else(table: Table) -> None:
    rules = load_all(expected_files(table)["components/hpa/adapter-rules.yaml"], "rules")[0]["rules"]["custom"]
    served = [rule["name"]["as"] for rule in rules]
    asked = {metric_of(signal.kind) for service in table.service for signal in service.signals}
    assert len(set(served)) == len(served) and set(served) == asked
    for rule in rules:
        assert rule["metricsQuery"].count("<<.LabelMatchers>>") == rule["metricsQuery"].count("stretto_") >= 1
        assert rule["metricsQuery"].count("<<.GroupBy>>") == rule["metricsQuery"].count("sum by")
        assert rule["resources"]["overrides"]["pod"] == {"resource": "pod"}


def test_the_share_of_slots_is_that_of_the_pod(table: Table) -> None:
    by_name = {rule["name"]["as"]: rule["metricsQuery"] for rule in adapter_rules(table)["rules"]["custom"]}
    assert by_name["stretto_slots_used_ratio"] == (
        "sum by (<<.GroupBy>>) (stretto_stage_running_requests{<<.LabelMatchers>>}) / "
        "sum by (<<.GroupBy>>) (stretto_stage_slots{<<.LabelMatchers>>})"
    )


def test_a_signal_that_nobody_uses_has_no_rule(table: Table) -> None:
    door = table.model_copy(update={"service": (table.door,)})
    assert [rule["name"]["as"] for rule in adapter_rules(door)["rules"]["custom"]] == ["stretto_calls_in_flight"]


def test_the_rules_are_no_object_of_a_cluster(scaled: list[Manifest]) -> None:
    assert all("kind" in manifest for manifest in scaled)
    assert sum(manifest["kind"] == "HorizontalPodAutoscaler" for manifest in scaled) == sum(
        manifest["kind"] == "Deployment" for manifest in scaled
    )


def test_two_components_that_scale_are_refused() -> None:
    with pytest.raises(InvalidInput, match="keda and hpa would both own the replicas"):
        render("base", ("keda", "monitoring", "hpa"))


def test_kustomize_refuses_them_too(tmp_path: Path) -> None:
    folder = (tmp_path / "own").resolve()
    folder.mkdir()
    up = "../" * len(folder.parts[1:])
    places = [
        f"{up}{(KUSTOMIZE / name).resolve().relative_to('/')}" for name in ("base", "components/keda", "components/hpa")
    ]
    own = {"resources": places[:1], "components": places[1:]}
    (folder / "kustomization.yaml").write_text(dump_all([own]))
    done = subprocess.run([str(find_kubectl()), "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode != 0 and "/spec/replicas" in done.stderr


def names(manifests: list[Manifest]) -> set[str]:
    return {finding.check for finding in check_manifests(manifests, NEWEST)}


def test_both_kinds_of_autoscalers_over_one_service_are_found(scaled: list[Manifest], gpu: list[Manifest]) -> None:
    assert names(scaled) == names(gpu) == set()
    assert names([*gpu, find(scaled, "HorizontalPodAutoscaler")]) == {"one_scaler_each"}


def test_seeded_errors_of_an_autoscaler_are_found(scaled: list[Manifest]) -> None:
    spoilt = copy.deepcopy(scaled)
    spec_of(spoilt).update(minReplicas=99)
    assert names(spoilt) == {"autoscalers_can_grow"}
    spoilt = copy.deepcopy(scaled)
    spec_of(spoilt)["scaleTargetRef"].update(name="stretto-piano")
    assert names(spoilt) == {"one_scaler_each"}
    spoilt = copy.deepcopy(scaled)
    find(spoilt, "Deployment")["spec"]["replicas"] = 3
    assert names(spoilt) == {"one_scaler_each"}
    spoilt = copy.deepcopy(scaled)
    spec_of(spoilt).pop("maxReplicas")
    assert names(spoilt) == {"schema"}
    spoilt = copy.deepcopy(scaled)
    spec_of(spoilt)["metrics"][0]["pods"].pop("metric")
    assert names(spoilt) == {"schema"}
