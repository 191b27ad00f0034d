import copy
from typing import Any

import pytest
from api_double import ApiDouble, cluster_at, path_of
from stretto_deploy.cluster import Cluster
from stretto_deploy.objects.pods import PART_OF
from stretto_deploy.rollout import apply_all, differences, in_order, rollout_of, wait_for
from stretto_deploy.table import load_table
from stretto_deploy.yamls import Manifest
from stretto_shared.errors import Conflict, InvalidInput, NotFound, NotReady

CODEC = path_of("Deployment", "stretto-codec")
Api = tuple[ApiDouble, Cluster]


@pytest.fixture
def ours(mtls: list[Manifest]) -> list[Manifest]:
    """What needs no operator."""
    return [each for each in mtls if each["kind"] not in ("PodMonitor", "PrometheusRule")]


def applied(cluster: Cluster, manifests: list[Manifest], **options: bool) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in apply_all(cluster, manifests, **options))


def deployment_of(manifests: list[Manifest], name: str = "stretto-codec") -> dict[str, Any]:
    return next(each for each in manifests if each["kind"] == "Deployment" and each["metadata"]["name"] == name)


def play_controllers(double: ApiDouble, **fields: Any) -> None:
    """Every Deployment is rolled out, but for `fields` of the codec's status."""
    for path, live in double.objects.items():
        if live["kind"] == "Deployment":
            wanted = live["spec"].get("replicas", 1)
            live["status"] = {
                "observedGeneration": live["metadata"]["generation"],
                "replicas": wanted,
                "updatedReplicas": wanted,
                "availableReplicas": wanted,
                **(fields if path == CODEC else {}),
            }


def test_everything_is_created_then_left_alone_then_changed_where_it_differs(api: Api, ours: list[Manifest]) -> None:
    double, cluster = api
    assert set(applied(cluster, ours).values()) == {"created"}
    assert len(double.objects) == len(ours)
    assert set(applied(cluster, ours).values()) == {"unchanged"}
    deployment_of(ours)["spec"]["replicas"] = 3
    words = applied(cluster, ours)
    assert [place for place, word in words.items() if word == "changed"] == ["Deployment/stretto-codec"]
    assert double.objects[CODEC]["spec"]["replicas"] == 3


def test_what_others_need_is_applied_before_them(ours: list[Manifest]) -> None:
    kinds = [each["kind"] for each in in_order(ours)]
    assert kinds[0] == "Namespace" and kinds[-1] == "Deployment"
    assert kinds.index("NetworkPolicy") < kinds.index("Job")
    assert max(i for i, kind in enumerate(kinds) if kind == "ConfigMap") < kinds.index("Deployment")


def test_applying_names_the_manager_and_does_not_force(api: Api, ours: list[Manifest]) -> None:
    double, cluster = api
    applied(cluster, ours)
    double.owners[CODEC]["somebody"] = {("spec", "replicas"): 7}
    double.objects[CODEC]["spec"]["replicas"] = 7
    with pytest.raises(Conflict, match=r"somebody.*spec.replicas.*--force"):
        applied(cluster, ours)
    assert double.objects[CODEC]["spec"]["replicas"] == 7
    assert applied(cluster, ours, force=True)["Deployment/stretto-codec"] == "changed"
    assert double.objects[CODEC]["spec"]["replicas"] == 1


def test_what_the_manifest_no_longer_states_is_taken_away_and_what_others_own_stays(
    api: Api, ours: list[Manifest]
) -> None:
    double, cluster = api
    applied(cluster, ours)
    double.objects[CODEC]["metadata"]["annotations"] = {"by-another": "kept"}
    del deployment_of(ours)["spec"]["revisionHistoryLimit"]
    applied(cluster, ours)
    assert "revisionHistoryLimit" not in double.objects[CODEC]["spec"]
    assert double.objects[CODEC]["metadata"]["annotations"] == {"by-another": "kept"}


def test_a_diff_shows_what_applying_would_do_and_does_nothing(api: Api, ours: list[Manifest]) -> None:
    double, cluster = api
    applied(cluster, ours)
    assert list(differences(cluster, ours)) == []
    before = copy.deepcopy(double.objects)
    deployment_of(ours)["spec"]["replicas"] = 3
    (text,) = differences(cluster, ours)
    assert "-  replicas: 1\n+  replicas: 3\n" in text and "Deployment/stretto-codec" in text
    assert "resourceVersion" not in text and "managedFields" not in text
    assert double.objects == before


