"""More or fewer replicas by hand, where nobody else decides how many there are."""

from __future__ import annotations

from stretto_shared.errors import Conflict, InvalidInput

from stretto_deploy.cluster import Cluster
from stretto_deploy.table import Service


def scale(cluster: Cluster, service: Service, replicas: int) -> None:
    """Set the replicas of one service.

    Raises:
        InvalidInput: If they are beyond what the table allows.
        Conflict: If an autoscaler has the service, which would undo it within seconds.
    """
    if not 0 <= replicas <= service.max_replicas:
        raise InvalidInput(
            "replicas",
            f"expected 0 to {service.max_replicas} for {service.name}, got {replicas}. "
            "Raise max_replicas in services.toml.",
        )
    for scaler in cluster.list("/apis/autoscaling/v2/horizontalpodautoscalers"):
        target = scaler.get("spec", {}).get("scaleTargetRef", {})
        if (target.get("kind"), target.get("name")) == ("Deployment", service.object_name):
            raise Conflict(
                f"{scaler['metadata']['name']} scales {service.name}. Change max_replicas in services.toml and apply, "
                "or take the component keda or hpa out."
            )
    cluster.scale(service.object_name, replicas)
