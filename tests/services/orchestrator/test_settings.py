"""Settings of the orchestrator: cascades of an operator's own."""

import pytest
from pydantic import ValidationError
from stretto_orchestrator.flows.cascades import Cascade, cascades_with
from stretto_orchestrator.settings import CASCADE_KEYS, OrchestratorSettings


@pytest.mark.parametrize(
    ("cascade", "said"),
    [
        ({"txt_model": "t5-base"}, "expected the keys kind, streams, joint_model, text_model, .* got 'txt_model'"),
        ({"coarse_model": "x"}, "text_model, acoustic_model, codec_model in cascade 'mine', got 'coarse_model'"),
        ({"kind": "musiclm", "text_model": "x"}, "tokenizer_model in cascade 'mine', got 'text_model'"),
        (
            {"kind": "musiclm", "coarse_model": ""},
            "expected a name as coarse_model .* got an empty one",
        ),
        (
            {"kind": "musiclm", "melody_model": ""},
            "expected a name as melody_model .* got an empty one",
        ),
        ({"kind": "jukebox"}, "expected one of musicgen, musiclm as kind of 'mine', got 'jukebox'"),
        ({"streams": "no"}, "expected true or false as streams of cascade 'mine', got 'no'"),
        ({"text_model": 5}, "expected a name as text_model of cascade 'mine', got 5"),
    ],
)
def test_a_cascade_that_is_none_is_named(cascade, said):
    with pytest.raises(ValidationError, match=said):
        OrchestratorSettings(extra_cascades={"mine": cascade})


def test_every_setting_of_a_cascade_is_one_of_its_own():
    known = set(Cascade.__dataclass_fields__)
    assert {key for keys in CASCADE_KEYS.values() for key in keys} | {"name"} == known


def test_an_operators_cascades_stand_beside_those_of_the_house(monkeypatch):
    text = '{"waiting": {"kind": "musiclm", "streams": false}, "own": {"acoustic_model": "x"}}'
    monkeypatch.setenv("STRETTO_ORCHESTRATOR_EXTRA_CASCADES", text)
    cascades = cascades_with(OrchestratorSettings().extra_cascades)
    assert list(cascades) == ["musicgen", "musiclm", "musiclm-fine", "waiting", "own"]
    assert cascades["waiting"] == Cascade("waiting", "musiclm", streams=False)
    assert cascades["own"] == Cascade("own", acoustic_model="x")
    assert (cascades["musiclm"].fine_model, cascades["musiclm-fine"].fine_model) == ("", "musiclm_fine")
    assert cascades["musiclm"].streams and cascades["musiclm"].coarse_model == "musiclm_coarse"