def test_a_diff_against_an_empty_cluster_shows_everything_as_new(api: Api, ours: list[Manifest]) -> None:
    double, cluster = api
    texts = list(differences(cluster, ours))
    assert len(texts) == len(ours) and all(text.startswith("--- live ") for text in texts)
    assert not double.objects


def test_an_operator_that_is_missing_is_named(api: Api, mtls: list[Manifest]) -> None:
    _, cluster = api
    with pytest.raises(NotFound, match="operators"):
        applied(cluster, mtls)


def test_an_operator_that_is_there_takes_its_objects(api: Api, mtls: list[Manifest]) -> None:
    double, cluster = api
    double.plurals |= {"podmonitors", "prometheusrules"}
    assert set(applied(cluster, mtls).values()) == {"created"}


def test_a_kind_that_nobody_here_makes_is_refused_before_it_is_sent(api: Api) -> None:
    double, cluster = api
    with pytest.raises(InvalidInput, match="CronJob"):
        cluster.get({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "x"}})
    assert not double.requests


def test_a_wrong_token_and_a_server_that_is_not_there_are_one_line(api: Api, ours: list[Manifest]) -> None:
    double, _ = api
    host = "http://127.0.0.1:9"  # the discard port: nobody listens
    with pytest.raises(NotReady, match="does not answer"):
        cluster_at(host).get(ours[0])
    double.overloaded = 1
    with pytest.raises(NotReady, match=r"503.*unable to handle"):
        api[1].get(ours[0])


def test_an_account_without_rights_is_told_so(api: Api, ours: list[Manifest]) -> None:
    _, cluster = api
    stranger = cluster_at(cluster._api_client.configuration.host, token="wrong")
    with pytest.raises(NotReady, match="does not let this account"):
        stranger.get(ours[0])


def test_lists_are_read_to_their_last_page(api: Api, ours: list[Manifest]) -> None:
    double, cluster = api
    applied(cluster, ours)
    whole = cluster.list("/apis/apps/v1/deployments")
    double.page_size = 2
    assert cluster.list("/apis/apps/v1/deployments") == whole and len(whole) == len(load_table().service)


def test_waiting_ends_when_every_service_has_rolled_out(api: Api, ours: list[Manifest]) -> None:
    double, cluster = api
    applied(cluster, ours)
    play_controllers(double, availableReplicas=0)
    seen: list[int] = []

    def sleep(_: float) -> None:
        seen.append(1)
        if len(seen) == 3:
            play_controllers(double)

    done = wait_for(cluster, PART_OF, 100, sleep=sleep, now_s=lambda: 0.0)
    assert len(seen) == 3 and len(done) == len(load_table().service) and all(each.is_done for each in done)


@pytest.mark.parametrize(
    ("fields", "is_done"),
    [
        ({}, True),
        ({"availableReplicas": 0}, False),
        ({"updatedReplicas": 0}, False),
        ({"replicas": 2}, False),  # an old pod is still there
        ({"observedGeneration": 0}, False),
    ],
)
def test_a_rollout_is_done_when_all_pods_are_new_available_and_seen(
    api: Api, ours: list[Manifest], fields: dict[str, int], is_done: bool
) -> None:
    double, cluster = api
    applied(cluster, ours)
    play_controllers(double, **fields)
    assert rollout_of(double.objects[CODEC]).is_done is is_done


def test_waiting_gives_up_and_says_who_is_late(api: Api, ours: list[Manifest]) -> None:
    double, cluster = api
    applied(cluster, ours)
    play_controllers(double, availableReplicas=0)
    times = iter(range(0, 1000, 10))
    with pytest.raises(NotReady, match="After 30 s there still roll: stretto-codec 0/1"):
        wait_for(cluster, PART_OF, 30, sleep=lambda _: None, now_s=lambda: float(next(times)))


def test_waiting_ends_at_once_where_a_rollout_cannot_get_further(api: Api, ours: list[Manifest]) -> None:
    double, cluster = api
    applied(cluster, ours)
    stuck = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    play_controllers(double, conditions=[stuck])
    with pytest.raises(NotReady, match="stretto-codec: timed out"):
        wait_for(cluster, PART_OF, 30, sleep=lambda _: None)


def test_waiting_for_nothing_is_an_error(api: Api) -> None:
    with pytest.raises(NotReady, match="no Deployments in stretto"):
        wait_for(api[1], PART_OF, 30)
