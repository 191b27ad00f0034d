"""Who decides how many pods a service has, by the service's own signals: KEDA's objects, or Kubernetes' own.

Both grow at once and shrink slowly: a pod that goes makes its streams resume elsewhere.
"""

from __future__ import annotations

from typing import Any

from stretto_deploy.objects.pods import labels_of
from stretto_deploy.objects.signals import KINDS, describe, expression, metric_of, series_of_pods, value_of_pod
from stretto_deploy.table import Service, Signal, Table
from stretto_deploy.yamls import Manifest

PROMETHEUS_URL = "http://prometheus-operated.monitoring.svc:9090"


def scaled_object(table: Table, service: Service) -> Manifest:
    """KEDA's autoscaler of one service; KEDA asks Prometheus itself."""
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": _metadata(service),
        "spec": {
            "scaleTargetRef": _target(service),
            "minReplicaCount": service.replicas,
            "maxReplicaCount": service.max_replicas,
            "pollingInterval": 15,
            "fallback": {"failureThreshold": 3, "replicas": service.replicas},
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior()}},
            "triggers": [
                {
                    "type": "prometheus",
                    "metricType": "AverageValue",
                    "metadata": {
                        "serverAddress": PROMETHEUS_URL,
                        "query": expression(table, service, signal),
                        "threshold": f"{signal.target:g}",
                    },
                }
                for signal in service.signals
            ],
        },
    }


def horizontal_autoscaler(service: Service) -> Manifest:
    """Kubernetes' own autoscaler of one service, by metrics of its pods, which prometheus-adapter has to serve."""
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(service),
        "spec": {
            "scaleTargetRef": _target(service),
            "minReplicas": service.replicas,
            "maxReplicas": service.max_replicas,
            "behavior": _behavior(),
            "metrics": [_pods_metric(signal) for signal in service.signals],
        },
    }


def adapter_rules(table: Table) -> Manifest:
    """Values of the Helm chart prometheus-adapter that serve what `horizontal_autoscaler` asks for.

    The adapter puts the pods of whichever autoscaler asks into `<<.LabelMatchers>>`.
    """
    asked = {signal.kind for service in table.service for signal in service.signals}
    return {
        "rules": {
            "custom": [
                {
                    "seriesQuery": f'{series_of_pods(kind)}{{namespace="{table.namespace}",pod!=""}}',
                    "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}},
                    "name": {"as": metric_of(kind)},
                    "metricsQuery": value_of_pod(kind, "<<.LabelMatchers>>", "<<.GroupBy>>"),
                }
                for kind in KINDS
                if kind in asked
            ]
        }
    }


def _pods_metric(signal: Signal) -> dict[str, Any]:
    """The mean over the pods against `target`, in thousandths because a quantity has no other fractions."""
    target = {"type": "AverageValue", "averageValue": _quantity(signal.target)}
    return {"type": "Pods", "pods": {"metric": {"name": metric_of(signal.kind)}, "target": target}}


def _quantity(number: float) -> str:
    return f"{number:g}" if number == int(number) else f"{round(number * 1000)}m"


def _metadata(service: Service) -> dict[str, Any]:
    return {
        "name": service.object_name,
        "labels": labels_of(service),
        "annotations": {"stretto.dev/scaled-by": "; ".join(describe(signal) for signal in service.signals)},
    }


def _target(service: Service) -> dict[str, str]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": service.object_name}


def _behavior() -> dict[str, Any]:
    return {
        "scaleUp": {"stabilizationWindowSeconds": 0},
        "scaleDown": {
            "stabilizationWindowSeconds": 300,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    }
