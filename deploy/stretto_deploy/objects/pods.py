"""The Deployment of a service: probes, drain, resources, security, and weights that are verified before use."""

from __future__ import annotations

from typing import Any

from stretto_deploy.table import Service, Table
from stretto_deploy.yamls import Manifest

PART_OF = {"app.kubernetes.io/part-of": "stretto"}
PRIORITY_CLASSES = {"door": ("stretto-door", 100_000), "model": ("stretto-model", 90_000)}
API_KEYS_SECRET = "stretto-api-keys"
WEIGHTS_CLAIM = "stretto-weights"
WEIGHTS_VOLUME_IMAGE = "stretto-weights-volume"
PROBE_PERIOD_S = 10
RUN_AS = 10001  # the user of service.Dockerfile
MOUNTED_WEIGHTS = "/weights"


def labels_of(service: Service) -> dict[str, str]:
    """What selects the pods of one service; it never changes, because a Deployment's selector cannot."""
    return {"app.kubernetes.io/name": service.object_name, **PART_OF}


def deployment(table: Table, service: Service) -> Manifest:
    """How many pods of a service there are, and how one follows the other."""
    labels = labels_of(service)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": service.object_name, "labels": labels},
        "spec": {
            "replicas": service.replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": service.startup_s + 300,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": dict(labels)}, "spec": pod_spec(table, service)},
        },
    }


def pod_spec(table: Table, service: Service) -> dict[str, Any]:
    """One pod."""
    return {
        "serviceAccountName": service.object_name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": PRIORITY_CLASSES[service.role][0],
        "terminationGracePeriodSeconds": table.grace_s(service),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": RUN_AS,
            "runAsGroup": RUN_AS,
            "fsGroup": RUN_AS,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            _spread("topology.kubernetes.io/zone", service),
            _spread("kubernetes.io/hostname", service),
        ],
        **({"initContainers": [_weights_check(table, service)]} if service.weights else {}),
        "containers": [_server(table, service)],
        "volumes": _volumes(service),
    }


def _spread(key: str, service: Service) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels_of(service)},
        "matchLabelKeys": ["pod-template-hash"],  # a rollout spreads the new pods, whatever the old ones do
    }


def _server(table: Table, service: Service) -> dict[str, Any]:
    return {
        "name": service.name,
        "image": f"{table.image(service)}:{table.tag}",
        "ports": [
            {"name": "grpc", "containerPort": service.port, "protocol": "TCP"},
            {"name": "metrics", "containerPort": table.metrics_port, "protocol": "TCP"},
        ],
        "envFrom": [{"configMapRef": {"name": service.object_name}}],
        "resources": resources(service.cpu, service.memory),
        **probes(service.port, service.startup_s),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(table.pre_stop_s)]}}},
        "securityContext": _locked_down(),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            *(_key_mounts() if service.is_door else []),
            *(_weight_mounts(service) if service.weights else []),
        ],
    }


def resources(cpu: str, memory: str) -> dict[str, Any]:
    """Memory is limited to what is requested; processor time is not limited."""
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}}


def probes(port: int, startup_s: int) -> dict[str, Any]:
    """GRPC health by the kubelet: the whole server's, which is SERVING once every model is loaded.

    A pod that drains is NOT_SERVING, so readiness fails at once; the kubelet asks a terminating pod nothing else.
    """
    asked = {"grpc": {"port": port}, "timeoutSeconds": 5}
    tries = -(-startup_s // PROBE_PERIOD_S)
    return {
        "startupProbe": {**asked, "periodSeconds": PROBE_PERIOD_S, "failureThreshold": tries},
        "readinessProbe": {**asked, "periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {**asked, "periodSeconds": PROBE_PERIOD_S, "failureThreshold": 6},
    }


def _weights_check(table: Table, service: Service) -> dict[str, Any]:
    """Refuses to start on weights that are not those of the release; `sha256sum` names the file that differs."""
    return {
        "name": "verify-weights",
        "image": f"{table.image(service)}:{table.tag}",
        "command": ["sha256sum", "--check", "--strict", "--quiet", f"/etc/stretto/digests/{service.name}.sha256"],
        "workingDir": f"{MOUNTED_WEIGHTS}/{service.name}",
        "resources": resources("100m", "128Mi"),
        "securityContext": _locked_down(),
        "volumeMounts": [
            *_weight_mounts(service),
            {"name": "digests", "mountPath": "/etc/stretto/digests", "readOnly": True},
        ],
    }


def _weight_mounts(service: Service) -> list[dict[str, Any]]:
    path = f"{MOUNTED_WEIGHTS}/{service.name}"
    return [{"name": "weights", "mountPath": path, "subPath": service.name, "readOnly": True}]


def _key_mounts() -> list[dict[str, Any]]:
    return [{"name": "api-keys", "mountPath": "/etc/stretto/keys", "readOnly": True}]


def _volumes(service: Service) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]
    if service.is_door:
        volumes.append({"name": "api-keys", "secret": {"secretName": API_KEYS_SECRET, "defaultMode": 0o440}})
    if service.weights:
        volumes.append({"name": "weights", "persistentVolumeClaim": {"claimName": WEIGHTS_CLAIM, "readOnly": True}})
        volumes.append({"name": "digests", "configMap": {"name": "stretto-weights-digests"}})
    return volumes


def _locked_down() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
