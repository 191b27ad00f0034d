"""Status, scaling and drains, on a cluster that a test plays."""

from typing import Any

import pytest
from api_double import ApiDouble, path_of
from stretto_deploy.cluster import Cluster
from stretto_deploy.draining import check_drain
from stretto_deploy.objects.pods import deployment, labels_of
from stretto_deploy.scaling import scale
from stretto_deploy.status import ServiceStatus, status_of, total
from stretto_deploy.table import Service, Table
from stretto_deploy.tree import digests_of
from stretto_shared.errors import Conflict, InvalidInput, NotFound
from stretto_shared.grpc.metrics import Metrics, RpcMetrics
from stretto_shared.grpc.token_metrics import TokenStageMetrics

Api = tuple[ApiDouble, Cluster]
HPA = "/apis/autoscaling/v2/namespaces/stretto/horizontalpodautoscalers/keda-hpa-stretto-codec"


def page(*, waiting: int, running: int, slots: int, in_flight: int) -> str:
    """A page as the code of a token stage makes it."""
    from prometheus_client import generate_latest

    metrics = Metrics()
    RpcMetrics(metrics)._in_flight.labels("/stretto.acoustic.v1.AcousticService/GenerateTokens").set(in_flight)
    RpcMetrics(metrics)._in_flight.labels("/grpc.health.v1.Health/Watch").set(99)
    metrics.stage("acoustic").watch_waiting(lambda: waiting)
    TokenStageMetrics(metrics, "acoustic", "musicgen").watch_slots(slots, lambda: running)
    return generate_latest(metrics.registry).decode()


def named(table: Table, name: str) -> Service:
    return next(service for service in table.service if service.name == name)


def add_pod(double: ApiDouble, service: Service, name: str, node: str, *, ready: bool = True, **status: Any) -> None:
    conditions = [{"type": "Ready", "status": str(ready)}]
    double.objects[path_of("Pod", name)] = {
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels_of(service)},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "conditions": conditions, **status},
    }


def add_deployment(double: ApiDouble, table: Table, service: Service) -> None:
    made = deployment(table, service)
    made["metadata"]["generation"] = 1
    counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), service.replicas)
    double.objects[path_of("Deployment", service.object_name)] = made | {"status": {"observedGeneration": 1, **counts}}


def add_budget(double: ApiDouble, service: Service, allowed: int) -> None:
    double.objects[path_of("PodDisruptionBudget", service.object_name)] = {
        "kind": "PodDisruptionBudget",
        "metadata": {"name": service.object_name},
        "spec": {"selector": {"matchLabels": labels_of(service)}},
        "status": {"disruptionsAllowed": allowed},
    }


def status_by_name(api: Api, table: Table) -> dict[str, ServiceStatus]:
    return {each.name: each for each in status_of(api[1], table)}


def test_status_adds_up_the_pages_of_all_pods_and_says_how_many_were_heard(api: Api, table: Table) -> None:
    double, _ = api
    acoustic = named(table, "acoustic")
    add_deployment(double, table, acoustic)
    for name, numbers in (("a", (3, 4, 4, 5)), ("b", (2, 1, 4, 1))):
        add_pod(double, acoustic, name, "n1")
        waiting, running, slots, in_flight = numbers
        double.pages[f"{name}:9464"] = page(waiting=waiting, running=running, slots=slots, in_flight=in_flight)
    add_pod(double, acoustic, "silent", "n1")
    add_pod(double, acoustic, "starting", "n1", phase="Pending")
    found = status_by_name(api, table)
    own = found["acoustic"]
    assert (own.num_pods, own.num_answering) == (3, 2)
    assert (own.waiting, own.running, own.slots, own.in_flight) == (5, 5, 8, 6)
    assert own.rollout is not None and own.rollout.is_done
    codec = found["codec"]
    assert codec.rollout is None and codec.waiting is None and codec.num_pods == 0
    assert list(found) == [service.name for service in table.service]


def test_status_shows_the_digests_of_the_newest_release(api: Api, table: Table) -> None:
    double, _ = api
    codec = named(table, "codec")
    labels = {"app.kubernetes.io/part-of": "stretto"}
    for name, time, text in (
        ("old", "2026-01-01", "00  framecodec/model.safetensors\n"),
        ("new", "2026-02-01", digests_of(codec)),
    ):
        double.objects[path_of("ConfigMap", f"stretto-weights-digests-{name}")] = {
            "kind": "ConfigMap",
            "metadata": {"name": f"stretto-weights-digests-{name}", "labels": labels, "creationTimestamp": time},
            "data": {"codec.sha256": text},
        }
    digests = status_by_name(api, table)["codec"].digests
    assert set(digests) == {"framecodec", "soundstream"} and all(len(value) == 64 for value in digests.values())


