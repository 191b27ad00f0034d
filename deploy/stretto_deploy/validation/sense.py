"""What a schema cannot see and a cluster refuses, or worse, takes: one function for each error, each of one object.

Every check has a manifest that breaks it in `tests/deploy`, and the 21 of `evals/reliability/manifests.py` among them.
Objects may be malformed in other ways, so the checks look rather than assume.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from stretto_deploy.validation.findings import Finding, place_of
from stretto_deploy.yamls import Manifest

NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
QUANTITY = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<suffix>m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|)")
FACTORS = {"": 1, "m": Decimal("0.001"), **{unit: 1000 ** (i + 1) for i, unit in enumerate("kMGTPE")}} | {
    f"{unit}i": 1024 ** (i + 1) for i, unit in enumerate("KMGTPE")
}
PROTOCOLS = ("TCP", "UDP", "SCTP")
HANDLERS = ("exec", "grpc", "httpGet", "tcpSocket")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def quantity(text: object) -> Decimal | None:
    """The value of a quantity as `500m` or `2Gi`; None where it is none."""
    match = QUANTITY.fullmatch(str(text))
    try:
        return None if match is None else Decimal(match["number"]) * FACTORS[match["suffix"]]
    except InvalidOperation:
        return None


def pod_spec_of(manifest: Manifest) -> dict[str, Any]:
    """The pod of a workload; empty for other objects."""
    spec: dict[str, Any] = manifest.get("spec", {}).get("template", {}).get("spec", {})
    return spec


def containers_of(manifest: Manifest) -> list[dict[str, Any]]:
    """All containers of a workload, those that initialise it first."""
    pod = pod_spec_of(manifest)
    return [*pod.get("initContainers", []), *pod.get("containers", [])]


def names_are_names(manifest: Manifest) -> Iterator[str]:
    """Names are DNS names; those of Services are single labels."""
    name = str(manifest.get("metadata", {}).get("name", ""))
    pattern, limit = (LABEL_NAME, 63) if manifest.get("kind") == "Service" else (NAME, 253)
    if not pattern.fullmatch(name) or len(name) > limit:
        yield f"name {name!r} is none of lower case, digits and '-'. Rename it."
    for container in containers_of(manifest):
        if not LABEL_NAME.fullmatch(str(container.get("name", ""))):
            yield f"container name {container.get('name')!r} is none of lower case, digits and '-'. Rename it."


def selector_matches_template(manifest: Manifest) -> Iterator[str]:
    """A Deployment selects its own pods."""
    spec = manifest.get("spec", {})
    wanted = spec.get("selector", {}).get("matchLabels", {})
    given = spec.get("template", {}).get("metadata", {}).get("labels", {})
    lacking = {key: value for key, value in wanted.items() if given.get(key) != value}
    if manifest.get("kind") == "Deployment" and lacking:
        yield f"the selector wants {lacking}, which the template's labels are not. Make them equal."


def quantities_are_quantities(manifest: Manifest) -> Iterator[str]:
    """Amounts are numbers with a suffix that Kubernetes knows."""
    amounts = [
        (f"{container.get('name')}.resources.{side}.{resource}", amount)
        for container in containers_of(manifest)
        for side in ("requests", "limits")
        for resource, amount in container.get("resources", {}).get(side, {}).items()
    ]
    if manifest.get("kind") == "PersistentVolumeClaim":
        requests = manifest.get("spec", {}).get("resources", {}).get("requests", {})
        amounts += [(f"resources.requests.{resource}", amount) for resource, amount in requests.items()]
    for field, amount in amounts:
        if quantity(amount) is None:
            yield f"{field}: {amount!r} is no quantity. Write for example 500m or 2Gi."


def requests_fit_limits(manifest: Manifest) -> Iterator[str]:
    """Nothing is requested beyond its limit."""
    for container in containers_of(manifest):
        resources = container.get("resources", {})
        for resource, limit in resources.get("limits", {}).items():
            asked, most = quantity(resources.get("requests", {}).get(resource, 0)), quantity(limit)
            if asked is not None and most is not None and asked > most:
                yield f"{container.get('name')} requests {resource} {asked} beyond its limit {most}. Raise the limit."


def gpus_are_whole_and_equal(manifest: Manifest) -> Iterator[str]:
    """Extended resources are whole, and requested as they are limited."""
    for container in containers_of(manifest):
        resources = container.get("resources", {})
        requests, limits = resources.get("requests", {}), resources.get("limits", {})
        for resource in sorted({*requests, *limits}):
            if "/" not in resource:
                continue
            amounts = quantity(requests.get(resource, limits.get(resource))), quantity(limits.get(resource, -1))
            if amounts[0] != amounts[1]:
                yield f"{container.get('name')}: request and limit of {resource} differ. Make them equal."
            if any(amount is not None and amount % 1 for amount in amounts):
                yield f"{container.get('name')}: {resource} comes in whole ones. Ask for 1."


def probes_have_one_handler(manifest: Manifest) -> Iterator[str]:
    """A probe asks in one way."""
    for container in containers_of(manifest):
        for kind in PROBES:
            handlers = [handler for handler in HANDLERS if handler in container.get(kind, {})]
            if kind in container and len(handlers) != 1:
                yield f"{container.get('name')}.{kind} has {len(handlers)} handlers, not one of {', '.join(HANDLERS)}."


def mounts_have_volumes(manifest: Manifest) -> Iterator[str]:
    """What is mounted exists."""
    volumes = {volume.get("name") for volume in pod_spec_of(manifest).get("volumes", [])}
    for container in containers_of(manifest):
        for mount in container.get("volumeMounts", []):
            if mount.get("name") not in volumes:
                yield f"{container.get('name')} mounts {mount.get('name')!r}, which is no volume. Add the volume."


def port_names_differ(manifest: Manifest) -> Iterator[str]:
    """A name means one port."""
    named = [port.get("name") for container in containers_of(manifest) for port in container.get("ports", [])]
    if manifest.get("kind") == "Service":
        named += [port.get("name") for port in manifest.get("spec", {}).get("ports", [])]
    for name, count in Counter(named).items():
        if name is not None and count > 1:
            yield f"{count} ports have the name {name!r}. Give each its own."


def tolerations_have_effects(manifest: Manifest) -> Iterator[str]:
    """A toleration of an effect that is none tolerates nothing."""
    for toleration in pod_spec_of(manifest).get("tolerations", []):
        if toleration.get("effect", EFFECTS[0]) not in EFFECTS:
            yield f"toleration effect {toleration['effect']!r} is none of {', '.join(EFFECTS)}. Correct it."


def rollouts_can_move(manifest: Manifest) -> Iterator[str]:
    """With neither a pod more nor a pod less nothing rolls."""
    rolling = manifest.get("spec", {}).get("strategy", {}) or {}
    rolling = rolling.get("rollingUpdate", {}) if isinstance(rolling, dict) else {}
    if rolling and all(str(rolling.get(key, "25%")) in ("0", "0%") for key in ("maxSurge", "maxUnavailable")):
        yield "maxSurge and maxUnavailable are both 0. Raise one: for GPU pods maxUnavailable."


def budgets_say_one_thing(manifest: Manifest) -> Iterator[str]:
    """A PodDisruptionBudget has a minimum or a maximum."""
    spec = manifest.get("spec", {})
    if manifest.get("kind") == "PodDisruptionBudget" and ("minAvailable" in spec) == ("maxUnavailable" in spec):
        yield "expected minAvailable or maxUnavailable, and one of them. Keep one."


def autoscalers_can_grow(manifest: Manifest) -> Iterator[str]:
    """An autoscaler's minimum is not above its maximum."""
    spec = manifest.get("spec", {})
    fields = {
        "HorizontalPodAutoscaler": ("minReplicas", "maxReplicas"),
        "ScaledObject": ("minReplicaCount", "maxReplicaCount"),
    }.get(str(manifest.get("kind")))
    if fields is not None and isinstance(spec.get(fields[1]), int) and spec.get(fields[0], 1) > spec[fields[1]]:
        yield f"{fields[0]} {spec.get(fields[0], 1)} is above {fields[1]} {spec[fields[1]]}. Exchange them."


