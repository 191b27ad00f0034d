"""Manifests onto a cluster: in which order, what would change, and when the change has arrived."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from stretto_shared.errors import NotReady

from stretto_deploy.cluster import Cluster
from stretto_deploy.validation.findings import place_of
from stretto_deploy.yamls import Manifest, dump_all

FIRST_KINDS = (
    "Namespace", "PriorityClass", "NetworkPolicy", "ServiceAccount", "ConfigMap", "PersistentVolumeClaim", "Service",
    "PodDisruptionBudget", "Job",
)  # fmt: skip
OWNED_BY_SERVER = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink")
POLL_S = 2.0


@dataclass(frozen=True)
class Rollout:
    """How far a Deployment is.

    Args:
        name: The Deployment.
        wanted: Replicas that there should be.
        updated: Replicas of the newest template.
        available: Replicas that have been ready long enough.
        old: Replicas of earlier templates that are still there.
        failure: Why it cannot get further; empty where it can.
        observed: Whether the cluster has seen the newest manifest.
    """

    name: str
    wanted: int
    updated: int
    available: int
    old: int = 0
    failure: str = ""
    observed: bool = True

    @property
    def is_done(self) -> bool:
        """Every replica is new and available, and none is left over."""
        arrived = self.updated == self.available == self.wanted and not self.old
        return arrived and self.observed and not self.failure


def in_order(manifests: list[Manifest]) -> list[Manifest]:
    """What others need comes first; policies come before the pods that they guard."""
    last = len(FIRST_KINDS)
    ranks = {kind: rank for rank, kind in enumerate(FIRST_KINDS)}
    return sorted(manifests, key=lambda manifest: ranks.get(str(manifest.get("kind")), last))


def apply_all(cluster: Cluster, manifests: list[Manifest], *, force: bool = False) -> Iterator[str]:
    """Apply every object server-side and say of each whether it was created, changed or left.

    Raises:
        StrettoError: What the cluster has against one of them; those before it are applied.
    """
    for manifest in in_order(manifests):
        before = cluster.get(manifest)
        after = cluster.apply(manifest, force=force)
        if before is None:
            word = "created"
        else:
            word = "unchanged" if _plain(before) == _plain(after) else "changed"
        yield f"{place_of(manifest)} {word}"


def differences(cluster: Cluster, manifests: list[Manifest], *, force: bool = False) -> Iterator[str]:
    """Unified diffs from what is live to what applying would make of it, by the server's own dry run."""
    for manifest in in_order(manifests):
        before = cluster.get(manifest)
        if before is None and manifest.get("kind") != "Namespace" and not _namespace_exists(cluster, manifest):
            after: Manifest = manifest  # a dry run makes no namespace, so the server refuses what would lie in it
        else:
            after = cluster.apply(manifest, dry_run=True, force=force)
        old = [] if before is None else dump_all([_plain(before)]).splitlines(keepends=True)
        new = dump_all([_plain(after)]).splitlines(keepends=True)
        place = place_of(manifest)
        text = "".join(difflib.unified_diff(old, new, f"live {place}", f"applied {place}"))
        if text:
            yield text


def _namespace_exists(cluster: Cluster, manifest: Manifest) -> bool:
    namespace = manifest["metadata"].get("namespace")
    if namespace is None:
        return True
    return cluster.get({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}) is not None


def rollout_of(deployment: Manifest) -> Rollout:
    """What a Deployment says of itself."""
    spec, status = deployment.get("spec", {}), deployment.get("status", {})
    failures = [
        str(condition.get("message", condition.get("reason", "")))
        for condition in status.get("conditions", [])
        if (condition.get("type"), condition.get("status")) == ("Progressing", "False")
        or (condition.get("type"), condition.get("status")) == ("ReplicaFailure", "True")
    ]
    return Rollout(
        name=deployment["metadata"]["name"],
        wanted=int(spec.get("replicas", 1)),
        updated=_replicas(status, "updatedReplicas"),
        available=_replicas(status, "availableReplicas"),
        old=_replicas(status, "replicas") - _replicas(status, "updatedReplicas"),
        failure="; ".join(failures),
        observed=int(status.get("observedGeneration", 0)) >= int(deployment["metadata"].get("generation", 0)),
    )


def wait_for(
    cluster: Cluster,
    labels: dict[str, str],
    timeout_s: float,
    *,
    tell: Callable[[list[Rollout]], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    now_s: Callable[[], float] = time.monotonic,
) -> list[Rollout]:
    """Wait until every Deployment of ours has rolled out.

    Raises:
        NotReady: If one cannot, or time is up; the message says which and how far it is.
    """
    give_up_s = now_s() + timeout_s
    while True:
        rollouts = [rollout_of(each) for each in cluster.list("/apis/apps/v1/deployments", labels=labels)]
        tell(rollouts)
        if not rollouts:
            raise NotReady(f"There are no Deployments in {cluster.namespace}. Run: stretto-deploy apply.")
        failed = [f"{each.name}: {each.failure}" for each in rollouts if each.failure]
        if failed:
            raise NotReady(f"{'; '.join(failed)}. See kubectl describe, and docs/runbook.md.")
        waiting = [each for each in rollouts if not each.is_done]
        if not waiting:
            return rollouts
        if now_s() >= give_up_s:
            names = ", ".join(f"{each.name} {each.available}/{each.wanted}" for each in waiting)
            raise NotReady(f"After {timeout_s:g} s there still roll: {names}. Wait longer, or see kubectl describe.")
        sleep(POLL_S)


def _replicas(status: dict[str, Any], field: str) -> int:
    return int(status.get(field) or 0)


def _plain(live: Manifest) -> Manifest:
    """Without what the server writes for itself."""
    metadata = {key: value for key, value in live.get("metadata", {}).items() if key not in OWNED_BY_SERVER}
    return {key: value for key, value in (live | {"metadata": metadata}).items() if key != "status"}
