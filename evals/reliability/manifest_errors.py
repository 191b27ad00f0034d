"""The 21 errors that are seeded into our own manifests, one at a time.

Three are of the schema, one is a kind that no schema has, one is of YAML itself, and sixteen are what schemas cannot
see. Each changes the render of the overlay `gpu` with the component `keda` in one place, and names the check that must
find it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stretto_deploy.yamls import Manifest, dump_all

ACOUSTIC = "stretto-acoustic"


@dataclass(frozen=True)
class SeededError:
    """One error.

    Args:
        name: What is wrong.
        check: The check that must find it.
        seed: The manifests as text, with the error.
    """

    name: str
    check: str
    seed: Callable[[list[Manifest]], str]


def find(manifests: list[Manifest], kind: str, name: str = ACOUSTIC) -> Manifest:
    """The object of that kind and name."""
    return next(each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name)


def _changed(kind: str, change: Callable[[Manifest], object], name: str = ACOUSTIC) -> Callable[[list[Manifest]], str]:
    def seed(manifests: list[Manifest]) -> str:
        wrong = copy.deepcopy(manifests)
        change(find(wrong, kind, name))
        return dump_all(wrong)

    return seed


def _pod(change: Callable[[dict[str, Any]], object]) -> Callable[[list[Manifest]], str]:
    return _changed("Deployment", lambda deployment: change(deployment["spec"]["template"]["spec"]))


def _container(change: Callable[[dict[str, Any]], object]) -> Callable[[list[Manifest]], str]:
    return _pod(lambda pod: change(pod["containers"][0]))


def _policy_port(**fields: object) -> Callable[[list[Manifest]], str]:
    return _changed("NetworkPolicy", lambda policy: policy["spec"]["ingress"][0]["ports"][0].update(fields))


def _gpus(request: str, limit: str) -> Callable[[list[Manifest]], str]:
    def change(container: dict[str, Any]) -> None:
        container["resources"]["requests"]["nvidia.com/gpu"] = request
        container["resources"]["limits"]["nvidia.com/gpu"] = limit

    return _container(change)


def _twice(manifests: list[Manifest]) -> str:
    return dump_all(manifests).replace("kind: Deployment\n", "kind: Deployment\nkind: Deployment\n", 1)


def _with_autoscaler(manifests: list[Manifest]) -> str:
    """An HPA whose minimum is above its maximum, in place of KEDA's object."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": ACOUSTIC}
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    scaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": ACOUSTIC, "namespace": "stretto"},
        "spec": {"scaleTargetRef": target, "minReplicas": 5, "maxReplicas": 2, "metrics": [metric]},
    }
    return dump_all([*(each for each in manifests if each is not find(manifests, "ScaledObject")), scaler])


SEEDED = (
    SeededError("unknown field", "schema", _container(lambda c: c.update(imagePullPolice="Always"))),
    SeededError(
        "wrong type", "schema", _changed("Deployment", lambda d: d["spec"].update(revisionHistoryLimit="three"))
    ),
    SeededError("required field missing", "schema", _changed("Deployment", lambda d: d["spec"].pop("selector"))),
    SeededError("kind of no version", "schema", _changed("Deployment", lambda d: d.update(apiVersion="apps/v1beta1"))),
    SeededError("key twice", "yaml", _twice),
    SeededError(
        "selector is not the template's labels",
        "selector_matches_template",
        _changed(
            "Deployment", lambda d: d["spec"]["selector"]["matchLabels"].update({"app.kubernetes.io/name": "other"})
        ),
    ),
    SeededError("GPU request is not its limit", "gpus_are_whole_and_equal", _gpus("1", "2")),
    SeededError("half a GPU", "gpus_are_whole_and_equal", _gpus("500m", "500m")),
    SeededError(
        "probe with two handlers",
        "probes_have_one_handler",
        _container(lambda c: c["livenessProbe"].update(tcpSocket={"port": 50054})),
    ),
    SeededError(
        "budget with minimum and maximum",
        "budgets_say_one_thing",
        _changed("PodDisruptionBudget", lambda b: b["spec"].update(minAvailable=1)),
    ),
    SeededError("autoscaler's minimum above its maximum", "autoscalers_can_grow", _with_autoscaler),
    SeededError(
        "name that is none",
        "names_are_names",
        _changed("ServiceAccount", lambda a: a["metadata"].update(name="Stretto_Acoustic")),
    ),
    SeededError(
        "quantity that is none",
        "quantities_are_quantities",
        _pod(lambda p: p["initContainers"][0]["resources"]["requests"].update(memory="128 MB")),
    ),
    SeededError(
        "mount without a volume",
        "mounts_have_volumes",
        _container(lambda c: c["volumeMounts"].append({"name": "cache", "mountPath": "/cache"})),
    ),
    SeededError("two ports of one name", "port_names_differ", _container(lambda c: c["ports"][1].update(name="grpc"))),
    SeededError(
        "more cpu requested than allowed",
        "requests_fit_limits",
        _container(lambda c: c["resources"]["requests"].update(cpu="4500m")),
    ),
    SeededError(
        "toleration of no effect",
        "tolerations_have_effects",
        _pod(lambda p: p["tolerations"][0].update(effect="NoScheduling")),
    ),
    SeededError(
        "surge and unavailable both 0",
        "rollouts_can_move",
        _changed("Deployment", lambda d: d["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=0)),
    ),
    SeededError("protocol that is none", "policies_have_ports", _policy_port(protocol="HTTP")),
    SeededError("range of ports that goes down", "policies_have_ports", _policy_port(endPort=50000)),
    SeededError(
        "Service to a port of no container",
        "services_reach_ports",
        _changed("Service", lambda s: s["spec"]["ports"][0].update(targetPort="http")),
    ),
)
