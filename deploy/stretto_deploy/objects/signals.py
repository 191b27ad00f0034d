"""What a service is scaled by, as PromQL over the metrics that its own code exports.

`tests/deploy/test_metric_names.py` holds every name to what the code registers, and `test_served_signals.py` to what a
real server shows. The labels `namespace` and `pod` are the scraper's (PodMonitor of the component `monitoring`).
"""

from __future__ import annotations

from typing import Literal

from stretto_deploy.table import Service, Signal, Table

Kind = Literal["waiting", "slots", "in_flight"]
KINDS: tuple[Kind, ...] = ("waiting", "slots", "in_flight")
_OURS = 'method=~"/stretto[.].*"'


def expression(table: Table, service: Service, signal: Signal) -> str:
    """The whole service's value, to be shared out among its replicas."""
    ours = f'namespace="{table.namespace}"'
    stage = f'{ours},stage="{service.name}"'
    match signal.kind:
        case "waiting":
            return f"sum(stretto_stage_waiting_requests{{{stage}}})"
        case "slots":  # in replicas' worth of slots, so that `target` is a share of one
            used = f"sum(stretto_stage_running_requests{{{stage}}})"
            return f"{used} / avg(sum by (pod) (stretto_stage_slots{{{stage}}}))"
        case "in_flight":
            return f'sum(stretto_rpc_in_flight{{{ours},pod=~"{service.object_name}-.*",{_OURS}}})'


def value_of_pod(kind: Kind, pods: str, group: str) -> str:
    """The value of each of some pods; a pod serves one stage, so none has to be named.

    Args:
        kind: See `Signal`.
        pods: Matchers of labels that choose the pods.
        group: The label that tells one from the other.
    """
    match kind:
        case "waiting":
            return f"sum by ({group}) (stretto_stage_waiting_requests{{{pods}}})"
        case "slots":
            used = f"sum by ({group}) (stretto_stage_running_requests{{{pods}}})"
            return f"{used} / sum by ({group}) (stretto_stage_slots{{{pods}}})"
        case "in_flight":
            return f"sum by ({group}) (stretto_rpc_in_flight{{{pods},{_OURS}}})"


def series_of_pods(kind: Kind) -> str:
    """A series that every pod has of which `value_of_pod` can be asked."""
    return {
        "waiting": "stretto_stage_waiting_requests",
        "slots": "stretto_stage_slots",
        "in_flight": "stretto_rpc_in_flight",
    }[kind]


def metric_of(kind: Kind) -> str:
    """The name of `value_of_pod` among the metrics of pods in Kubernetes."""
    return {
        "waiting": "stretto_waiting_requests",
        "slots": "stretto_slots_used_ratio",
        "in_flight": "stretto_calls_in_flight",
    }[kind]


def describe(signal: Signal) -> str:
    """The signal for people."""
    what = {"waiting": "waiting requests", "slots": "of its slots", "in_flight": "RPCs in flight"}[signal.kind]
    return f"{signal.target:g} {what} a replica"
