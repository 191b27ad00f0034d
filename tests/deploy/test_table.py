import re
from importlib import import_module
from pathlib import Path

import pytest
from stretto_deploy.objects.around import settings_of
from stretto_deploy.objects.changes import mtls_settings
from stretto_deploy.table import DEFAULT_PATH, REPOSITORY, Table, load_table
from stretto_deploy.tree import COMPONENTS, OVERLAYS, expected_files
from stretto_shared.errors import InvalidInput, NotReady
from stretto_shared.grpc.settings import ChannelSettings, GrpcSettings

TEXT = DEFAULT_PATH.read_text("utf-8")


def with_text(tmp_path: Path, old: str, new: str) -> Path:
    assert old in TEXT
    path = tmp_path / "services.toml"
    path.write_text(TEXT.replace(old, new, 1), "utf-8")
    return path


def known_settings(service: str) -> set[str]:
    """Every variable that the service reads."""
    module = import_module(f"stretto_{service}.settings")
    own = next(
        value
        for name, value in vars(module).items()
        if name.endswith("Settings") and value.__module__ == module.__name__
    )
    return {
        f"{settings.model_config['env_prefix']}{field.upper()}"
        for settings in (own, GrpcSettings, ChannelSettings)
        for field in settings.model_fields
    }


def test_every_service_of_the_repository_is_in_the_table_and_no_other(table: Table) -> None:
    folders = {path.parent.name for path in (REPOSITORY / "services").glob("*/pyproject.toml")}
    assert {service.name for service in table.service} == folders


def test_ports_are_those_of_make_up(table: Table) -> None:
    text = (REPOSITORY / "Makefile").read_text("utf-8")
    for service in table.models:
        assert f" {service.name}={service.port}" in text, service.name
    assert f"orchestrator=$(or $(PORT),{table.door.port})" in text


def test_every_service_has_the_name_on_the_wire_that_its_health_goes_by(table: Table) -> None:
    for service in table.service:
        text = (REPOSITORY / f"services/{service.name}/stretto_{service.name}/main.py").read_text("utf-8")
        assert f'full_name="{service.full_name}"' in text


def test_what_the_manifests_set_is_read_by_the_service(table: Table) -> None:
    for service in table.service:
        known = known_settings(service.name)
        gpu = {} if service.gpu is None else service.gpu.settings
        asked = {**settings_of(table, service), **mtls_settings(table, service), **gpu}
        assert set(asked) <= known, sorted(set(asked) - known)


def test_what_the_manifests_set_has_values_that_the_service_takes(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    for service in table.service:
        gpu = {} if service.gpu is None else service.gpu.settings
        with monkeypatch.context() as patched:
            for name, value in {**settings_of(table, service), **mtls_settings(table, service), **gpu}.items():
                patched.setenv(name, value)
            assert GrpcSettings().port == service.port and GrpcSettings().drain_s == service.drain_s
            ChannelSettings()
            module = import_module(f"stretto_{service.name}.settings")
            getattr(module, f"{service.name.capitalize()}Settings")()


def test_the_door_knows_every_model_and_models_know_nobody(table: Table) -> None:
    addresses = {key: value for key, value in settings_of(table, table.door).items() if key.endswith("_ADDRESS")}
    assert addresses == {
        f"STRETTO_ORCHESTRATOR_{model.name.upper()}_ADDRESS": f"dns:///stretto-{model.name}:{model.port}"
        for model in table.models
    }
    assert not any(key.endswith("_ADDRESS") for model in table.models for key in settings_of(table, model))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("port = 50053", "port = 50052", "two services have the port 50052"),
        ('name = "codec"', 'name = "embedding"', "two services have the name embedding"),
        ('role = "door"\n', "", "exactly one service has role"),
        ('name = "codec"', 'name = "codec"\nrole = "door"', "exactly one service has role"),
        ("metrics_port = 9464", "metrics_port = 50051", "must differ"),
        ("health_port = 50050", "health_port = 9464", "must differ"),
        ("max_replicas = 12", "max_replicas = 1", "max_replicas 1 is below replicas 2"),
        ('kind = "slots", target = 0.8', 'kind = "slots", target = 8', "target of slots is a share"),
        ("drain_s = 600", "drane_s = 600", "drane_s"),
        ("replicas = 2", "replicas = 0", "replicas"),
        ("count = 1", "count = 0.5", "count"),
        ("port = 50052", "port = ", "is not TOML"),
    ],
)
def test_a_wrong_table_is_refused_by_the_name_of_what_is_wrong(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = with_text(tmp_path, old, new)
    with pytest.raises(InvalidInput, match=re.escape(message)) as caught:
        load_table(path)
    assert str(path) in caught.value.message


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="nowhere"):
        load_table(tmp_path / "nowhere.toml")


def test_the_grace_covers_the_wait_before_the_drain_the_drain_and_the_flush(table: Table) -> None:
    codec = next(service for service in table.service if service.name == "codec")
    assert table.grace_s(codec) >= table.pre_stop_s + codec.drain_s + 10


def test_the_first_cluster_of_the_readme_has_an_image_for_every_service_and_the_weights(table: Table) -> None:
    text = (REPOSITORY / "deploy/README.md").read_text("utf-8")
    (names,) = re.findall(r"^for name in (.+); do$", text, re.MULTILINE)
    assert sorted(names.split()) == sorted([*(service.name for service in table.service), "weights"])
    (overlay,) = re.findall(r"^kubectl apply -k deploy/k8s/(\S+)", text, re.MULTILINE)
    assert f"{overlay}/kustomization.yaml" in expected_files(table)
    for kind, folder in ((OVERLAYS, "overlays"), (COMPONENTS, "components")):
        assert all(re.search(rf"^\| `{name}` \|", text, re.MULTILINE) for name in kind), folder
