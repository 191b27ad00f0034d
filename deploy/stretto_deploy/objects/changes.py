"""What overlays and components change: GPUs, weights, monitoring and TLS, as objects and merge patches."""

from __future__ import annotations

from typing import Any

from stretto_deploy.objects.around import MONITORING_NAMESPACE
from stretto_deploy.objects.pods import (
    PART_OF,
    PROBE_PERIOD_S,
    RUN_AS,
    WEIGHTS_CLAIM,
    WEIGHTS_VOLUME_IMAGE,
    probes,
)
from stretto_deploy.table import Gpu, Service, Table
from stretto_deploy.yamls import Manifest

GPU_RESOURCE = "nvidia.com/gpu"
OTLP_PORT = 4317
OTLP_ENDPOINT = f"http://otel-collector.{MONITORING_NAMESPACE}.svc:{OTLP_PORT}"
TLS_FOLDER = "/etc/stretto/tls"


def gpu_patch(service: Service, gpu: Gpu) -> Manifest:
    """A whole GPU for each pod, on nodes that have one.

    With every GPU in use there is no room for a surge pod, so a rollout that may not go below `replicas` waits for
    ever; this one takes a pod away first.
    """
    amounts = {"cpu": gpu.cpu, "memory": gpu.memory, GPU_RESOURCE: str(gpu.count)}
    container = {
        "name": service.name,
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "startupProbe": {"failureThreshold": -(-gpu.startup_s // PROBE_PERIOD_S)},
    }
    return _deployment_patch(
        service,
        {
            "progressDeadlineSeconds": gpu.startup_s + 300,
            "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {
                "spec": {
                    "nodeSelector": {"nvidia.com/gpu.present": "true"},
                    "tolerations": [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}],
                    "containers": [container],
                }
            },
        },
    )


def weights_job(table: Table) -> Manifest:
    """Copies the committed checkpoints from their image to the volume, once."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "stretto-weights", "labels": dict(PART_OF)},
        "spec": {
            "backoffLimit": 4,
            "template": {
                "metadata": {"labels": {"app.kubernetes.io/name": "stretto-weights", **PART_OF}},
                "spec": {
                    "restartPolicy": "OnFailure",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": RUN_AS,
                        "runAsGroup": RUN_AS,
                        "fsGroup": RUN_AS,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [_copier(table)],
                    "volumes": [{"name": "weights", "persistentVolumeClaim": {"claimName": WEIGHTS_CLAIM}}],
                },
            },
        },
    }


def _copier(table: Table) -> dict[str, Any]:
    return {
        "name": "copy",
        "image": f"{table.registry}/stretto-weights:{table.tag}",
        "command": ["cp", "--recursive", "--no-target-directory", "/weights", "/target"],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "weights", "mountPath": "/target"}],
    }


def weights_image_patch(table: Table, service: Service) -> Manifest:
    """The weights from an image that the kubelet mounts, in place of the claim; verified as before."""
    volume = {
        "name": "weights",
        "persistentVolumeClaim": None,
        "image": {"reference": f"{table.registry}/{WEIGHTS_VOLUME_IMAGE}:{table.tag}", "pullPolicy": "IfNotPresent"},
    }
    return _deployment_patch(service, {"template": {"spec": {"volumes": [volume]}}})


def pod_monitor() -> Manifest:
    """What Prometheus scrapes: every pod of ours that has a page."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": "stretto", "labels": dict(PART_OF)},
        "spec": {
            "selector": {"matchLabels": dict(PART_OF)},
            "podMetricsEndpoints": [{"port": "metrics", "path": "/metrics", "interval": "15s"}],
        },
    }


def prometheus_rule(groups: list[dict[str, Any]]) -> Manifest:
    """`prometheus/rules.yaml`, as the operator wants it."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "stretto", "labels": dict(PART_OF)},
        "spec": {"groups": groups},
    }


def otlp_egress() -> Manifest:
    """Spans may go to the collector."""
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": MONITORING_NAMESPACE}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "stretto-spans", "labels": dict(PART_OF)},
        "spec": {
            "podSelector": {"matchLabels": dict(PART_OF)},
            "policyTypes": ["Egress"],
            "egress": [{"to": [peer], "ports": [{"protocol": "TCP", "port": OTLP_PORT}]}],
        },
    }


def mtls_settings(table: Table, service: Service) -> dict[str, str]:
    """The door serves TLS and asks for keys; a model serves nobody whose certificate is not the door's."""
    served = {
        "STRETTO_GRPC_TLS_CERT_PATH": f"{TLS_FOLDER}/tls.crt",
        "STRETTO_GRPC_TLS_KEY_PATH": f"{TLS_FOLDER}/tls.key",
        "STRETTO_GRPC_HEALTH_PORT": str(table.health_port),
    }
    if service.is_door:
        called = {"CA_PATH": "ca.crt", "CERT_PATH": "tls.crt", "KEY_PATH": "tls.key"}
        return served | {f"STRETTO_CHANNEL_TLS_{key}": f"{TLS_FOLDER}/{file}" for key, file in called.items()}
    return served | {
        "STRETTO_GRPC_TLS_CLIENT_CA_PATH": f"{TLS_FOLDER}/ca.crt",
        "STRETTO_GRPC_TLS_CLIENT_NAMES": table.door.object_name,
    }


def mtls_patch(table: Table, service: Service) -> Manifest:
    """The certificate, and probes by the plain port: the kubelet's gRPC probes speak no TLS."""
    asked = {kind: {"grpc": {"port": table.health_port}} for kind in probes(service.port, service.startup_s)}
    container = {
        "name": service.name,
        "ports": [{"name": "health", "containerPort": table.health_port, "protocol": "TCP"}],
        **asked,
        "volumeMounts": [{"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True}],
    }
    secret = {"secretName": tls_secret(service), "defaultMode": 0o440}
    pod = {"containers": [container], "volumes": [{"name": "tls", "secret": secret}]}
    return _deployment_patch(service, {"template": {"spec": pod}})


def tls_secret(service: Service) -> str:
    """The Secret of type kubernetes.io/tls with `tls.crt`, `tls.key` and `ca.crt`, as cert-manager writes it."""
    return f"{service.object_name}-tls"


def _deployment_patch(service: Service, spec: dict[str, Any]) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": service.object_name},
        "spec": spec,
    }
