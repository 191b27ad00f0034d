"""The files under `deploy/k8s`, made of the table of services, `prometheus/rules.yaml` and the committed weights.

They are checked in, so that `kubectl apply -k` needs nothing of ours and a reviewer sees what a change of the table
does to a cluster; `make check` fails while they are not what the table gives (ADR 0014).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stretto_shared.errors import NotReady

from stretto_deploy.dashboards import dashboards
from stretto_deploy.objects import around, autoscalers, changes, pods
from stretto_deploy.table import REPOSITORY, Service, Table
from stretto_deploy.validation.schemas import VERSIONS
from stretto_deploy.validation.versions import PATHS_IN_IMAGE_VOLUMES, minor_of
from stretto_deploy.yamls import Manifest, dump_all, load_all

KUSTOMIZE = REPOSITORY / "deploy" / "k8s"
RULES = REPOSITORY / "deploy" / "prometheus" / "rules.yaml"
OVERLAYS = ("cpu-local", "gpu")
COMPONENTS = ("keda", "hpa", "monitoring", "mtls", "weights-image")
SCALERS = ("keda", "hpa")
"""One of these components at most: each owns the replicas of all services."""
OLDEST_KUBERNETES = {"weights-image": f"1.{PATHS_IN_IMAGE_VOLUMES}"}
"""Of components that not every version can run."""
LAPTOP = {"cpu": "100m", "memory": "256Mi"}
"""What a pod requests in the overlay `cpu-local`."""
CUDA_TAG = "-cuda"
"""What the tag of an image for GPUs ends in."""
HEADER = "# Made by `make manifests` from deploy/services.toml. Do not edit.\n"


def versions_of(components: Sequence[str]) -> tuple[str, ...]:
    """The versions of Kubernetes that can run these components."""
    oldest = max((minor_of(OLDEST_KUBERNETES[name]) for name in components if name in OLDEST_KUBERNETES), default=0)
    return tuple(version for version in VERSIONS if minor_of(version) >= oldest)


def expected_files(table: Table, repository: Path = REPOSITORY) -> dict[str, str]:
    """Every file below `deploy/k8s`, by its path there."""
    files = _base(table, repository) | _cpu_local(table) | _gpu(table) | _keda(table) | _hpa(table)
    return files | _monitoring(table, repository) | _mtls(table) | _weights_image(table)


def stale_files(files: Mapping[str, str], folder: Path = KUSTOMIZE) -> list[str]:
    """Paths that are missing, differ, or should not be there."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    changed = [name for name, text in files.items() if name not in found or found[name].read_text("utf-8") != text]
    return sorted([*changed, *(set(found) - set(files))])


def write_files(files: Mapping[str, str], folder: Path = KUSTOMIZE) -> list[str]:
    """Make the folder what it should be; return the paths that were not."""
    stale = stale_files(files, folder)
    for name in stale:
        path = folder / name
        if name not in files:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[name], encoding="utf-8")
    return stale


def digests_of(service: Service, repository: Path = REPOSITORY) -> str:
    """What `sha256sum --check` reads: the committed checkpoints of one service.

    The digest of `model.safetensors` is the one that `config.json` states, which every load of it verifies.

    Raises:
        NotReady: If there is none.
    """
    lines = []
    for config in sorted((repository / "services" / service.name / "weights").glob("*/config.json")):
        content = config.read_bytes()
        lines.append(f"{json.loads(content)['weights_sha256']}  {config.parent.name}/model.safetensors")
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {config.parent.name}/config.json")
    if not lines:
        raise NotReady(f"services/{service.name}/weights holds no checkpoint. Add one, or say weights = false.")
    return "\n".join(lines) + "\n"


def _base(table: Table, repository: Path) -> dict[str, str]:
    files = {"shared.yaml": _yaml(*around.shared_objects(table))}
    for service in table.service:
        files[f"{service.name}.yaml"] = _yaml(pods.deployment(table, service), *around.objects_of(table, service))
    digests = {f"digests/{service.name}.sha256": digests_of(service, repository) for service in table.with_weights}
    files["kustomization.yaml"] = _kustomization(
        namespace=table.namespace,
        resources=sorted(files),
        generatorOptions={"labels": dict(pods.PART_OF)},
        configMapGenerator=[
            *(_literals(service, around.settings_of(table, service)) for service in table.service),
            {"name": "stretto-weights-digests", "files": sorted(digests)},
        ],
    )
    return _below("base", files | digests)


def _cpu_local(table: Table) -> dict[str, str]:
    """One node, images that were built here, two replicas of nothing but what `make up` doubles too.

    Pods ask for little of it: they share what a laptop has, up to their limits.
    """
    asked = "/spec/template/spec/containers/0/resources/requests"
    little = "".join(f"- op: replace\n  path: {asked}/{key}\n  value: {value}\n" for key, value in LAPTOP.items())
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": pods.WEIGHTS_CLAIM},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    names = [*(service.object_name for service in table.service), "stretto-weights", pods.WEIGHTS_VOLUME_IMAGE]
    kustomization = _kustomization(
        namespace=table.namespace,
        resources=["../../base", "weights.yaml"],
        images=[{"name": f"{table.registry}/{name}", "newName": name, "newTag": "local"} for name in names],
        replicas=[
            {"name": service.object_name, "count": 2 if service.name == "acoustic" else 1} for service in table.service
        ],
        patches=[{"path": "claim.yaml"}, {"target": {"kind": "Deployment"}, "patch": little}],
    )
    files = {
        "kustomization.yaml": kustomization,
        "weights.yaml": _yaml(changes.weights_job(table)),
        "claim.yaml": _yaml(claim),
    }
    return _below("overlays/cpu-local", files)


