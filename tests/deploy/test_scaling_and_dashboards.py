import json
from typing import Any

from reliability.manifest_errors import find
from reliability.manifests import is_as_it_should, our_variants
from stretto_deploy.dashboards import dashboards
from stretto_deploy.kustomize import render
from stretto_deploy.objects.signals import describe, expression
from stretto_deploy.table import Table
from stretto_deploy.yamls import Manifest


def test_each_service_is_scaled_by_its_own_signals_between_its_own_bounds(gpu: list[Manifest], table: Table) -> None:
    for service in table.service:
        spec = find(gpu, "ScaledObject", service.object_name)["spec"]
        asked = [trigger["metadata"]["query"] for trigger in spec["triggers"]]
        assert asked == [expression(table, service, signal) for signal in service.signals]
        assert all(f'stage="{service.name}"' in query or f"{service.object_name}-" in query for query in asked)
        assert [float(trigger["metadata"]["threshold"]) for trigger in spec["triggers"]] == [
            signal.target for signal in service.signals
        ]
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (service.replicas, service.max_replicas)
        assert spec["fallback"]["replicas"] == service.replicas


def test_who_is_scaled_states_no_replicas(gpu: list[Manifest], mtls: list[Manifest], table: Table) -> None:
    for service in table.service:
        assert "replicas" not in find(gpu, "Deployment", service.object_name)["spec"]
        assert find(mtls, "Deployment", service.object_name)["spec"]["replicas"] >= 1


def test_stages_with_slots_are_scaled_by_their_share_in_use(table: Table) -> None:
    acoustic = next(service for service in table.service if service.name == "acoustic")
    slots = next(signal for signal in acoustic.signals if signal.kind == "slots")
    assert expression(table, acoustic, slots) == (
        'sum(stretto_stage_running_requests{namespace="stretto",stage="acoustic"}) / '
        'avg(sum by (pod) (stretto_stage_slots{namespace="stretto",stage="acoustic"}))'
    )
    assert describe(slots) == "0.8 of its slots a replica"


def test_panels_have_places_and_letters_of_their_own(table: Table) -> None:
    made = dashboards(table)
    assert len({dashboard["uid"] for dashboard in made.values()}) == len(made) == 3
    for dashboard in made.values():
        panels: list[dict[str, Any]] = dashboard["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
        for panel in panels:
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
            letters = [target["refId"] for target in panel["targets"]]
            assert letters == sorted(set(letters))
        json.dumps(dashboard)


def test_promises_are_drawn_as_lines(table: Table) -> None:
    panels = {panel["title"]: panel for panel in dashboards(table)["stretto-listeners"]["panels"]}
    for title, line in (
        ("First audio", 2.5),
        ("Share of failed calls", 0.001),
        ("Real-time streams without a gap", 0.99),
    ):
        assert panels[title]["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"] == line


def test_the_eval_renders_every_overlay_with_every_set_of_components() -> None:
    variants = our_variants()
    assert len(set(variants)) == len(variants) == 3 * 3 * 2**3  # of the two that scale, none or one
    assert ("gpu", ("keda", "monitoring", "mtls", "weights-image")) in variants and ("base", ()) in variants
    assert not any({"keda", "hpa"} <= set(chosen) for _, chosen in variants)


def test_the_eval_counts_a_version_as_right_only_where_it_passes_or_is_refused_for_what_it_lacks(
    gpu: list[Manifest],
) -> None:
    image = render("base", ("weights-image",))
    assert is_as_it_should((), gpu, "1.28") and is_as_it_should(("weights-image",), image, "1.33")
    assert is_as_it_should(("weights-image",), image, "1.32")
    assert not is_as_it_should((), image, "1.32")  # refused, and should not be
    assert not is_as_it_should(("weights-image",), gpu, "1.32")  # not refused, and should be