def policies_have_ports(manifest: Manifest) -> Iterator[str]:
    """A NetworkPolicy's ports are of a protocol that there is, and their ranges go up."""
    if manifest.get("kind") != "NetworkPolicy":
        return
    spec = manifest.get("spec", {})
    for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
        for port in rule.get("ports", []):
            if port.get("protocol", "TCP") not in PROTOCOLS:
                yield f"protocol {port['protocol']!r} is none of {', '.join(PROTOCOLS)}. Correct it."
            low, high = port.get("port"), port.get("endPort")
            if isinstance(low, int) and not 1 <= low <= 65_535:
                yield f"port {low} is none of 1 to 65535. Correct it."
            if high is not None and not (isinstance(low, int) and low <= high <= 65_535):
                yield f"the ports {low} to {high} are no range. endPort is at least port, and at most 65535."


CHECKS: tuple[Callable[[Manifest], Iterator[str]], ...] = (
    names_are_names,
    selector_matches_template,
    quantities_are_quantities,
    requests_fit_limits,
    gpus_are_whole_and_equal,
    probes_have_one_handler,
    mounts_have_volumes,
    port_names_differ,
    tolerations_have_effects,
    rollouts_can_move,
    budgets_say_one_thing,
    autoscalers_can_grow,
    policies_have_ports,
)


def check_sense(manifests: list[Manifest]) -> list[Finding]:
    """What the checks of single objects find."""
    return [
        Finding(check.__name__, place_of(manifest), message)
        for manifest in manifests
        for check in CHECKS
        for message in check(manifest)
    ]
