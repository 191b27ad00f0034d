"""What holds between objects, and the rules of this house: each stands in the issue of a night, or in an ADR.

Each function takes all objects of one render and yields an object and what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from stretto_deploy.objects.around import CLUSTER_WIDE
from stretto_deploy.validation.findings import Finding, place_of
from stretto_deploy.validation.sense import PROBES, containers_of, pod_spec_of
from stretto_deploy.yamls import Manifest

SLACK_S = 10
EXTERNAL = {"Secret"}
"""Kinds of objects that we name and do not make: whoever runs the cluster does."""
Complaint = tuple[Manifest, str]


def _of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest.get("kind") in kinds]


def _name(manifest: Manifest) -> str:
    return str(manifest.get("metadata", {}).get("name", ""))


def _template_labels(workload: Manifest) -> dict[str, Any]:
    labels: dict[str, Any] = workload.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {})
    return labels


def _selected(manifests: list[Manifest], labels: dict[str, Any]) -> list[Manifest]:
    return [
        workload
        for workload in _of_kind(manifests, "Deployment", "Job")
        if labels.items() <= _template_labels(workload).items()
    ]


def objects_differ(manifests: list[Manifest]) -> Iterator[Complaint]:
    """No two objects have one name."""
    seen: set[tuple[object, ...]] = set()
    for manifest in manifests:
        key = (
            manifest.get("apiVersion"),
            manifest.get("kind"),
            manifest.get("metadata", {}).get("namespace"),
            _name(manifest),
        )
        if key in seen:
            yield manifest, "is there twice. Remove one."
        seen.add(key)


def objects_have_namespaces(manifests: list[Manifest]) -> Iterator[Complaint]:
    """What lives in a namespace says in which; what does not says none."""
    for manifest in manifests:
        if ("namespace" in manifest.get("metadata", {})) == (manifest.get("kind") in CLUSTER_WIDE):
            yield manifest, "lives in a namespace and names none, or the other way round. Correct metadata.namespace."


def services_reach_ports(manifests: list[Manifest]) -> Iterator[Complaint]:
    """A Service selects pods, and its target is a port of theirs."""
    for service in _of_kind(manifests, "Service"):
        workloads = _selected(manifests, service.get("spec", {}).get("selector", {}))
        if not workloads:
            yield service, "selects no pods. Correct the selector."
        for workload in workloads:
            ports = [port for container in containers_of(workload) for port in container.get("ports", [])]
            known = {port.get("name") for port in ports} | {port.get("containerPort") for port in ports}
            for port in service.get("spec", {}).get("ports", []):
                target = port.get("targetPort", port.get("port"))
                if target not in known:
                    yield service, f"targetPort {target!r} is no port of {_name(workload)}. Name one of its ports."


def references_exist(manifests: list[Manifest]) -> Iterator[Complaint]:
    """What a pod names is among the objects, or is a Secret."""
    there = {(manifest.get("kind"), _name(manifest)) for manifest in manifests}
    for workload in _of_kind(manifests, "Deployment", "Job"):
        for kind, name in _references(workload):
            if kind not in EXTERNAL and (kind, name) not in there:
                yield workload, f"names the {kind} {name!r}, which is not there. Add it, or correct the name."


def _references(workload: Manifest) -> Iterator[tuple[str, str]]:
    pod = pod_spec_of(workload)
    for field, kind in (("serviceAccountName", "ServiceAccount"), ("priorityClassName", "PriorityClass")):
        if field in pod:
            yield kind, pod[field]
    for volume in pod.get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"].get("name", "")
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"].get("claimName", "")
    for container in containers_of(workload):
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                yield "ConfigMap", source["configMapRef"].get("name", "")


def budgets_cover_all(manifests: list[Manifest]) -> Iterator[Complaint]:
    """Each Deployment has one budget, which leaves an eviction possible."""
    budgets = _of_kind(manifests, "PodDisruptionBudget")
    for deployment in _of_kind(manifests, "Deployment"):
        labels = _template_labels(deployment)
        own = [
            budget
            for budget in budgets
            if budget.get("spec", {}).get("selector", {}).get("matchLabels", {}).items() <= labels.items()
        ]
        if len(own) != 1:
            yield deployment, f"has {len(own)} PodDisruptionBudgets. Give it one."
        for budget in own:
            if str(budget.get("spec", {}).get("maxUnavailable")) in ("0", "0%"):
                yield budget, "lets no pod be evicted, so that no node can be drained. Set maxUnavailable 1."


def one_scaler_each(manifests: list[Manifest]) -> Iterator[Complaint]:
    """A Deployment's replicas have one owner: its manifest, or one autoscaler."""
    owners: dict[str, list[Manifest]] = {}
    for scaler in _of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        owners.setdefault(str(scaler.get("spec", {}).get("scaleTargetRef", {}).get("name")), []).append(scaler)
    deployments = {_name(deployment): deployment for deployment in _of_kind(manifests, "Deployment")}
    for target, scalers in owners.items():
        if target not in deployments:
            yield scalers[0], f"scales {target!r}, which is no Deployment here. Correct the name."
        elif "replicas" in deployments[target].get("spec", {}):
            yield deployments[target], "has replicas and an autoscaler, which fight at each apply. Remove replicas."
        if len(scalers) > 1:
            yield scalers[1], f"is the second autoscaler of {target}. Remove one."


