"""What overlays and components make of a cluster, read off the renders."""

from typing import Any

from reliability.manifest_errors import find
from stretto_deploy.table import Service, Table
from stretto_deploy.yamls import Manifest


def settings_in(manifests: list[Manifest], service: Service) -> dict[str, str]:
    """The environment that the pods of a service get."""
    pod = find(manifests, "Deployment", service.object_name)["spec"]["template"]["spec"]
    name = pod["containers"][0]["envFrom"][0]["configMapRef"]["name"]
    data: dict[str, str] = find(manifests, "ConfigMap", name)["data"]
    return data


def container_of(manifests: list[Manifest], service: Service) -> dict[str, Any]:
    pod = find(manifests, "Deployment", service.object_name)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    made: dict[str, Any] = container
    return made


def test_models_serve_nobody_but_the_door_where_there_is_mtls(mtls: list[Manifest], table: Table) -> None:
    for service in table.models:
        settings = settings_in(mtls, service)
        assert settings["STRETTO_GRPC_TLS_CLIENT_NAMES"] == "stretto-orchestrator"
        assert settings["STRETTO_GRPC_TLS_CLIENT_CA_PATH"] == "/etc/stretto/tls/ca.crt"
        assert not any(name.startswith("STRETTO_CHANNEL_") for name in settings)


def test_the_door_shows_its_certificate_to_models_and_asks_clients_for_keys(mtls: list[Manifest], table: Table) -> None:
    settings = settings_in(mtls, table.door)
    assert settings["STRETTO_CHANNEL_TLS_CERT_PATH"] == "/etc/stretto/tls/tls.crt"
    assert settings["STRETTO_CHANNEL_TLS_CA_PATH"] == "/etc/stretto/tls/ca.crt"
    assert settings["STRETTO_ORCHESTRATOR_API_KEYS_PATH"] == "/etc/stretto/keys/keys.toml"
    assert "STRETTO_GRPC_TLS_CLIENT_CA_PATH" not in settings
    mounts = {mount["name"]: mount["mountPath"] for mount in container_of(mtls, table.door)["volumeMounts"]}
    assert mounts == {"tmp": "/tmp", "api-keys": "/etc/stretto/keys", "tls": "/etc/stretto/tls"}


def test_every_service_has_a_certificate_of_its_own(mtls: list[Manifest], table: Table) -> None:
    for service in table.service:
        pod = find(mtls, "Deployment", service.object_name)["spec"]["template"]["spec"]
        secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        assert secrets["tls"] == f"stretto-{service.name}-tls"


def test_without_the_component_nothing_is_encrypted_and_nothing_listens_for_plain_health(
    gpu: list[Manifest], table: Table
) -> None:
    for service in table.service:
        assert not any("TLS" in name or "HEALTH_PORT" in name for name in settings_in(gpu, service))
        assert container_of(gpu, service)["livenessProbe"]["grpc"]["port"] == service.port


def test_spans_go_to_the_collector_where_there_is_monitoring(
    gpu: list[Manifest], mtls: list[Manifest], table: Table
) -> None:
    for service in table.service:
        assert settings_in(mtls, service)["STRETTO_GRPC_OTLP_ENDPOINT"].endswith(".monitoring.svc:4317")
        assert "STRETTO_GRPC_OTLP_ENDPOINT" not in settings_in(gpu, service)


def test_prometheus_scrapes_the_port_that_every_pod_names(mtls: list[Manifest], table: Table) -> None:
    (endpoint,) = find(mtls, "PodMonitor", "stretto")["spec"]["podMetricsEndpoints"]
    for service in table.service:
        ports = {port["name"]: port["containerPort"] for port in container_of(mtls, service)["ports"]}
        assert str(ports[endpoint["port"]]) == settings_in(mtls, service)["STRETTO_GRPC_METRICS_PORT"]


def test_a_gpu_pod_has_a_whole_gpu_an_image_for_it_and_a_long_start(gpu: list[Manifest], table: Table) -> None:
    (service,) = table.on_gpu
    container = container_of(gpu, service)
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"].endswith("-cuda") and settings_in(gpu, service)["STRETTO_ACOUSTIC_DEVICE"] == "cuda"
    assert service.gpu is not None
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= service.gpu.startup_s
    others = [each for each in table.service if each is not service]
    assert not any(container_of(gpu, each)["image"].endswith("-cuda") for each in others)


def test_on_a_laptop_images_are_local_weights_come_from_theirs_and_acoustic_is_there_twice(
    mtls: list[Manifest], table: Table
) -> None:
    for service in table.service:
        assert container_of(mtls, service)["image"] == f"stretto-{service.name}:local"
        replicas = find(mtls, "Deployment", service.object_name)["spec"]["replicas"]
        assert replicas == (2 if service.name == "acoustic" else 1)
        resources = container_of(mtls, service)["resources"]
        assert resources["requests"] == {"cpu": "100m", "memory": "256Mi"}
        assert resources["limits"] == {"memory": service.memory}
    copied = find(mtls, "Job", "stretto-weights")["spec"]["template"]["spec"]
    assert copied["containers"][0]["image"] == "stretto-weights:local"
    assert find(mtls, "PersistentVolumeClaim", "stretto-weights")["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_a_changed_setting_rolls_the_pods(mtls: list[Manifest], gpu: list[Manifest], table: Table) -> None:
    names = [
        find(manifests, "Deployment", table.door.object_name)["spec"]["template"]["spec"]["containers"][0]["envFrom"]
        for manifests in (mtls, gpu)
    ]
    assert names[0] != names[1]  # the map's name carries the hash of what it holds


def test_services_are_headless_and_named_as_their_addresses(gpu: list[Manifest], table: Table) -> None:
    for service in table.service:
        spec = find(gpu, "Service", service.object_name)["spec"]
        assert spec["clusterIP"] == "None" and spec["ports"][0]["port"] == service.port


def test_pods_spread_over_zones_and_nodes_and_the_door_goes_first(gpu: list[Manifest], table: Table) -> None:
    for service in table.service:
        pod = find(gpu, "Deployment", service.object_name)["spec"]["template"]["spec"]
        keys = [each["topologyKey"] for each in pod["topologySpreadConstraints"]]
        assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    values = {each["metadata"]["name"]: each["value"] for each in gpu if each["kind"] == "PriorityClass"}
    assert values["stretto-door"] > values["stretto-model"]