def test_a_metric_that_no_page_has_is_unknown_and_not_zero() -> None:
    text = page(waiting=0, running=0, slots=4, in_flight=0)
    assert total([text], "stretto_stage_waiting_requests", stage="acoustic") == 0
    assert total([text], "stretto_stage_waiting_requests", stage="codec") is None
    assert total([], "stretto_stage_slots") is None


def test_scaling_sets_the_replicas_of_that_service_alone(api: Api, table: Table) -> None:
    double, cluster = api
    for name in ("codec", "acoustic"):
        add_deployment(double, table, named(table, name))
    scale(cluster, named(table, "codec"), 5)
    assert double.objects[path_of("Deployment", "stretto-codec")]["spec"]["replicas"] == 5
    assert double.objects[path_of("Deployment", "stretto-acoustic")]["spec"]["replicas"] == 2


def test_scaling_beyond_the_table_or_what_is_not_there_is_refused(api: Api, table: Table) -> None:
    double, cluster = api
    with pytest.raises(NotFound, match="stretto-codec"):
        scale(cluster, named(table, "codec"), 2)
    add_deployment(double, table, named(table, "codec"))
    for replicas in (-1, 13):
        with pytest.raises(InvalidInput, match="expected 0 to 12 for codec"):
            scale(cluster, named(table, "codec"), replicas)
    assert double.objects[path_of("Deployment", "stretto-codec")]["spec"]["replicas"] == 2


def test_scaling_what_an_autoscaler_has_is_refused(api: Api, table: Table) -> None:
    double, cluster = api
    for name in ("codec", "acoustic"):
        add_deployment(double, table, named(table, name))
    double.objects[HPA] = {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "keda-hpa-stretto-codec"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "stretto-codec"}},
    }
    with pytest.raises(Conflict, match="keda-hpa-stretto-codec scales codec"):
        scale(cluster, named(table, "codec"), 5)
    scale(cluster, named(table, "acoustic"), 5)


def test_a_pod_with_another_elsewhere_and_a_budget_may_go(api: Api, table: Table) -> None:
    double, cluster = api
    codec = named(table, "codec")
    add_budget(double, codec, 1)
    add_pod(double, codec, "here", "n1")
    add_pod(double, codec, "there", "n2")
    double.pages["here:9464"] = page(waiting=0, running=0, slots=4, in_flight=3)
    (found,) = check_drain(cluster, table, "n1")
    assert found.pod == "here" and found.is_safe and found.in_flight == 3
    assert found.grace_s == table.grace_s(codec)
    assert path_of("Pod", "here") in double.objects  # nothing was evicted


def test_a_pod_whose_budget_is_used_up_may_not_go(api: Api, table: Table) -> None:
    double, cluster = api
    codec = named(table, "codec")
    add_budget(double, codec, 0)
    add_pod(double, codec, "here", "n1")
    add_pod(double, codec, "there", "n2")
    (found,) = check_drain(cluster, table, "n1")
    assert not found.is_safe and "disruption budget stretto-codec" in found.refusal and found.in_flight is None


@pytest.mark.parametrize("others", ["none", "same node", "not ready", "going"])
def test_the_last_ready_pod_may_not_go(api: Api, table: Table, others: str) -> None:
    double, cluster = api
    codec = named(table, "codec")
    add_budget(double, codec, 1)
    add_pod(double, codec, "here", "n1")
    if others != "none":
        add_pod(double, codec, "other", "n1" if others == "same node" else "n2", ready=others != "not ready")
    if others == "going":
        double.objects[path_of("Pod", "other")]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = check_drain(cluster, table, "n1")
    assert found and not any(pod.is_safe for pod in found)


def test_pods_of_jobs_and_of_other_nodes_are_nothing_to_a_drain(api: Api, table: Table) -> None:
    double, cluster = api
    add_pod(double, named(table, "codec"), "there", "n2")
    job = {"app.kubernetes.io/name": "stretto-weights", "app.kubernetes.io/part-of": "stretto"}
    double.objects[path_of("Pod", "job")] = {
        "kind": "Pod",
        "metadata": {"name": "job", "labels": job},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Succeeded"},
    }
    assert check_drain(cluster, table, "n1") == []
