"""What a service is scaled by, as PromQL over the metrics that its own code exports.

`tests/deploy/test_metric_names.py` holds every name to what the code registers, and `test_served_signals.py` to what a
real server shows. The labels `namespace` and `pod` are the scraper's (PodMonitor of the component `monitoring`).
"""

from __future__ import annotations

from stretto_deploy.table import Service, Signal, Table


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
            pods = f'{ours},pod=~"{service.object_name}-.*",method=~"/stretto[.].*"'
            return f"sum(stretto_rpc_in_flight{{{pods}}})"


def describe(signal: Signal) -> str:
    """The signal for people."""
    what = {"waiting": "waiting requests", "slots": "of its slots", "in_flight": "RPCs in flight"}[signal.kind]
    return f"{signal.target:g} {what} a replica"
