"""Each check has a manifest that breaks it, and ours break none."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from reliability.manifest_errors import SEEDED, SeededError, find
from stretto_deploy.kustomize import render
from stretto_deploy.tree import COMPONENTS, OVERLAYS, versions_of
from stretto_deploy.validation import house, sense
from stretto_deploy.validation.checking import check_manifests, check_text
from stretto_deploy.validation.schemas import VERSIONS
from stretto_deploy.yamls import Manifest, dump_all

NEWEST = VERSIONS[-1:]
EVERYTHING = tuple(component for component in COMPONENTS if component != "keda")
Spoil = Callable[[list[Manifest]], object]


def names(findings: list[Any]) -> set[str]:
    return {finding.check for finding in findings}


def pod(manifests: list[Manifest], name: str = "stretto-acoustic") -> dict[str, Any]:
    spec: dict[str, Any] = find(manifests, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def remove(manifests: list[Manifest], kind: str, name: str) -> None:
    manifests.remove(find(manifests, kind, name))


@pytest.mark.parametrize("error", SEEDED, ids=lambda error: error.name)
def test_a_seeded_error_is_found_by_its_own_check(error: SeededError, gpu: list[Manifest]) -> None:
    assert error.check in names(check_text(error.seed(gpu), NEWEST))


def test_there_are_21_seeded_errors_of_as_many_names() -> None:
    assert len({error.name for error in SEEDED}) == len(SEEDED) == 21


def test_text_without_an_error_has_no_findings(gpu: list[Manifest]) -> None:
    assert check_text(dump_all(gpu), NEWEST) == []


@pytest.mark.parametrize("overlay", ("base", *OVERLAYS))
@pytest.mark.parametrize("components", ((), EVERYTHING), ids=("plain", "with everything"))
def test_ours_are_well_for_every_kubernetes(overlay: str, components: tuple[str, ...]) -> None:
    """Every set of components is for `evals/reliability/manifests.py`."""
    assert check_manifests(render(overlay, components), versions_of(components)) == []


def test_the_versions_are_1_28_to_1_37() -> None:
    assert (VERSIONS[0], VERSIONS[-1], len(VERSIONS)) == ("1.28", "1.37", 10)


def twice(manifests: list[Manifest]) -> None:
    manifests.append(copy.deepcopy(find(manifests, "Service")))


def with_replicas(manifests: list[Manifest]) -> None:
    find(manifests, "Deployment")["spec"]["replicas"] = 3


def second_scaler(manifests: list[Manifest]) -> None:
    second = copy.deepcopy(find(manifests, "ScaledObject"))
    second["metadata"]["name"] = "another"
    manifests.append(second)


HOUSE: dict[str, list[Spoil]] = {
    "objects_differ": [twice],
    "objects_have_namespaces": [
        lambda m: find(m, "ScaledObject")["metadata"].pop("namespace"),
        lambda m: find(m, "Namespace", "stretto")["metadata"].update(namespace="stretto"),
    ],
    "services_reach_ports": [lambda m: find(m, "Service")["spec"]["selector"].update({"app.kubernetes.io/name": "no"})],
    "references_exist": [
        lambda m: remove(m, "ServiceAccount", "stretto-acoustic"),
        lambda m: remove(m, "PriorityClass", "stretto-model"),
        lambda m: remove(m, "PersistentVolumeClaim", "stretto-weights"),
        lambda m: pod(m)["containers"][0]["envFrom"][0]["configMapRef"].update(name="stretto-acoustic"),
        lambda m: pod(m)["volumes"][2]["configMap"].update(name="no-digests"),
    ],
    "budgets_cover_all": [
        lambda m: remove(m, "PodDisruptionBudget", "stretto-acoustic"),
        lambda m: find(m, "PodDisruptionBudget")["spec"].update(maxUnavailable=0),
    ],
    "one_scaler_each": [
        with_replicas,
        second_scaler,
        lambda m: find(m, "ScaledObject")["spec"]["scaleTargetRef"].update(name="no"),
    ],
    "gpu_rollouts_need_no_spare": [
        lambda m: find(m, "Deployment")["spec"]["strategy"]["rollingUpdate"].update(maxSurge=1, maxUnavailable=0),
        lambda m: pod(m).pop("nodeSelector"),
        lambda m: pod(m).pop("tolerations"),
    ],
    "drains_fit_the_grace": [
        lambda m: pod(m).update(terminationGracePeriodSeconds=300),
        lambda m: pod(m).pop("terminationGracePeriodSeconds"),
        lambda m: pod(m)["containers"][0].pop("lifecycle"),
    ],
    "servers_are_probed": [
        lambda m: pod(m)["containers"][0].pop("readinessProbe"),
        lambda m: pod(m)["containers"][0]["livenessProbe"]["grpc"].update(port=1234),
    ],
    "pods_are_locked_down": [
        lambda m: pod(m).update(automountServiceAccountToken=True),
        lambda m: pod(m).pop("automountServiceAccountToken"),
        lambda m: pod(m)["securityContext"].update(runAsNonRoot=False),
        lambda m: pod(m)["securityContext"].pop("seccompProfile"),
        lambda m: pod(m)["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
        lambda m: pod(m)["initContainers"][0]["securityContext"]["capabilities"].update(drop=["NET_RAW"]),
        lambda m: pod(m)["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
        lambda m: pod(m)["initContainers"][0]["resources"].pop("limits"),
    ],
    "weights_are_verified": [
        lambda m: pod(m).pop("initContainers"),
        lambda m: pod(m)["initContainers"][0].update(command=["true"]),
        lambda m: [each.update(readOnly=False) for each in pod(m)["containers"][0]["volumeMounts"]],
    ],
    "traffic_is_denied_by_default": [
        lambda m: remove(m, "NetworkPolicy", "stretto-deny-all"),
        lambda m: find(m, "NetworkPolicy", "stretto-deny-all")["spec"].update(policyTypes=["Ingress"]),
        lambda m: remove(m, "NetworkPolicy", "stretto-acoustic"),
        lambda m: find(m, "NetworkPolicy")["spec"]["ingress"][0].pop("from"),
    ],
}


@pytest.mark.parametrize(("check", "spoil"), [(check, spoil) for check, spoils in HOUSE.items() for spoil in spoils])
def test_a_rule_of_the_house_is_found_broken_by_its_own_check(check: str, spoil: Spoil, gpu: list[Manifest]) -> None:
    spoil(gpu)
    assert names(check_manifests(gpu, NEWEST)) == {check}


@pytest.mark.parametrize("probe", sense.PROBES)
def test_a_probe_of_a_tls_port_is_found(probe: str, mtls: list[Manifest]) -> None:
    assert check_manifests(mtls, NEWEST) == []
    container = pod(mtls)["containers"][0]
    container[probe]["grpc"]["port"] = next(p["containerPort"] for p in container["ports"] if p["name"] == "grpc")
    assert names(check_manifests(mtls, NEWEST)) == {"plain_probes_beside_tls"}


def test_every_check_is_broken_by_a_manifest_here() -> None:
    seeded = {error.check for error in SEEDED} | set(HOUSE) | {"plain_probes_beside_tls"}
    assert seeded == {check.__name__ for check in (*sense.CHECKS, *house.CHECKS)} | {"schema", "yaml"}


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("ScaledObject", lambda spec: spec.update(maxReplicas=4)),
        ("ScaledObject", lambda spec: spec.pop("triggers")),
        ("ScaledObject", lambda spec: spec["triggers"][0]["metadata"].update(threshold=4)),
    ],
)
def test_custom_resources_have_strict_schemas_too(
    kind: str, spoil: Callable[[dict[str, Any]], object], gpu: list[Manifest]
) -> None:
    spoil(find(gpu, kind)["spec"])
    assert names(check_manifests(gpu, NEWEST)) == {"schema"}


def test_a_rule_that_records_and_alerts_is_no_rule(mtls: list[Manifest]) -> None:
    find(mtls, "PrometheusRule", "stretto")["spec"]["groups"][0]["rules"][0]["alert"] = "Both"
    assert names(check_manifests(mtls, NEWEST)) == {"schema"}


def test_an_object_without_a_kind_is_found(gpu: list[Manifest]) -> None:
    del gpu[0]["kind"]
    assert names(check_manifests(gpu, NEWEST)) == {"schema"}


def test_a_null_is_a_field_that_is_not_there(gpu: list[Manifest]) -> None:
    pod(gpu)["terminationGracePeriodSeconds"] = None
    assert names(check_manifests(gpu, NEWEST)) == {"drains_fit_the_grace"}


@pytest.mark.parametrize(
    ("text", "value"), [("500m", "0.5"), ("2Gi", str(2 * 1024**3)), ("1.5", "1.5"), ("3k", "3000")]
)
def test_quantities_have_values(text: str, value: str) -> None:
    assert str(sense.quantity(text)).rstrip("0").rstrip(".") in (value, value.rstrip("0"))


@pytest.mark.parametrize("text", ["", "1 Gi", "1gi", "Gi", "-1", "1e", "128MB"])
def test_what_is_no_quantity_has_none(text: str) -> None:
    assert sense.quantity(text) is None
