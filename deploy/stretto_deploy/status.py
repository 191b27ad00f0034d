"""How a cluster is doing, service by service: rollout, queue, slots, and the digests of its weights.

Queues and slots are read off the pods' own metrics pages through the API server, so they need no Prometheus; where a
network policy keeps the API server out, they are unknown, not zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from stretto_deploy.cluster import Cluster
from stretto_deploy.objects.pods import PART_OF, labels_of
from stretto_deploy.rollout import Rollout, rollout_of
from stretto_deploy.table import Service, Table

DIGESTS = "stretto-weights-digests"
WEIGHTS_SUFFIX = "/model.safetensors"
DIGEST_LETTERS = 12


@dataclass(frozen=True)
class ServiceStatus:
    """One service.

    Args:
        name: The service.
        rollout: None where there is no Deployment.
        num_pods: Pods that run.
        num_answering: Pods whose page could be read; the numbers below are sums over them, None where there is none.
        waiting: Requests in its queue.
        running: Requests that hold a slot; None for services without slots.
        slots: Slots that there are.
        in_flight: RPCs being served.
        digests: Model to sha256 of its weights, as its pods verify them before they start.
    """

    name: str
    rollout: Rollout | None
    num_pods: int
    num_answering: int
    waiting: int | None
    running: int | None
    slots: int | None
    in_flight: int | None
    digests: Mapping[str, str]


def status_of(cluster: Cluster, table: Table) -> list[ServiceStatus]:
    """Every service of the table, in its order."""
    deployments = {each["metadata"]["name"]: each for each in cluster.list("/apis/apps/v1/deployments", labels=PART_OF)}
    expected = _expected_digests(cluster)
    return [
        _status(cluster, table, service, deployments.get(service.object_name), expected.get(service.name, {}))
        for service in table.service
    ]


def _status(
    cluster: Cluster, table: Table, service: Service, deployment: dict[str, object] | None, digests: Mapping[str, str]
) -> ServiceStatus:
    pods = [
        pod["metadata"]["name"]
        for pod in cluster.list("/api/v1/pods", labels=labels_of(service))
        if pod.get("status", {}).get("phase") == "Running"
    ]
    pages = [page for pod in pods if (page := cluster.page(pod, table.metrics_port)) is not None]
    return ServiceStatus(
        name=service.name,
        rollout=None if deployment is None else rollout_of(deployment),
        num_pods=len(pods),
        num_answering=len(pages),
        waiting=total(pages, "stretto_stage_waiting_requests", stage=service.name),
        running=total(pages, "stretto_stage_running_requests", stage=service.name),
        slots=total(pages, "stretto_stage_slots", stage=service.name),
        in_flight=total(pages, "stretto_rpc_in_flight"),
        digests=digests,
    )


def total(pages: Iterable[str], metric: str, **labels: str) -> int | None:
    """The sum of a metric over pages; None where no page has it. Calls of gRPC's own services do not count."""
    found = [
        sample.value
        for page in pages
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == metric
        and labels.items() <= sample.labels.items()
        and sample.labels.get("method", "/stretto.").startswith("/stretto.")
    ]
    return int(sum(found)) if found else None


def _expected_digests(cluster: Cluster) -> dict[str, dict[str, str]]:
    """What the newest ConfigMap of digests lists, by service and model."""
    maps = [
        each
        for each in cluster.list("/api/v1/configmaps", labels=PART_OF)
        if each["metadata"]["name"].startswith(DIGESTS)
    ]
    newest = max(maps, key=lambda each: str(each["metadata"].get("creationTimestamp", "")), default=None)
    if newest is None:
        return {}
    return {file.removesuffix(".sha256"): _read(text) for file, text in newest.get("data", {}).items()}


def _read(text: str) -> dict[str, str]:
    pairs = (line.split("  ", 1) for line in text.splitlines())
    return {path.removesuffix(WEIGHTS_SUFFIX): digest for digest, path in pairs if path.endswith(WEIGHTS_SUFFIX)}
