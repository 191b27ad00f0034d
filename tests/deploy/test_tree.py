import json
import re
import tomllib
from pathlib import Path

import pytest
from stretto_deploy import tree
from stretto_deploy.objects.pods import deployment
from stretto_deploy.table import REPOSITORY, Service, Table
from stretto_deploy.yamls import load_all
from stretto_shared.errors import NotReady


def test_what_is_checked_in_is_what_the_table_gives(table: Table) -> None:
    assert tree.stale_files(tree.expected_files(table)) == []


def test_a_changed_a_missing_and_a_foreign_file_are_stale_until_they_are_written_anew(tmp_path: Path) -> None:
    files = {"base/a.yaml": "a: 1\n", "base/b.yaml": "b: 1\n"}
    (tmp_path / "base").mkdir()
    (tmp_path / "base/a.yaml").write_text("a: 2\n")
    (tmp_path / "foreign.yaml").write_text("c: 1\n")
    assert tree.stale_files(files, tmp_path) == ["base/a.yaml", "base/b.yaml", "foreign.yaml"]
    assert tree.write_files(files, tmp_path) == ["base/a.yaml", "base/b.yaml", "foreign.yaml"]
    assert tree.stale_files(files, tmp_path) == [] and not (tmp_path / "foreign.yaml").exists()


def test_a_service_joins_by_one_entry(table: Table, tmp_path: Path) -> None:
    codec = next(service for service in table.service if service.name == "codec")
    new = codec.model_copy(update={"name": "symbolic", "port": 50099})
    weights = tmp_path / "services/symbolic/weights/tiny"
    weights.mkdir(parents=True)
    (weights / "config.json").write_text(json.dumps({"weights_sha256": "ab" * 32}))
    for name in ("services", "deploy"):
        (tmp_path / name).mkdir(exist_ok=True)
        for path in (REPOSITORY / name).iterdir():
            if not (tmp_path / name / path.name).exists():
                (tmp_path / name / path.name).symlink_to(path)
    before = tree.expected_files(table)
    after = tree.expected_files(table.model_copy(update={"service": (*table.service, new)}), tmp_path)
    added = set(after) - set(before)
    assert added == {
        "base/symbolic.yaml",
        "base/digests/symbolic.sha256",
        "components/mtls/symbolic.yaml",
        "components/weights-image/symbolic.yaml",
    }
    kinds = {each["kind"] for each in load_all(after["base/symbolic.yaml"], "symbolic")}
    assert kinds == {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"}
    assert "dns:///stretto-symbolic:50099" in after["base/kustomization.yaml"]
    for where in (
        "base/shared.yaml",  # the door may reach it
        "base/kustomization.yaml",
        "overlays/cpu-local/kustomization.yaml",
        "components/keda/scaledobjects.yaml",
        "components/keda/kustomization.yaml",
        "components/hpa/autoscalers.yaml",
        "components/hpa/kustomization.yaml",
        "components/monitoring/kustomization.yaml",
        "components/mtls/kustomization.yaml",
    ):
        assert "stretto-symbolic" in after[where] and "stretto-symbolic" not in before[where], where
    assert '"title": "symbolic"' in after["components/monitoring/dashboards/stretto-scaling.json"]


def test_digests_are_of_the_weights_that_are_committed(table: Table) -> None:
    codec = next(service for service in table.service if service.name == "codec")
    text = tree.digests_of(codec)
    for config in sorted((REPOSITORY / "services/codec/weights").glob("*/config.json")):
        stated = json.loads(config.read_text())["weights_sha256"]
        assert f"{stated}  {config.parent.name}/model.safetensors\n" in text


def test_a_service_without_a_checkpoint_cannot_be_verified(table: Table, tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="services/orchestrator/weights holds no checkpoint"):
        tree.digests_of(table.door, tmp_path)


def test_the_startup_probe_lasts_as_long_as_the_table_says(table: Table) -> None:
    for service in table.service:
        pod = deployment(table, service)["spec"]["template"]["spec"]
        probe = pod["containers"][0]["startupProbe"]
        assert service.startup_s <= probe["periodSeconds"] * probe["failureThreshold"] < service.startup_s + 10


def test_a_service_without_checkpoints_waits_for_none(table: Table) -> None:
    codec = next(service for service in table.service if service.name == "codec")
    pod = deployment(table, codec.model_copy(update={"weights": False}))["spec"]["template"]["spec"]
    assert "initContainers" not in pod and [volume["name"] for volume in pod["volumes"]] == ["tmp"]
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {"tmp"}


def test_the_entry_that_the_guide_shows_is_one(table: Table) -> None:
    text = (REPOSITORY / "docs/adding-a-model.md").read_text("utf-8")
    (entry,) = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    (service,) = (Service.model_validate(each) for each in entry["service"])
    joined = Table.model_validate(
        table.model_dump() | {"service": (*table.model_dump()["service"], service.model_dump())}
    )
    assert joined.models[-1].name == "symbolic"
