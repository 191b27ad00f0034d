"""A Kubernetes API server that remembers, for one test: enough of it to show what `stretto_deploy` does to a cluster.

It keeps objects, owners of fields (server-side apply with conflicts, dry runs and what a manager stops to state),
selectors, pages of lists, the scale subresource, evictions by budget, and pages of pods. Departures: lists have one
owner as a whole, and nothing runs, so a test plays the controllers by writing `status`. It knows no kind that it was
not told.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes import client
from stretto_deploy.cluster import PLURALS, Cluster
from stretto_deploy.objects.around import CLUSTER_WIDE

TOKEN = "secret-token"
BUILT_IN = frozenset(PLURALS.values()) - {"scaledobjects", "podmonitors", "prometheusrules"} | {"pods"}
SINGULAR = {plural: kind for kind, plural in PLURALS.items()} | {"pods": "Pod"}
Leaves = dict[tuple[str, ...], Any]


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def leaves_of(value: Any, path: tuple[str, ...] = ()) -> Leaves:
    if isinstance(value, dict) and value:
        return {k: v for key, inner in value.items() for k, v in leaves_of(inner, (*path, key)).items()}
    return {path: value}


def put(target: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        if not isinstance(target.get(key), dict):
            target[key] = {}
        target = target[key]
    target[path[-1]] = copy.deepcopy(value)


def drop(target: dict[str, Any], path: tuple[str, ...]) -> None:
    for key in path[:-1]:
        target = target.get(key, {})
    target.pop(path[-1], None)


class ApiDouble:
    """The state; tests read and write it directly where they play the cluster."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.owners: dict[str, dict[str, Leaves]] = {}
        self.pages: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        self.plurals = set(BUILT_IN)
        self.page_size = 0
        self.overloaded = 0
        self.minor = "37"
        self._version = 0
        self._lock = threading.Lock()

    def answer(self, method: str, url: str, headers: Any, body: Any) -> tuple[int, Any]:
        parts = urlsplit(url)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        with self._lock:
            self.requests.append((method, parts.path))
            try:
                if headers.get("Authorization") != f"Bearer {TOKEN}":
                    raise Refused(401, "Unauthorized")
                if self.overloaded:
                    self.overloaded -= 1
                    raise Refused(503, "the server is currently unable to handle the request")
                return self._route(method, parts.path, query, headers, body)
            except Refused as refused:
                return refused.status, {"kind": "Status", "code": refused.status, "message": refused.message}

    def _route(self, method: str, path: str, query: dict[str, str], headers: Any, body: Any) -> tuple[int, Any]:
        if (method, path) == ("GET", "/version"):
            return 200, {"major": "1", "minor": self.minor}
        if "/proxy/" in path:
            pod = path.split("/pods/")[1].split("/")[0]
            if pod not in self.pages:
                raise Refused(503, f"error trying to reach service {pod}")
            return 200, self.pages[pod]
        if path.endswith("/eviction") and method == "POST":
            return self._evict(path.removesuffix("/eviction"), query, body)
        if path.endswith("/scale") and method == "PATCH":
            return 200, self._scale(path.removesuffix("/scale"), query, body)
        plural = self._plural(path)
        if method == "GET":
            return 200, self._list(path, query) if path.rsplit("/", 1)[1] == plural else self._live(path)
        if method == "PATCH" and headers.get("Content-Type") == "application/apply-patch+yaml":
            return 200, self._apply(path, query, body)
        raise Refused(415, f"{method} of {headers.get('Content-Type')} is not known here")

    def _plural(self, path: str) -> str:
        for part in (path.rsplit("/", 1)[1], path.rsplit("/", 2)[1]):
            if part in self.plurals:
                return part
        raise Refused(404, "the server could not find the requested resource")

    def _live(self, path: str) -> dict[str, Any]:
        if path not in self.objects:
            raise Refused(404, f"{path.rsplit('/', 1)[1]} not found")
        return self.objects[path]

    def _list(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        found = [item for key, item in sorted(self.objects.items()) if key.rsplit("/", 1)[0] == path]
        for pair in filter(None, query.get("labelSelector", "").split(",")):
            key, _, value = pair.partition("=")
            found = [item for item in found if item["metadata"].get("labels", {}).get(key) == value]
        if field := query.get("fieldSelector"):
            assert field.startswith("spec.nodeName="), field
            found = [item for item in found if item["spec"].get("nodeName") == field.partition("=")[2]]
        start = int(query.get("continue", "0"))
        end = start + self.page_size if self.page_size else len(found)
        token = str(end) if end < len(found) else ""
        return {"items": found[start:end], "metadata": {"continue": token}}

    def _apply(self, path: str, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        namespace = body["metadata"].get("namespace")
        if body["kind"] not in CLUSTER_WIDE and f"/api/v1/namespaces/{namespace}" not in self.objects:
            raise Refused(404, f'namespaces "{namespace}" not found')
        live = copy.deepcopy(self.objects.get(path, {}))
        owners = copy.deepcopy(self.owners.get(path, {}))
        wanted = leaves_of({key: value for key, value in body.items() if key != "status"})
        manager = query["fieldManager"]
        self._settle(live, owners, wanted, manager, force=query.get("force") == "true")
        stated_before = owners.get(manager, {})
        for leaf in stated_before.keys() - wanted.keys():
            if not any(leaf in leaves for other, leaves in owners.items() if other != manager):
                drop(live, leaf)
        for leaf, value in wanted.items():
            put(live, leaf, value)
        owners[manager] = wanted
        changed = {k: v for k, v in live.items() if k != "metadata"} != {
            k: v for k, v in self.objects.get(path, {}).items() if k != "metadata"
        }
        self._stamp(live, path, changed)
        if query.get("dryRun") != "All":
            self.objects[path], self.owners[path] = live, owners
        return live

    def _settle(
        self, live: dict[str, Any], owners: dict[str, Leaves], wanted: Leaves, manager: str, force: bool
    ) -> None:
        now = leaves_of(live) if live else {}
        for other, leaves in owners.items():
            clashes = [leaf for leaf in leaves if leaf in wanted and other != manager and now.get(leaf) != wanted[leaf]]
            if clashes and not force:
                raise Refused(409, f'conflict with "{other}": .{".".join(clashes[0])}')
            for leaf in clashes:
                del leaves[leaf]

    def _stamp(self, live: dict[str, Any], path: str, changed: bool) -> None:
        self._version += 1
        metadata = live["metadata"]
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("uid", path)
        metadata.setdefault("creationTimestamp", f"2026-01-01T00:00:{self._version:02d}Z")
        metadata["generation"] = metadata.get("generation", 0) + int(changed)
        metadata["managedFields"] = [{"manager": "anybody", "time": str(self._version)}]

    def _scale(self, path: str, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        live = self._live(path)
        live["spec"]["replicas"] = body["spec"]["replicas"]
        live["metadata"]["generation"] += 1
        leaf = ("spec", "replicas")
        for leaves in self.owners.setdefault(path, {}).values():
            leaves.pop(leaf, None)
        self.owners[path][f"{query['fieldManager']} (scale)"] = {leaf: live["spec"]["replicas"]}
        return {"kind": "Scale", "spec": {"replicas": live["spec"]["replicas"]}}

    def _evict(self, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        pod = self._live(path)
        labels = pod["metadata"].get("labels", {})
        for budget in (item for item in self.objects.values() if item.get("kind") == "PodDisruptionBudget"):
            selects = budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
            if selects and not budget.get("status", {}).get("disruptionsAllowed", 1):
                raise Refused(
                    429,
                    f"Cannot evict pod as it would violate the pod's disruption budget {budget['metadata']['name']}.",
                )
        if query.get("dryRun") != "All" and body.get("deleteOptions", {}).get("dryRun") != ["All"]:
            del self.objects[path]
        return 201, {"kind": "Status", "status": "Success"}


class _Handler(BaseHTTPRequestHandler):
    double: ApiDouble
    wbufsize = -1  # head and body in one packet: apart, the second waits 40 ms for the first to be acknowledged

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        status, answer = self.double.answer(self.command, self.path, self.headers, body)
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PATCH = do_POST = do_DELETE = do_PUT = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """Silence: tests read `requests`."""


@contextmanager
def api_double() -> Iterator[tuple[ApiDouble, str]]:
    """A double and its address."""
    double = ApiDouble()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"double": double}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield double, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def cluster_at(address: str, token: str = TOKEN, namespace: str = "stretto") -> Cluster:
    """The real client of a double."""
    configuration = client.Configuration(host=address)
    configuration.api_key["BearerToken"] = f"Bearer {token}"
    configuration.retries = False
    return Cluster(client.ApiClient(configuration), namespace)


def path_of(kind: str, name: str, namespace: str = "stretto") -> str:
    """Where the double keeps an object of the core or apps groups."""
    root = "/apis/apps/v1" if kind == "Deployment" else "/apis/policy/v1" if "Budget" in kind else "/api/v1"
    plural = "pods" if kind == "Pod" else PLURALS[kind]
    return f"{root}/namespaces/{namespace}/{plural}/{name}"
