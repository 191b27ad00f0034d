"""The Dockerfile and what its images verify, without building one."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from stretto_deploy.objects.pods import RUN_AS, deployment
from stretto_deploy.pins import cuda_pins_of, report_of_torch
from stretto_deploy.table import REPOSITORY, Service, Table
from stretto_deploy.tree import CUDA_TAG, digests_of, expected_files
from stretto_shared.errors import NotReady

DOCKERFILE = REPOSITORY / "deploy/service.Dockerfile"
PINS = dict(
    line.split("==") for line in (REPOSITORY / "deploy/constraints.txt").read_text().splitlines() if "==" in line
)


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    assert program, "hadolint is missing: pip install -r tests/requirements.txt"
    return subprocess.run([program, str(path)], capture_output=True, text=True)


def requirements_of(member: str, extras: tuple[str, ...] = ()) -> list[Requirement]:
    project = tomllib.loads((REPOSITORY / member / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    done = hadolint(DOCKERFILE)
    assert done.returncode == 0, done.stdout
    worse = tmp_path / "Dockerfile"
    worse.write_text(DOCKERFILE.read_text() + "USER root\n")
    assert "DL3002" in hadolint(worse).stdout


def test_every_dependency_of_every_image_is_pinned_to_a_version_that_it_takes(table: Table) -> None:
    asked = requirements_of("protos") + requirements_of("shared", ("torch", "otlp", "resampling"))
    for service in table.service:
        asked += requirements_of(f"services/{service.name}")
    for requirement in asked:
        name = canonicalize_name(requirement.name)
        if not name.startswith("stretto-"):
            assert name in PINS, f"{name} is not pinned. Run: make pins"
            assert requirement.specifier.contains(PINS[name]), f"{name}: {PINS[name]} is not {requirement.specifier}"


def test_torch_is_installed_at_one_version() -> None:
    (version,) = set(re.findall(r"torch==(\S+?);?\s", DOCKERFILE.read_text()))
    assert version == PINS["torch"]


def test_what_a_torch_for_cuda_needs_is_pinned_for_the_torch_that_is() -> None:
    header, *lines = (REPOSITORY / "deploy/constraints-cuda.txt").read_text().splitlines()
    assert f"what torch {PINS['torch']} needs" in header, "stale. Run: make pins"
    pins = dict(line.split("==") for line in lines)
    assert not set(pins) & set(PINS)
    assert {"triton", "cuda-toolkit", "nvidia-cudnn-cu13", "nvidia-cublas"} <= set(pins)
    release = re.search(r"CUDA (\d+)\.(\d+)", header)
    assert release and pins["cuda-toolkit"].split(".")[:2] == list(release.groups())
    indexes = [
        re.findall(r"https://download\.pytorch\.org/whl/(cu\d+)", (REPOSITORY / name).read_text())
        for name in ("deploy/service.Dockerfile", "deploy/README.md", "Makefile")
    ]
    assert all(indexes) and {index for found in indexes for index in found} == {f"cu{''.join(release.groups())}"}


def test_both_files_of_pins_hold_in_an_image() -> None:
    (value,) = re.findall(r'PIP_CONSTRAINT="([^"]+)"', DOCKERFILE.read_text())
    assert value.split() == ["/src/deploy/constraints.txt", "/src/deploy/constraints-cuda.txt"]


def test_images_for_gpus_have_one_tag_everywhere(table: Table) -> None:
    assert f"and {CUDA_TAG} at the end of the tag" in DOCKERFILE.read_text()
    assert f"`…{CUDA_TAG}`" in (REPOSITORY / "deploy/README.md").read_text("utf-8")
    kustomization = expected_files(table)["overlays/gpu/kustomization.yaml"]
    for service in table.on_gpu:
        assert f"name: {table.image(service)}\n    newTag: {table.tag}{CUDA_TAG}\n" in kustomization
        command = ["make", "--dry-run", f"image-{service.name}-cuda"]
        made = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout
        assert f"SERVICE={service.name} " in made and "TORCH_INDEX_URL=https" in made
        assert f"-t {service.object_name}:local{CUDA_TAG} " in made


def report_of(**versions: str) -> dict[str, Any]:
    return {"install": [{"metadata": {"name": name, "version": version}} for name, version in versions.items()]}


def test_pins_for_cuda_are_what_the_other_file_does_not_pin() -> None:
    report = report_of(**{"torch": "9.8", "Jinja2": "3", "nvidia_x": "1.2", "cuda-toolkit": "12.6.1", "b": "2"})
    text = cuda_pins_of(report, "# a comment\njinja2==3\ntorch==9.8\n")
    header, *lines = text.splitlines()
    assert "what torch 9.8 needs" in header and "CUDA 12.6," in header
    assert lines == ["b==2", "cuda-toolkit==12.6.1", "nvidia-x==1.2"]


def test_pins_for_cuda_of_a_torch_for_processors_are_refused() -> None:
    with pytest.raises(NotReady, match="not built for CUDA"):
        cuda_pins_of(report_of(torch="9.8"), "")


def test_a_pip_that_would_fetch_the_wheels_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "23.3.2")
    with pytest.raises(NotReady, match="install --upgrade pip"):
        report_of_torch()


def test_only_services_that_ask_for_torch_get_it(table: Table) -> None:
    (pattern,) = re.findall(r"grep -q '([^']+)'", DOCKERFILE.read_text())
    for service in table.service:
        path = REPOSITORY / f"services/{service.name}/pyproject.toml"
        found = subprocess.run(["grep", "-q", pattern, str(path)]).returncode == 0
        assert found is not service.is_door


def test_the_user_of_the_image_is_that_of_the_pods() -> None:
    assert re.findall(r"^USER (\S+)$", DOCKERFILE.read_text(), re.MULTILINE) == [f"{RUN_AS}:{RUN_AS}"] * 3


def test_what_the_image_copies_is_not_ignored() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
        for source in line.split()
    ]
    assert {"deploy/constraints.txt", "deploy/constraints-cuda.txt"} <= set(copied)
    for source in copied:
        assert any(source == line[1:] or source.startswith(f"{line[1:]}/") for line in lines if line.startswith("!"))


def test_the_launcher_starts_the_service_that_it_names(tmp_path: Path) -> None:
    (text,) = re.findall(r"printf '([^']+)' \"\$SERVICE\"", DOCKERFILE.read_text())
    made = subprocess.run(["bash", "-c", f"printf '{text}' codec"], capture_output=True, text=True).stdout
    assert made.splitlines()[0] == "#!/opt/venv/bin/python"
    body = made.replace("main()\n", "print(main.__module__)\n")
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True)
    assert done.stdout == "stretto_codec.main\n", done.stderr


def test_the_table_names_the_packages_of_an_image(tmp_path: Path) -> None:
    (program,) = re.findall(r'python -c "(import tomllib.+?)" >', DOCKERFILE.read_text())
    for service, packages in (("acoustic", "g++"), ("codec", "")):
        text = program.replace("${SERVICE}", service).replace("/tmp/services.toml", "deploy/services.toml")
        done = subprocess.run([sys.executable, "-c", text], cwd=REPOSITORY, capture_output=True, text=True)
        assert done.stdout.strip() == packages and not done.stderr


def verify(table: Table, service: Service, weights: Path, digests: Path) -> subprocess.CompletedProcess[str]:
    """Run the init container's own command, at places of this machine."""
    pod = deployment(table, service)["spec"]["template"]["spec"]
    command = list(pod["initContainers"][0]["command"])
    assert command[-1] == f"/etc/stretto/digests/{service.name}.sha256"
    return subprocess.run([*command[:-1], str(digests)], cwd=weights, capture_output=True, text=True)


@pytest.fixture
def codec(table: Table) -> Service:
    return next(service for service in table.service if service.name == "codec")


def test_the_init_container_passes_the_committed_weights(table: Table, tmp_path: Path) -> None:
    for service in table.with_weights:
        digests = tmp_path / "digests"
        digests.write_text(digests_of(service))
        done = verify(table, service, REPOSITORY / f"services/{service.name}/weights", digests)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("damage", ["flipped", "missing", "config"])
def test_the_init_container_refuses_other_weights(table: Table, codec: Service, tmp_path: Path, damage: str) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(REPOSITORY / "services/codec/weights", weights)
    file = weights / "soundstream" / ("config.json" if damage == "config" else "model.safetensors")
    if damage == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    digests = tmp_path / "digests"
    digests.write_text(digests_of(codec))
    done = verify(table, codec, weights, digests)
    assert done.returncode != 0 and f"soundstream/{file.name}" in done.stdout + done.stderr


def test_a_list_of_digests_that_is_cut_off_is_refused(table: Table, codec: Service, tmp_path: Path) -> None:
    digests = tmp_path / "digests"
    digests.write_text(digests_of(codec)[:-80])
    assert verify(table, codec, REPOSITORY / "services/codec/weights", digests).returncode != 0