def _gpu(table: Table) -> dict[str, str]:
    patches, settings, images = {}, [], []
    for service in table.on_gpu:
        if service.gpu is None:
            continue
        patches[f"{service.name}.yaml"] = _yaml(changes.gpu_patch(service, service.gpu))
        settings.append({**_literals(service, service.gpu.settings), "behavior": "merge"})
        images.append({"name": table.image(service), "newTag": f"{table.tag}{CUDA_TAG}"})
    kustomization = _kustomization(
        namespace=table.namespace,
        resources=["../../base"],
        images=images,
        configMapGenerator=settings,
        patches=[{"path": name} for name in sorted(patches)],
    )
    return _below("overlays/gpu", patches | {"kustomization.yaml": kustomization})


def _keda(table: Table) -> dict[str, str]:
    objects = _yaml(*(autoscalers.scaled_object(table, service) for service in table.service))
    kustomization = _component(
        namespace=table.namespace, resources=["scaledobjects.yaml"], patches=_without_replicas(table)
    )
    return _below("components/keda", {"scaledobjects.yaml": objects, "kustomization.yaml": kustomization})


def _hpa(table: Table) -> dict[str, str]:
    """`adapter-rules.yaml` is for whoever runs prometheus-adapter, and no object of ours."""
    files = {
        "autoscalers.yaml": _yaml(*(autoscalers.horizontal_autoscaler(service) for service in table.service)),
        "adapter-rules.yaml": _yaml(autoscalers.adapter_rules(table)),
        "kustomization.yaml": _component(
            namespace=table.namespace, resources=["autoscalers.yaml"], patches=_without_replicas(table)
        ),
    }
    return _below("components/hpa", files)


def _without_replicas(table: Table) -> list[dict[str, Any]]:
    """Who scales owns the number of replicas."""
    return [
        {
            "target": {"kind": "Deployment", "name": service.object_name},
            "patch": "- op: remove\n  path: /spec/replicas\n",
        }
        for service in table.service
    ]


def _monitoring(table: Table, repository: Path) -> dict[str, str]:
    rules = load_all((repository / "deploy/prometheus/rules.yaml").read_text("utf-8"), "rules.yaml")[0]
    files = {
        f"dashboards/{name}.json": json.dumps(dashboard, indent=1, ensure_ascii=False) + "\n"
        for name, dashboard in dashboards(table).items()
    }
    kustomization = _component(
        namespace=table.namespace,
        resources=["monitoring.yaml"],
        configMapGenerator=[
            *(
                {**_literals(service, {"STRETTO_GRPC_OTLP_ENDPOINT": changes.OTLP_ENDPOINT}), "behavior": "merge"}
                for service in table.service
            ),
            {
                "name": "stretto-dashboards",
                "files": sorted(files),
                "options": {"labels": {"grafana_dashboard": "1"}, "disableNameSuffixHash": True},
            },
        ],
    )
    objects = _yaml(changes.pod_monitor(), changes.prometheus_rule(rules["groups"]), changes.otlp_egress())
    return _below("components/monitoring", files | {"kustomization.yaml": kustomization, "monitoring.yaml": objects})


def _mtls(table: Table) -> dict[str, str]:
    patches = {f"{service.name}.yaml": _yaml(changes.mtls_patch(table, service)) for service in table.service}
    kustomization = _component(
        namespace=table.namespace,
        configMapGenerator=[
            {**_literals(service, changes.mtls_settings(table, service)), "behavior": "merge"}
            for service in table.service
        ],
        patches=[{"path": name} for name in sorted(patches)],
    )
    return _below("components/mtls", patches | {"kustomization.yaml": kustomization})


def _weights_image(table: Table) -> dict[str, str]:
    """No volume to fill: its claim goes, and the Job that `cpu-local` has for it."""
    patches = {
        f"{service.name}.yaml": _yaml(changes.weights_image_patch(table, service)) for service in table.with_weights
    }
    unused = [("v1", "PersistentVolumeClaim", pods.WEIGHTS_CLAIM), ("batch/v1", "Job", "stretto-weights")]
    kustomization = _component(
        namespace=table.namespace,
        patches=[
            *({"path": name} for name in sorted(patches)),
            *(
                {
                    "target": {"kind": kind, "name": name},
                    "patch": dump_all(
                        [{"$patch": "delete", "apiVersion": version, "kind": kind, "metadata": {"name": name}}]
                    ),
                }
                for version, kind, name in unused
            ),
        ],
    )
    return _below("components/weights-image", patches | {"kustomization.yaml": kustomization})


def _literals(service: Service, settings: Mapping[str, str]) -> dict[str, Any]:
    return {"name": service.object_name, "literals": [f"{key}={value}" for key, value in settings.items()]}


def _kustomization(**fields: Any) -> str:
    return _yaml({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **fields})


def _component(**fields: Any) -> str:
    return _yaml({"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", **fields})


def _yaml(*documents: Manifest) -> str:
    return HEADER + dump_all(documents)


def _below(folder: str, files: Mapping[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}
