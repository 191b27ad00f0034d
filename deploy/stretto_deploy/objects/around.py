"""What stands around the pods of a service: name, account, budget, network policies, settings; and what all share."""

from __future__ import annotations

from typing import Any

from stretto_deploy.objects.pods import MOUNTED_WEIGHTS, PART_OF, PRIORITY_CLASSES, WEIGHTS_CLAIM, labels_of
from stretto_deploy.table import Service, Table
from stretto_deploy.yamls import Manifest

CLIENT_LABEL = {"stretto.dev/client": "true"}
MONITORING_NAMESPACE = "monitoring"
CLUSTER_WIDE = ("Namespace", "PriorityClass")
"""Kinds of ours that live in no namespace."""


def objects_of(table: Table, service: Service) -> list[Manifest]:
    """Everything of one service but its Deployment."""
    return [_service(service), _account(service), _budget(service), _ingress(table, service)]


def settings_of(table: Table, service: Service) -> dict[str, str]:
    """The environment of a service: what the table says, and the ports and addresses that follow from it."""
    settings = {
        "STRETTO_GRPC_HOST": "0.0.0.0",
        "STRETTO_GRPC_PORT": str(service.port),
        "STRETTO_GRPC_METRICS_PORT": str(table.metrics_port),
        "STRETTO_GRPC_DRAIN_S": str(service.drain_s),
        "STRETTO_GRPC_LOG_JSON": "true",
    }
    if service.is_door:
        settings["STRETTO_ORCHESTRATOR_API_KEYS_PATH"] = "/etc/stretto/keys/keys.toml"
        for model in table.models:
            settings[f"STRETTO_ORCHESTRATOR_{model.name.upper()}_ADDRESS"] = f"dns:///{model.object_name}:{model.port}"
    if service.weights:
        settings[f"STRETTO_{service.name.upper()}_WEIGHTS_DIR"] = f"{MOUNTED_WEIGHTS}/{service.name}"
    return settings | service.settings


def shared_objects(table: Table) -> list[Manifest]:
    """What no single service owns."""
    return [
        _namespace(table),
        *(_priority(name, value) for name, value in PRIORITY_CLASSES.values()),
        _deny_all(),
        _allow_dns(),
        _door_egress(table),
        _weights_claim(table),
    ]


def _service(service: Service) -> Manifest:
    """Headless: a client sees every pod, and shares its calls out among them."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service.object_name, "labels": labels_of(service)},
        "spec": {
            "clusterIP": "None",
            "selector": labels_of(service),
            "ports": [
                {
                    "name": "grpc",
                    "port": service.port,
                    "targetPort": "grpc",
                    "protocol": "TCP",
                    "appProtocol": "kubernetes.io/h2c",
                }
            ],
        },
    }


def _account(service: Service) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": service.object_name, "labels": labels_of(service)},
        "automountServiceAccountToken": False,
    }


def _budget(service: Service) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": service.object_name, "labels": labels_of(service)},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels_of(service)}},
    }


def _ingress(table: Table, service: Service) -> Manifest:
    """Clients reach the door, the door reaches the models, and Prometheus reaches the pages of all."""
    if service.is_door:
        callers: list[dict[str, Any]] = [
            {"namespaceSelector": {"matchLabels": CLIENT_LABEL}},
            {"podSelector": {"matchLabels": CLIENT_LABEL}},
        ]
    else:
        callers = [{"podSelector": {"matchLabels": labels_of(table.door)}}]
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": MONITORING_NAMESPACE}}}
    return _policy(
        service.object_name,
        {
            "podSelector": {"matchLabels": labels_of(service)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": callers, "ports": [{"protocol": "TCP", "port": service.port}]},
                {"from": [prometheus], "ports": [{"protocol": "TCP", "port": table.metrics_port}]},
            ],
        },
    )


def _deny_all() -> Manifest:
    return _policy("stretto-deny-all", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})


def _allow_dns() -> Manifest:
    system = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    ports = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
    return _policy(
        "stretto-dns",
        {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [system], "ports": ports}]},
    )


def _door_egress(table: Table) -> Manifest:
    egress = [
        {"to": [{"podSelector": {"matchLabels": labels_of(model)}}], "ports": [{"protocol": "TCP", "port": model.port}]}
        for model in table.models
    ]
    return _policy(
        "stretto-door-to-models",
        {"podSelector": {"matchLabels": labels_of(table.door)}, "policyTypes": ["Egress"], "egress": egress},
    )


def _policy(name: str, spec: dict[str, Any]) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": dict(PART_OF)},
        "spec": spec,
    }


def _namespace(table: Table) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": table.namespace,
            "labels": {**PART_OF, "pod-security.kubernetes.io/enforce": "restricted"},
        },
    }


def _priority(name: str, value: int) -> Manifest:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name, "labels": dict(PART_OF)},
        "value": value,
        "globalDefault": False,
        "description": "Pods that serve listeners go before batch work; the door goes before the models.",
    }


def _weights_claim(table: Table) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": WEIGHTS_CLAIM, "labels": dict(PART_OF)},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": f"{table.weights_gib}Gi"}},
        },
    }
