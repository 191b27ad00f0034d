"""Whether a node can be drained now: what the server would say to each eviction, and whose listeners it would touch."""

from __future__ import annotations

from dataclasses import dataclass

from stretto_deploy.cluster import Cluster
from stretto_deploy.objects.pods import PART_OF, labels_of
from stretto_deploy.status import total
from stretto_deploy.table import Table


@dataclass(frozen=True)
class PodDrain:
    """One pod of the node.

    Args:
        pod: Its name.
        service: The service, or the app label of another pod of ours.
        refusal: Why the server would not evict it now; empty where it would.
        in_flight: RPCs that the drain waits for; None where the pod does not tell.
        num_elsewhere: Ready pods of the service on other nodes, which take over.
        grace_s: The longest that its drain takes.
    """

    pod: str
    service: str
    refusal: str
    in_flight: int | None
    num_elsewhere: int
    grace_s: int

    @property
    def is_safe(self) -> bool:
        """Evicted it loses nothing: the server lets it go, and another pod takes its calls."""
        return not self.refusal and self.num_elsewhere > 0


def check_drain(cluster: Cluster, table: Table, node: str) -> list[PodDrain]:
    """Every pod of ours on a node; nothing is evicted. Two pods of one service go one after the other."""
    services = {service.object_name: service for service in table.service}
    found = []
    for pod in cluster.list("/api/v1/pods", labels=PART_OF, field=f"spec.nodeName={node}"):
        name = pod["metadata"]["name"]
        app = pod["metadata"].get("labels", {}).get("app.kubernetes.io/name", "")
        service = services.get(app)
        if service is None or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            continue  # a Job's pod serves nobody
        _, refusal = cluster.may_evict(name)
        others = cluster.list("/api/v1/pods", labels=labels_of(service))
        page = cluster.page(name, table.metrics_port)
        found.append(
            PodDrain(
                pod=name,
                service=service.name,
                refusal=refusal,
                in_flight=None if page is None else total([page], "stretto_rpc_in_flight") or 0,
                num_elsewhere=sum(each["spec"].get("nodeName") != node and _is_ready(each) for each in others),
                grace_s=table.grace_s(service),
            )
        )
    return found


def _is_ready(pod: dict[str, dict[str, object]]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    is_going = "deletionTimestamp" in pod["metadata"]
    ready = {"type": "Ready", "status": "True"}
    return not is_going and isinstance(conditions, list) and any(ready.items() <= each.items() for each in conditions)