def gpu_rollouts_need_no_spare(manifests: list[Manifest]) -> Iterator[Complaint]:
    """With every GPU in use a surge pod never starts: the old one goes first."""
    for deployment in _of_kind(manifests, "Deployment"):
        limits = {
            name for container in containers_of(deployment) for name in container.get("resources", {}).get("limits", {})
        }
        if not any(name.endswith("/gpu") for name in limits):
            continue
        rolling = deployment.get("spec", {}).get("strategy", {}).get("rollingUpdate", {})
        if (rolling.get("maxSurge"), rolling.get("maxUnavailable")) != (0, 1):
            yield deployment, "takes GPUs, so maxSurge must be 0 and maxUnavailable 1, or a full cluster never rolls."
        if "nodeSelector" not in pod_spec_of(deployment) or "tolerations" not in pod_spec_of(deployment):
            yield deployment, "takes GPUs, so it needs a nodeSelector and tolerations. Add them."


def drains_fit_the_grace(manifests: list[Manifest]) -> Iterator[Complaint]:
    """SIGKILL comes after preStop, the drain and the flush."""
    settings = {_name(each): each.get("data", {}) for each in _of_kind(manifests, "ConfigMap")}
    for deployment in _of_kind(manifests, "Deployment"):
        grace_s = float(pod_spec_of(deployment).get("terminationGracePeriodSeconds", 30))
        for container in pod_spec_of(deployment).get("containers", []):
            command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
            if len(command) != 2 or command[0] != "sleep":
                yield (
                    deployment,
                    f"{container.get('name')} has no preStop sleep, so calls reach a pod that drains. Add it.",
                )
                continue
            names = [source.get("configMapRef", {}).get("name") for source in container.get("envFrom", [])]
            drains = [settings.get(name, {}).get("STRETTO_GRPC_DRAIN_S") for name in names]
            needed_s = float(command[1]) + max((float(drain) for drain in drains if drain), default=30.0) + SLACK_S
            if grace_s < needed_s:
                yield deployment, f"is killed after {grace_s:g} s, but may drain until {needed_s:g} s. Raise the grace."


def servers_are_probed(manifests: list[Manifest]) -> Iterator[Complaint]:
    """Every server has the three probes, by gRPC, at a port of its own."""
    for deployment in _of_kind(manifests, "Deployment"):
        for container in pod_spec_of(deployment).get("containers", []):
            ports = {port.get("containerPort") for port in container.get("ports", [])}
            for kind in PROBES:
                asked = container.get(kind, {}).get("grpc", {}).get("port")
                if asked not in ports:
                    yield (
                        deployment,
                        f"{container.get('name')}.{kind} asks no port of the container by gRPC. Correct it.",
                    )


def plain_probes_beside_tls(manifests: list[Manifest]) -> Iterator[Complaint]:
    """The kubelet speaks no TLS: where it is served, probes go to the health port."""
    settings = {_name(each): each.get("data", {}) for each in _of_kind(manifests, "ConfigMap")}
    for deployment in _of_kind(manifests, "Deployment"):
        for container in pod_spec_of(deployment).get("containers", []):
            names = [source.get("configMapRef", {}).get("name") for source in container.get("envFrom", [])]
            own: dict[str, str] = {}
            for name in names:
                own |= settings.get(name, {})
            if "STRETTO_GRPC_TLS_CERT_PATH" not in own:
                continue
            asked = {str(container.get(kind, {}).get("grpc", {}).get("port")) for kind in PROBES}
            if asked != {own.get("STRETTO_GRPC_HEALTH_PORT")}:
                yield (
                    deployment,
                    f"{container.get('name')} serves TLS, so its probes must ask STRETTO_GRPC_HEALTH_PORT.",
                )


