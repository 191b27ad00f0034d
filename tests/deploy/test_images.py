"""The Dockerfile and what its images verify, without building one."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from stretto_deploy.objects.pods import RUN_AS, deployment
from stretto_deploy.table import REPOSITORY, Service, Table
from stretto_deploy.tree import digests_of

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
    copied = re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE.read_text(), re.MULTILINE)
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
