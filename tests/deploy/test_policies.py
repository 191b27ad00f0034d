"""Who may call whom, by the NetworkPolicies that are rendered: a small judge of them, and every pair of pods."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from reliability.manifest_errors import find
from stretto_deploy.objects.pods import labels_of
from stretto_deploy.table import Table
from stretto_deploy.yamls import Manifest

OURS = {"kubernetes.io/metadata.name": "stretto"}
METRICS_PORT, OTLP_PORT = 9464, 4317


@dataclass(frozen=True)
class Pod:
    labels: dict[str, str] = field(default_factory=dict)
    namespace: dict[str, str] = field(default_factory=lambda: dict(OURS))

    @property
    def is_ours(self) -> bool:
        return self.namespace == OURS


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items()


def peer_is(peer: dict[str, Any], pod: Pod) -> bool:
    assert peer and set(peer) <= {"podSelector", "namespaceSelector"}, peer
    in_namespace = selects(peer["namespaceSelector"], pod.namespace) if "namespaceSelector" in peer else pod.is_ours
    return in_namespace and selects(peer.get("podSelector", {}), pod.labels)


def passes(manifests: list[Manifest], way: str, pod: Pod, other: Pod, port: int, protocol: str) -> bool:
    """Whether policies let traffic through at one pod: in by `Ingress` from the other, out by `Egress` to it."""
    if not pod.is_ours:
        return True
    specs = [each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"]
    own = [spec for spec in specs if way in spec["policyTypes"] and selects(spec["podSelector"], pod.labels)]
    rules, peers = (("ingress", "from"), ("egress", "to"))[way == "Egress"]
    return not own or any(
        any(peer_is(peer, other) for peer in rule[peers])
        and any((ask["port"], ask["protocol"]) == (port, protocol) for ask in rule["ports"])
        for spec in own
        for rule in spec.get(rules, [])
    )


def may_call(manifests: list[Manifest], caller: Pod, callee: Pod, port: int, protocol: str = "TCP") -> bool:
    out = passes(manifests, "Egress", caller, callee, port, protocol)
    return out and passes(manifests, "Ingress", callee, caller, port, protocol)


CLIENTS = {"kubernetes.io/metadata.name": "shop", "stretto.dev/client": "true"}
STRANGER = Pod({"app": "stranger"}, {"kubernetes.io/metadata.name": "shop"})
CLIENT = Pod({"app": "shop"}, CLIENTS)
PROMETHEUS = Pod({"app": "prometheus"}, {"kubernetes.io/metadata.name": "monitoring"})
DNS = Pod({"k8s-app": "kube-dns"}, {"kubernetes.io/metadata.name": "kube-system"})
INTERNET = Pod({}, {"kubernetes.io/metadata.name": "elsewhere"})


def test_only_the_door_calls_models_and_only_clients_call_the_door(mtls: list[Manifest], table: Table) -> None:
    pods = {service.name: Pod(labels_of(service)) for service in table.service}
    everybody = {**pods, "client": CLIENT, "stranger": STRANGER, "prometheus": PROMETHEUS}
    allowed = {
        (caller, service.name)
        for service in table.service
        for caller, pod in everybody.items()
        if may_call(mtls, pod, pods[service.name], service.port)
    }
    models = {("orchestrator", service.name) for service in table.models}
    assert allowed == models | {("client", "orchestrator")}


def test_the_door_reaches_models_at_their_own_port_only(mtls: list[Manifest], table: Table) -> None:
    door, codec = Pod(labels_of(table.door)), next(each for each in table.service if each.name == "codec")
    assert may_call(mtls, door, Pod(labels_of(codec)), codec.port)
    assert not may_call(mtls, door, Pod(labels_of(codec)), codec.port + 1)
    assert not may_call(mtls, door, Pod(labels_of(codec)), METRICS_PORT)


def test_prometheus_reads_the_pages_of_all_and_nobody_else_does(mtls: list[Manifest], table: Table) -> None:
    for service in table.service:
        assert may_call(mtls, PROMETHEUS, Pod(labels_of(service)), METRICS_PORT)
        assert not may_call(mtls, CLIENT, Pod(labels_of(service)), METRICS_PORT)


def test_pods_ask_for_names_send_spans_and_call_nobody_else(mtls: list[Manifest], table: Table) -> None:
    for service in table.service:
        pod = Pod(labels_of(service))
        assert may_call(mtls, pod, DNS, 53, "UDP") and may_call(mtls, pod, PROMETHEUS, OTLP_PORT)
        assert not may_call(mtls, pod, INTERNET, 443) and not may_call(mtls, pod, DNS, 443)


def test_spans_leave_only_with_the_component_that_collects_them(gpu: list[Manifest], table: Table) -> None:
    assert not may_call(gpu, Pod(labels_of(table.door)), PROMETHEUS, OTLP_PORT)


@pytest.mark.parametrize("pod", [Pod({"app": "shell"}), Pod({"app.kubernetes.io/part-of": "stretto"})])
def test_another_pod_of_the_namespace_reaches_nobody(mtls: list[Manifest], table: Table, pod: Pod) -> None:
    assert not any(may_call(mtls, pod, Pod(labels_of(service)), service.port) for service in table.service)


def test_the_judge_sees_a_door_that_is_left_open(mtls: list[Manifest], table: Table) -> None:
    find(mtls, "NetworkPolicy", "stretto-codec")["spec"]["ingress"][0]["from"].append({"namespaceSelector": {}})
    codec = next(each for each in table.service if each.name == "codec")
    assert may_call(mtls, STRANGER, Pod(labels_of(codec)), codec.port)