def pods_are_locked_down(manifests: list[Manifest]) -> Iterator[Complaint]:
    """No root, no token, nothing to write but volumes, no more rights than none."""
    for workload in _of_kind(manifests, "Deployment", "Job"):
        pod = pod_spec_of(workload)
        if pod.get("automountServiceAccountToken") is not False:
            yield workload, "gets a service account token. Set automountServiceAccountToken: false."
        if pod.get("securityContext", {}).get("runAsNonRoot") is not True:
            yield workload, "may run as root. Set securityContext.runAsNonRoot: true."
        if pod.get("securityContext", {}).get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield workload, "has no seccomp profile. Set RuntimeDefault."
        for container in containers_of(workload):
            own = container.get("securityContext", {})
            locked = own.get("readOnlyRootFilesystem") is True and own.get("allowPrivilegeEscalation") is False
            if not locked or own.get("capabilities", {}).get("drop") != ["ALL"]:
                yield workload, f"{container.get('name')} is not locked down: read-only root, no escalation, drop ALL."
            if "memory" not in container.get("resources", {}).get("limits", {}):
                yield workload, f"{container.get('name')} has no memory limit. Set one."


def weights_are_verified(manifests: list[Manifest]) -> Iterator[Complaint]:
    """A container that reads weights starts after one that has verified them, and cannot write them."""
    for deployment in _of_kind(manifests, "Deployment"):
        pod = pod_spec_of(deployment)
        mounts = [m for c in pod.get("containers", []) for m in c.get("volumeMounts", []) if m.get("name") == "weights"]
        if not mounts:
            continue
        checked = [c for c in pod.get("initContainers", []) if "sha256sum" in c.get("command", [])]
        if not any("weights" in {m.get("name") for m in c.get("volumeMounts", [])} for c in checked):
            yield deployment, "reads weights that nothing has verified. Add the init container verify-weights."
        if not all(mount.get("readOnly") for mount in mounts):
            yield deployment, "may write the weights. Mount them readOnly."


def traffic_is_denied_by_default(manifests: list[Manifest]) -> Iterator[Complaint]:
    """One policy denies everything, and each Deployment has one that says who may call it."""
    policies = _of_kind(manifests, "NetworkPolicy")
    denies = [
        policy
        for policy in policies
        if policy.get("spec", {}).get("podSelector") == {}
        and set(policy["spec"].get("policyTypes", [])) == {"Ingress", "Egress"}
        and not policy["spec"].get("ingress")
        and not policy["spec"].get("egress")
    ]
    for deployment in _of_kind(manifests, "Deployment"):
        if not denies:
            yield deployment, "is open to every pod. Add a NetworkPolicy that denies ingress and egress of all pods."
        ways_in = [
            rule
            for policy in policies
            if (labels := policy.get("spec", {}).get("podSelector", {}).get("matchLabels"))
            and labels.items() <= _template_labels(deployment).items()
            for rule in policy["spec"].get("ingress", [])
        ]
        if not ways_in:
            yield deployment, "can be called by nobody. Add a NetworkPolicy that names its callers."
        if not all(rule.get("from") for rule in ways_in):
            yield deployment, "can be called by everybody. Name the callers in each rule of its NetworkPolicy."


CHECKS: tuple[Callable[[list[Manifest]], Iterator[Complaint]], ...] = (
    objects_differ,
    objects_have_namespaces,
    services_reach_ports,
    references_exist,
    budgets_cover_all,
    one_scaler_each,
    gpu_rollouts_need_no_spare,
    drains_fit_the_grace,
    servers_are_probed,
    plain_probes_beside_tls,
    pods_are_locked_down,
    weights_are_verified,
    traffic_is_denied_by_default,
)


def check_house(manifests: list[Manifest]) -> list[Finding]:
    """What the checks of all objects together find."""
    return [
        Finding(check.__name__, place_of(manifest), message)
        for check in CHECKS
        for manifest, message in check(manifests)
    ]
