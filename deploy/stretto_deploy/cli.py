"""The `stretto-deploy` command: one line on stderr and a non-zero exit for every failure, never a traceback.

`generate`, `render` and `validate` need no cluster; the others speak to the one of the kubeconfig.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as Grid
from stretto_shared.errors import InvalidInput, NotReady, StrettoError
from typer.exceptions import TyperException

from stretto_deploy import draining, kustomize, rollout, scaling, status, tree
from stretto_deploy.cluster import Cluster, connect
from stretto_deploy.objects.pods import PART_OF
from stretto_deploy.table import Service, Table, load_table
from stretto_deploy.validation.checking import check_manifests
from stretto_deploy.validation.versions import minor_of
from stretto_deploy.yamls import dump_all

EXIT_FAILED = 1
EXIT_USAGE = 2

Overlay = Annotated[str, typer.Option(help=f"What to run: base, {', '.join(tree.OVERLAYS)}.")]
Components = Annotated[
    list[str], typer.Option("--component", help=f"Add one, once for each: {', '.join(tree.COMPONENTS)}.")
]
Context = Annotated[str, typer.Option(help="The context of the kubeconfig. Default: its current one.")]
Namespace = Annotated[str, typer.Option(help="Default: that of services.toml.")]
Force = Annotated[bool, typer.Option("--force", help="Take over fields that another manager owns.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Connect = Callable[[str, str], Cluster]


def _connect(namespace: str, context: str) -> Cluster:
    return connect(namespace, context=context or None)


def build_app(connect_to: Connect = _connect) -> typer.Typer:
    """The command with its subcommands.

    Args:
        connect_to: Makes a cluster of a namespace and a context; tests give another.
    """
    app = typer.Typer(
        name="stretto-deploy",
        help="Stretto on Kubernetes: manifests from deploy/services.toml, and the cluster that runs them.",
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    _add_offline_commands(app)
    _add_changing_commands(app, connect_to)
    _add_asking_commands(app, connect_to)
    return app


def _add_offline_commands(app: typer.Typer) -> None:
    @app.command()
    def generate(
        check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a file is stale.")] = False,
    ) -> None:
        """Write deploy/k8s from deploy/services.toml."""
        files = tree.expected_files(load_table())
        stale = tree.stale_files(files) if check else tree.write_files(files)
        for name in stale:
            typer.echo(f"{'stale' if check else 'written'}: deploy/k8s/{name}")
        if check and stale:
            raise NotReady(f"{len(stale)} files under deploy/k8s are stale. Run: make manifests.")
        if check:
            typer.echo("deploy/k8s is fresh")

    @app.command()
    def render(overlay: Overlay = "base", component: Components = []) -> None:  # noqa: B006  typer's way
        """Print every object of an overlay, as the cluster would get them."""
        typer.echo(dump_all(kustomize.render(overlay, component)), nl=False)

    @app.command()
    def validate(
        overlay: Overlay = "base",
        component: Components = [],  # noqa: B006  typer's way
        kubernetes: Annotated[str, typer.Option(help="Versions, with commas. Default: all that can run it.")] = "",
    ) -> None:
        """Check an overlay against the schemas of Kubernetes, and for what schemas cannot see."""
        versions = tuple(part.strip() for part in kubernetes.split(",") if part.strip())
        versions = versions or tree.versions_of(component)
        manifests = kustomize.render(overlay, component)
        findings = check_manifests(manifests, versions)
        for finding in findings:
            typer.echo(str(finding))
        if findings:
            raise InvalidInput("manifests", f"{len(findings)} findings in {len(manifests)} objects. Mend them.")
        typer.echo(f"{len(manifests)} objects are well for Kubernetes {', '.join(versions)}")


def _add_changing_commands(app: typer.Typer, connect_to: Connect) -> None:
    @app.command()
    def diff(
        overlay: Overlay = "base",
        component: Components = [],  # noqa: B006  typer's way
        context: Context = "",
        force: Force = False,
    ) -> None:
        """Show what applying would change, by the server's own dry run."""
        table = load_table()
        manifests = kustomize.render(overlay, component)
        texts = list(rollout.differences(connect_to(table.namespace, context), manifests, force=force))
        typer.echo("\n".join(texts) or "nothing would change")

    @app.command()
    def apply(
        overlay: Overlay = "base",
        component: Components = [],  # noqa: B006  typer's way
        context: Context = "",
        force: Force = False,
    ) -> None:
        """Check an overlay and apply it server-side. Objects that it no longer has are left alone."""
        table = load_table()
        manifests = kustomize.render(overlay, component)
        if findings := check_manifests(manifests, tree.versions_of(component)):
            raise InvalidInput("manifests", f"{findings[0]} Nothing was applied. See: stretto-deploy validate.")
        cluster = connect_to(table.namespace, context)
        _check_version(cluster, component)
        for line in rollout.apply_all(cluster, manifests, force=force):
            typer.echo(line)

    @app.command()
    def scale(
        service: Annotated[str, typer.Argument(help="By name, for example acoustic.")],
        replicas: Annotated[int, typer.Argument(help="How many pods.")],
        context: Context = "",
        namespace: Namespace = "",
    ) -> None:
        """Set the replicas of one service. Refused while an autoscaler has it."""
        table = load_table()
        found = _service(table, service)
        scaling.scale(connect_to(namespace or table.namespace, context), found, replicas)
        typer.echo(f"{service}: {replicas} replicas")


