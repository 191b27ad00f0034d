"""The component weights-image: the weights as an image that the kubelet mounts."""

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from api_double import ApiDouble
from reliability.manifest_errors import find
from stretto_deploy.cli import build_app
from stretto_deploy.cluster import Cluster
from stretto_deploy.kustomize import render
from stretto_deploy.objects.pods import WEIGHTS_VOLUME_IMAGE
from stretto_deploy.table import REPOSITORY, Table
from stretto_deploy.tree import OVERLAYS, digests_of, versions_of
from stretto_deploy.validation.checking import check_manifests
from stretto_deploy.validation.schemas import VERSIONS
from stretto_deploy.yamls import Manifest
from typer.testing import CliRunner

DOCKERFILE = (REPOSITORY / "deploy/service.Dockerfile").read_text("utf-8")


@pytest.fixture(scope="module")
def renders() -> dict[str, list[Manifest]]:
    return {overlay: render(overlay, ("weights-image",)) for overlay in ("base", *OVERLAYS)}


@pytest.fixture
def base(renders: dict[str, list[Manifest]]) -> list[Manifest]:
    return copy.deepcopy(renders["base"])


def pod_of(manifests: list[Manifest], name: str) -> dict[str, Any]:
    pod: dict[str, Any] = find(manifests, "Deployment", name)["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("overlay", ("base", *OVERLAYS))
def test_the_image_takes_the_place_of_the_claim_and_is_verified(
    renders: dict[str, list[Manifest]], table: Table, overlay: str
) -> None:
    made = renders[overlay]
    assert not {"PersistentVolumeClaim", "Job"} & {manifest["kind"] for manifest in made}
    reference = f"{table.registry}/{WEIGHTS_VOLUME_IMAGE}:{table.tag}"
    for service in table.with_weights:
        pod = pod_of(made, service.object_name)
        (volume,) = (each for each in pod["volumes"] if each["name"] == "weights")
        wanted = f"{WEIGHTS_VOLUME_IMAGE}:local" if overlay == "cpu-local" else reference
        assert volume == {"name": "weights", "image": {"reference": wanted, "pullPolicy": "IfNotPresent"}}
        (check,) = pod["initContainers"]
        assert check["name"] == "verify-weights"
        for container in (check, pod["containers"][0]):
            (mount,) = (each for each in container["volumeMounts"] if each["name"] == "weights")
            assert (mount["subPath"], mount["readOnly"]) == (service.name, True)


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_without_such_volumes_are_refused_in_words(base: list[Manifest], version: str) -> None:
    findings = check_manifests(base, (version,))
    if version in ("1.28", "1.29", "1.30", "1.31", "1.32"):
        assert {finding.check for finding in findings} == {"version_has_it"}
        assert "is a path inside an image, which Kubernetes has from 1.33 on" in findings[0].message
        assert f"this is {version}." in findings[0].message
    else:
        assert findings == []


@pytest.mark.parametrize(("version", "is_known"), [("1.30", False), ("1.31", True)])
def test_a_whole_image_is_known_earlier_than_a_path_inside_one(
    base: list[Manifest], version: str, is_known: bool
) -> None:
    for manifest in base:
        if manifest["kind"] == "Deployment":
            pod = manifest["spec"]["template"]["spec"]
            for container in (*pod.get("initContainers", ()), *pod["containers"]):
                for mount in container["volumeMounts"]:
                    mount.pop("subPath", None)
    findings = check_manifests(base, (version,))
    assert {finding.check for finding in findings} == (set() if is_known else {"version_has_it"})
    assert is_known or "is an image, which Kubernetes has from 1.31 on" in findings[0].message


def test_other_components_run_on_every_version() -> None:
    assert versions_of(("keda", "monitoring", "mtls")) == VERSIONS
    assert versions_of(("hpa", "weights-image")) == VERSIONS[5:] and VERSIONS[5] == "1.33"


def test_the_command_validates_for_the_versions_that_can_run_it() -> None:
    done = CliRunner().invoke(build_app(), ["validate", "--component", "weights-image"])
    assert done.exit_code == 0 and "are well for Kubernetes 1.33, 1.34" in done.output
    done = CliRunner().invoke(build_app(), ["validate", "--component", "weights-image", "--kubernetes", "1.30"])
    assert done.exit_code != 0 and "which Kubernetes has from 1.33 on, and this is 1.30" in done.output


@pytest.mark.parametrize(("minor", "is_old"), [("32", True), ("31+", True), ("33", False), ("40", False)])
def test_it_is_applied_to_no_older_cluster(api: tuple[ApiDouble, Cluster], minor: str, is_old: bool) -> None:
    double, cluster = api
    double.minor = minor
    app = build_app(lambda namespace, context: cluster)
    done = CliRunner().invoke(app, ["apply", "--component", "weights-image"])
    assert (done.exit_code != 0) is is_old
    assert bool(double.objects) is not is_old
    if is_old:
        assert f"weights-image needs Kubernetes 1.33 or newer, and this cluster is 1.{minor}" in str(done.exception)


def test_without_it_the_claim_is_applied_to_any_cluster(api: tuple[ApiDouble, Cluster]) -> None:
    double, cluster = api
    double.minor = "28"
    assert CliRunner().invoke(build_app(lambda namespace, context: cluster), ["apply"]).exit_code == 0


def test_the_image_is_of_nothing_but_the_folders_that_the_pods_verify(table: Table, tmp_path: Path) -> None:
    """Its own layout, run here: a folder for each service, readable by everybody."""
    (stage,) = re.findall(r"^FROM scratch AS weights-volume\n((?:[A-Z]+ .*\n)+)", DOCKERFILE, re.MULTILINE)
    assert stage == "COPY --from=weights-layout /weights /\nUSER 10001:10001\n"
    (script,) = re.findall(r"AS weights-layout\n.*?^RUN (.*?)\n\n", DOCKERFILE, re.MULTILINE | re.DOTALL)
    sources = tmp_path / "services"
    for name in ("codec", "harmony"):
        (sources / name).mkdir(parents=True)
        (sources / name / "weights").symlink_to(REPOSITORY / "services" / name / "weights")
    (sources / "orchestrator").mkdir()
    script = script.replace("/services", str(sources)).replace("/weights", str(tmp_path / "weights"))
    script = script.replace(f"{sources}/*{tmp_path}/weights", f"{sources}/*/weights")
    made = subprocess.run(["bash", "-euo", "pipefail", "-c", f"umask 077; {script}"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    weights = tmp_path / "weights"
    assert sorted(path.name for path in weights.iterdir()) == ["codec", "harmony"]
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in weights.rglob("*"))
    for service in (each for each in table.with_weights if each.name in ("codec", "harmony")):
        (tmp_path / "digests").write_text(digests_of(service))
        checked = subprocess.run(
            ["sha256sum", "--check", "--strict", "--quiet", str(tmp_path / "digests")],
            cwd=weights / service.name,
            capture_output=True,
            text=True,
        )
        assert checked.returncode == 0, checked.stderr


def test_make_builds_it_by_its_target() -> None:
    for name, option in (("weights-volume", "--target weights-volume"), ("codec", "--build-arg SERVICE=codec")):
        done = subprocess.run(["make", "--dry-run", f"image-{name}"], cwd=REPOSITORY, capture_output=True, text=True)
        assert option in done.stdout and f"-t stretto-{name}:local" in done.stdout
    assert "FROM scratch AS weights-volume" in DOCKERFILE
