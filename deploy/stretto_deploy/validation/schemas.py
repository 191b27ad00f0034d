"""Each object against its schema, strictly: Kubernetes' own for a version, and ours for custom resources.

An object without a schema is a finding, not a pass: `kubernetes_validate` would otherwise wave through what it does not
know. The custom resources' schemas list what we use of them (KEDA 2.x, prometheus-operator v1) and nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from stretto_shared.errors import NotReady

from stretto_deploy.validation.findings import Finding, place_of
from stretto_deploy.yamls import Manifest

VERSIONS = tuple(f"1.{minor}" for minor in range(28, 38))
"""Kubernetes, oldest and newest included."""


def _closed(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


STRING = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = _closed(("name",), name=STRING, namespace=STRING, labels=LABELS, annotations=LABELS)
LABEL_SELECTOR = _closed((), matchLabels=LABELS)
POLICY = _closed(
    ("type", "value", "periodSeconds"), type={"enum": ["Pods", "Percent"]}, value=COUNT, periodSeconds=COUNT
)
SCALING = _closed((), stabilizationWindowSeconds=COUNT, policies={"type": "array", "items": POLICY})
TRIGGER = _closed(
    ("type", "metadata"),
    type={"const": "prometheus"},
    metricType={"enum": ["AverageValue", "Value"]},
    metadata=_closed(("serverAddress", "query", "threshold"), serverAddress=STRING, query=STRING, threshold=STRING),
)
RULE = {
    **_closed(
        ("expr",), record=STRING, alert=STRING, expr=STRING, labels=LABELS, annotations=LABELS,
        **{"for": {"type": "string", "pattern": "^[0-9]+[smhd]$"}},
    ),
    "oneOf": [{"required": ["record"]}, {"required": ["alert"]}],
}  # fmt: skip
SCALED_OBJECT = _closed(
    ("scaleTargetRef", "triggers"),
    scaleTargetRef=_closed(("name",), apiVersion=STRING, kind=STRING, name=STRING),
    minReplicaCount=COUNT,
    maxReplicaCount=COUNT,
    pollingInterval=COUNT,
    fallback=_closed(("failureThreshold", "replicas"), failureThreshold=COUNT, replicas=COUNT),
    advanced=_closed(
        (),
        horizontalPodAutoscalerConfig=_closed((), behavior=_closed((), scaleUp=SCALING, scaleDown=SCALING)),
    ),
    triggers={"type": "array", "minItems": 1, "items": TRIGGER},
)
POD_MONITOR = _closed(
    ("selector", "podMetricsEndpoints"),
    selector=LABEL_SELECTOR,
    podMetricsEndpoints={"type": "array", "items": _closed(("port",), port=STRING, path=STRING, interval=STRING)},
)
RULE_GROUP = _closed(("name", "rules"), name=STRING, rules={"type": "array", "minItems": 1, "items": RULE})
PROMETHEUS_RULE = _closed(("groups",), groups={"type": "array", "items": RULE_GROUP})
CUSTOM = {
    ("keda.sh/v1alpha1", "ScaledObject"): SCALED_OBJECT,
    ("monitoring.coreos.com/v1", "PodMonitor"): POD_MONITOR,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PROMETHEUS_RULE,
}


def check_schemas(manifests: Iterable[Manifest], version: str) -> list[Finding]:
    """What the schemas of one version of Kubernetes find.

    Raises:
        NotReady: If `kubernetes_validate` is not installed, or does not know the version.
    """
    return [finding for manifest in manifests for finding in _check(manifest, version)]


def _check(manifest: Manifest, version: str) -> list[Finding]:
    key = (str(manifest.get("apiVersion", "")), str(manifest.get("kind", "")))
    if not all(key):
        return [Finding("schema", place_of(manifest), "apiVersion and kind are required. Add them.")]
    if key in CUSTOM:
        return _check_custom(manifest, CUSTOM[key])
    return _check_own(manifest, version)


def _check_own(manifest: Manifest, version: str) -> list[Finding]:
    validator = _validator(version, _schema_file(manifest))
    if validator is None:
        message = f"Kubernetes {version} has no {manifest['kind']} in {manifest['apiVersion']}. Correct one of them."
        return [Finding("schema", place_of(manifest), message)]
    return _findings(validator, manifest, f" (Kubernetes {version})")


def _schema_file(manifest: Manifest) -> str:
    """As `kubernetes_validate` names them: `networkpolicy-networking-v1.json` for networking.k8s.io/v1."""
    group, _, version = str(manifest["apiVersion"]).rpartition("/")
    parts = [str(manifest["kind"]).lower(), group.partition(".")[0], version]
    return f"{'-'.join(part for part in parts if part)}.json"


@functools.cache
def _validator(version: str, file: str) -> Any:
    """The strict validator of one kind; None where the version has no such kind.

    `kubernetes_validate.validate` reads the definitions of a version, some megabytes, for each object anew; this reads
    the same files once.
    """
    import jsonschema
    import referencing

    utils = _kubernetes_validate().utils
    if f"{version}.0" not in utils.all_versions():
        raise NotReady(f"kubernetes-validate has no schemas of {version}. Install a newer one.")
    try:
        schema = utils.schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/{file}", version)
    except FileNotFoundError:
        return None
    registry = referencing.Registry().with_resource(
        "https://kubernetes.io/api/_definitions.json", _definitions(version)
    )
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def _definitions(version: str) -> Any:
    import referencing

    utils = _kubernetes_validate().utils
    name = f"kubernetes-json-schema/v{version}.0-local-strict/_definitions.json"
    return referencing.Resource.from_contents(utils.schema_contents(name, version))


def _findings(validator: Any, manifest: Manifest, where: str = "") -> list[Finding]:
    return [
        Finding(
            "schema",
            place_of(manifest),
            f"{'.'.join(str(part) for part in error.path) or '(the object)'}: {error.message}{where}. Correct it.",
        )
        for error in validator.iter_errors(manifest)
    ]


def _check_custom(manifest: Manifest, spec: dict[str, Any]) -> list[Finding]:
    _kubernetes_validate()
    import jsonschema

    whole = _closed(
        ("apiVersion", "kind", "metadata", "spec"), apiVersion=STRING, kind=STRING, metadata=METADATA, spec=spec
    )
    return _findings(jsonschema.Draft202012Validator(whole), manifest)


def _kubernetes_validate() -> Any:
    try:
        import kubernetes_validate
    except ImportError as error:
        raise NotReady("Validation needs kubernetes-validate: pip install 'stretto-deploy[validation]'.") from error
    return kubernetes_validate