def _add_asking_commands(app: typer.Typer, connect_to: Connect) -> None:
    @app.command("status")
    def show_status(context: Context = "", namespace: Namespace = "", as_json: AsJson = False) -> None:
        """Each service: rollout, queue, slots, RPCs in flight, digests of its weights."""
        table = load_table()
        found = status.status_of(connect_to(namespace or table.namespace, context), table)
        if as_json:
            _print_json([asdict(each) | {"done": each.rollout is not None and each.rollout.is_done} for each in found])
            return
        _console().print(_status_grid(found))

    @app.command("drain-check")
    def drain_check(
        node: Annotated[str, typer.Argument(help="The node's name.")],
        context: Context = "",
        namespace: Namespace = "",
        as_json: AsJson = False,
    ) -> None:
        """Whether a node can be drained without losing a call. Evicts nothing; fails where it cannot."""
        table = load_table()
        pods = draining.check_drain(connect_to(namespace or table.namespace, context), table, node)
        if as_json:
            _print_json([asdict(pod) | {"is_safe": pod.is_safe} for pod in pods])
        else:
            _console().print(_drain_grid(pods))
        unsafe = [pod.pod for pod in pods if not pod.is_safe]
        if unsafe:
            raise NotReady(f"Draining {node} now would cut calls of {', '.join(unsafe)}. Add replicas, or wait.")

    @app.command()
    def wait(
        timeout_s: Annotated[float, typer.Option(min=0, help="How long at most.")] = 1200.0,
        context: Context = "",
        namespace: Namespace = "",
    ) -> None:
        """Wait until every service has rolled out; fail where one cannot."""
        table = load_table()
        done = rollout.wait_for(connect_to(namespace or table.namespace, context), PART_OF, timeout_s)
        for each in done:
            typer.echo(f"{each.name}: {each.available}/{each.wanted}")


def _check_version(cluster: Cluster, components: Sequence[str]) -> None:
    """An older API server drops fields that it does not know, without a word."""
    for component in components:
        oldest = tree.OLDEST_KUBERNETES.get(component)
        if oldest is not None and minor_of(running := cluster.version()) < minor_of(oldest):
            raise InvalidInput(
                "component",
                f"{component} needs Kubernetes {oldest} or newer, and this cluster is {running}. Leave it out. "
                "Nothing was applied.",
            )


def _service(table: Table, name: str) -> Service:
    for service in table.service:
        if service.name == name:
            return service
    names = ", ".join(service.name for service in table.service)
    raise InvalidInput("service", f"expected one of {names}, got {name!r}. Name one of them.")


def _status_grid(found: list[status.ServiceStatus]) -> Grid:
    grid = Grid("service", "rollout", "pods heard", "waiting", "slots", "in flight", "weights")
    for each in found:
        slots = "" if each.slots is None else f"{each.running}/{each.slots}"
        weights = "\n".join(f"{model}@{digest[: status.DIGEST_LETTERS]}" for model, digest in each.digests.items())
        heard = f"{each.num_answering}/{each.num_pods}"
        grid.add_row(
            each.name,
            _rollout_text(each.rollout),
            heard,
            _number(each.waiting),
            slots,
            _number(each.in_flight),
            weights,
        )
    return grid


def _rollout_text(found: rollout.Rollout | None) -> str:
    if found is None:
        return "not applied"
    state = "" if found.is_done else f", {found.failure}" if found.failure else ", rolling"
    return f"{found.available}/{found.wanted}{state}"


def _drain_grid(pods: list[draining.PodDrain]) -> Grid:
    grid = Grid("pod", "may go", "calls in flight", "ready elsewhere", "drains within")
    for pod in pods:
        word = "yes" if pod.is_safe else pod.refusal or "no: nobody else serves"
        grid.add_row(pod.pod, word, _number(pod.in_flight), str(pod.num_elsewhere), f"{pod.grace_s} s")
    return grid


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def _console() -> Console:
    return Console(soft_wrap=True, markup=False, emoji=False, highlight=False)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def main() -> None:
    """Run the command line and exit."""
    try:
        status_code = build_app()(sys.argv[1:] or ["--help"], prog_name="stretto-deploy", standalone_mode=False)
        sys.exit(status_code if isinstance(status_code, int) else 0)
    except TyperException as error:
        _fail(f"{error.format_message().rstrip('.')}. See: stretto-deploy --help", EXIT_USAGE)
    except StrettoError as error:
        _fail(error.message, EXIT_FAILED)


def _fail(message: str, code: int) -> None:
    print(f"stretto-deploy: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201  a program
    sys.exit(code)


if __name__ == "__main__":
    main()
