"""A cluster's API through the `kubernetes` client: the few calls that the command makes, on plain dicts.

The client is trusted with addresses, certificates and tokens (kubeconfig, or the pod's own account); paths are made
here, because its typed classes drop fields that they do not know, and know no custom resources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from stretto_shared.errors import Conflict, InvalidInput, NotFound, NotReady, StrettoError

from stretto_deploy.objects.around import CLUSTER_WIDE
from stretto_deploy.yamls import Manifest

FIELD_MANAGER = "stretto-deploy"
REQUEST_TIMEOUT_S = 30.0
PLURALS = {
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "Job": "jobs",
    "Namespace": "namespaces",
    "NetworkPolicy": "networkpolicies",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "PodMonitor": "podmonitors",
    "PriorityClass": "priorityclasses",
    "PrometheusRule": "prometheusrules",
    "ScaledObject": "scaledobjects",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
}


@dataclass(frozen=True)
class Reply:
    """What the API server said.

    Args:
        status: HTTP status.
        body: The object, or a `Status`.
    """

    status: int
    body: Any


class Cluster:
    """The API server of one cluster, and one namespace of it.

    Args:
        api_client: A `kubernetes.client.ApiClient`.
        namespace: Where our objects live.
    """

    def __init__(self, api_client: Any, namespace: str) -> None:
        self._api_client = api_client
        self.namespace = namespace

    def version(self) -> str:
        """Of the API server, for example `1.33`."""
        body = self._object(self._call("GET", "/version"))
        return f"{body.get('major')}.{body.get('minor')}"

    def get(self, manifest: Manifest) -> Manifest | None:
        """The live object of a manifest's name; None where there is none."""
        reply = self._call("GET", self.path_of(manifest))
        return None if reply.status == 404 else self._object(reply)

    def apply(self, manifest: Manifest, *, dry_run: bool = False, force: bool = False) -> Manifest:
        """Server-side apply, as field manager `stretto-deploy`.

        Raises:
            Conflict: If another manager owns a field with another value, and `force` is not set.
            InvalidInput: If the server refuses the object.
            NotReady: If the server does not know the kind, or does not answer.
        """
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        if dry_run:
            query["dryRun"] = "All"
        reply = self._call("PATCH", self.path_of(manifest), query, manifest, "application/apply-patch+yaml")
        return self._object(reply)

    def list(self, kind_path: str, *, labels: Mapping[str, str] | None = None, field: str = "") -> list[Manifest]:
        """Objects in our namespace, for example of `/api/v1/pods`."""
        prefix, _, plural = kind_path.rpartition("/")
        query = {}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in labels.items())
        if field:
            query["fieldSelector"] = field
        found: list[Manifest] = []
        while True:
            body = self._object(self._call("GET", f"{prefix}/namespaces/{self.namespace}/{plural}", query))
            found += body.get("items", [])
            token = (body.get("metadata") or {}).get("continue")
            if not token:
                return found
            query["continue"] = token

    def scale(self, deployment: str, replicas: int) -> None:
        """Set the number of replicas of a Deployment.

        Raises:
            NotFound: If there is no such Deployment.
        """
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{quote(deployment)}/scale"
        body = {"spec": {"replicas": replicas}}
        self._object(self._call("PATCH", path, {"fieldManager": FIELD_MANAGER}, body, "application/merge-patch+json"))

    def may_evict(self, pod: str) -> tuple[bool, str]:
        """Whether the server would evict a pod now, and what it says where it would not. Nothing is evicted."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{quote(pod)}/eviction"
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace},
            "deleteOptions": {"dryRun": ["All"]},
        }
        reply = self._call("POST", path, {"dryRun": "All"}, eviction)
        if reply.status == 429:
            return False, _message(reply)
        self._object(reply)
        return True, ""

    def page(self, pod: str, port: int, path: str = "metrics") -> str | None:
        """A page of a pod, fetched through the API server; None where the pod does not answer."""
        where = f"/api/v1/namespaces/{self.namespace}/pods/{quote(pod)}:{port}/proxy/{path}"
        reply = self._call("GET", where, raw=True)
        return str(reply.body) if reply.status == 200 else None

    def path_of(self, manifest: Manifest) -> str:
        """Where the API server keeps the object of a manifest."""
        api_version, kind = str(manifest.get("apiVersion")), str(manifest.get("kind"))
        if kind not in PLURALS:
            raise InvalidInput("kind", f"expected one of {', '.join(PLURALS)}, got {kind!r}. Add it to cluster.py.")
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        name = quote(str(manifest["metadata"]["name"]))
        if kind in CLUSTER_WIDE:
            return f"{root}/{PLURALS[kind]}/{name}"
        namespace = manifest["metadata"].get("namespace", self.namespace)
        return f"{root}/namespaces/{namespace}/{PLURALS[kind]}/{name}"

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
        raw: bool = False,
    ) -> Reply:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        sent: Any = json.dumps(body) if content_type.endswith("+yaml") else body  # JSON is YAML
        request = self._api_client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Content-Type": content_type, "Accept": "*/*" if raw else "application/json"},
            body=sent,
            auth_settings=["BearerToken"],
        )
        try:
            response = self._api_client.call_api(*request, _request_timeout=REQUEST_TIMEOUT_S)
            status, data = int(response.status), response.read()
        except (ApiException, HTTPError) as error:
            raise NotReady(
                f"The API server does not answer ({type(error).__name__}). Check kubeconfig and its context."
            ) from error
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)
        return Reply(status, text if raw else _parsed(text))

    def _object(self, reply: Reply) -> Manifest:
        if 200 <= reply.status < 300 and isinstance(reply.body, dict):
            return reply.body
        raise _as_error(reply)


def connect(namespace: str, *, kubeconfig: str | None = None, context: str | None = None) -> Cluster:
    """The cluster of a kubeconfig, or the one that this pod runs in.

    Raises:
        NotReady: If there is neither.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        config.load_kube_config(config_file=kubeconfig, context=context, client_configuration=configuration)
    except config.ConfigException as error:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            raise NotReady(f"There is no cluster to speak to: {error}. Set KUBECONFIG, or --context.") from error
    return Cluster(client.ApiClient(configuration), namespace)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"message": text[:200]}


def _message(reply: Reply) -> str:
    return str(reply.body.get("message", "")) if isinstance(reply.body, dict) else ""


def _as_error(reply: Reply) -> StrettoError:
    said = _message(reply) or f"HTTP {reply.status}"
    match reply.status:
        case 404:
            return NotFound("object", f"{said}. Apply the manifests first; custom resources need their operators.")
        case 409:
            return Conflict(f"{said}. Another manager owns the field: --force takes it over.")
        case 400 | 415 | 422:
            return InvalidInput("manifest", f"the API server refuses it: {said}.")
        case 401 | 403:
            return NotReady(f"The API server does not let this account do it: {said}.")
        case _:
            return NotReady(f"The API server answers {reply.status}: {said}. Try again.")
