"""What the MuLan eval reads out of captions, how it counts hits, and what its baseline hears."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from attributes import Attribute, BagOfAttributes, agreement, hit_rates, roc_auc, stated, summary_of
from quality.mulan import (
    Ears,
    Findings,
    Split,
    agreement_on,
    auc_interval,
    by_piece,
    codes_of,
    judge_codes,
    pooled_rates,
    shared_codes,
)
from stretto_shared.training.corpus.captions import make_captions
from stretto_shared.training.corpus.records import ClipRecord, InstrumentUse

CELLO = ClipRecord(
    "c", "test", "x", "x", instruments=(InstrumentUse("melody", 42, "strings", "cello"),), tempo_bpm=100.0,
    tempo_word="moderate", key_tonic="D", key_mode="minor", mood="sad", texture="solo melody", dynamics="soft",
)  # fmt: skip
DRUMS = ClipRecord(
    "d", "test", "x", "x", instruments=(InstrumentUse("drums", 25, "drums", "drum machine"),), tempo_bpm=140.0,
    tempo_word="fast", mood="energetic", texture="solo drums", dynamics="loud",
)  # fmt: skip


def test_words_of_a_caption_are_read_as_attributes() -> None:
    assert stated("A gloomy electric piano in D minor, very slow tempo, at 60 bpm.") == {
        Attribute("mood", "gloomy"), Attribute("name", "electric piano"), Attribute("key_mode", "minor"),
        Attribute("tempo_word", "very slow tempo"), Attribute("bpm", "60"),
    }  # fmt: skip
    assert stated("nothing of the kind") == frozenset()
    assert Attribute("name", "harp") not in stated("a harpsichord")


@pytest.mark.parametrize("templates", ["train", "heldout"])
def test_what_a_caption_states_is_true_of_its_clip_and_not_of_another(templates: str) -> None:
    for seed in range(20):
        for caption in make_captions(CELLO, seed, templates=templates):
            said = stated(caption)
            assert said and agreement(said, CELLO) == len(said), caption
            assert agreement(said, DRUMS) < len(said), caption


def test_unknown_is_not_true() -> None:
    unknown = dataclasses.replace(CELLO, tempo_bpm=None, key_mode=None, mood=None)
    for attribute in (Attribute("bpm", "100"), Attribute("key_mode", "minor"), Attribute("mood", "sad")):
        assert attribute.fits(CELLO) and not attribute.fits(unknown)
    assert Attribute("bpm", "103").fits(CELLO) and not Attribute("bpm", "110").fits(CELLO)


def test_hits_count_equals_by_chance() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(hit_rates(scores, 1), [1, 0, 1 / 3])
    np.testing.assert_allclose(hit_rates(scores, 2), [1, 1, 2 / 3])


def test_pools_hold_as_many_clips_as_they_say() -> None:
    scores = np.tile(np.arange(250.0), (250, 1))  # one clip is always found first
    assert pooled_rates(scores, 100, 1).shape == (200,) and pooled_rates(scores, 100, 1).sum() == 2
    assert pooled_rates(np.eye(50), 100, 1).tolist() == [1.0] * 50


def test_auc_counts_pairs() -> None:
    scores, positive = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])
    assert roc_auc(scores, positive) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert roc_auc(-scores, positive) == pytest.approx(0.125)
    with pytest.raises(ValueError, match="positives"):
        roc_auc(scores, np.ones(4, bool))
    found = auc_interval(np.arange(40.0), np.arange(40) >= 20)
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)


def test_the_bag_hears_what_bands_tell() -> None:
    random = np.random.default_rng(0)
    records = [CELLO, DRUMS] * 30
    mels = random.normal(size=(60, 20, 8))
    mels[1::2, :, 5:] += 2.0
    bag = BagOfAttributes(summary_of(mels), records)
    said = [stated("sad cello at 100 bpm"), stated("energetic drums at 140 bpm")]
    scores = bag.scores(said, summary_of(mels))
    assert (scores[0, ::2] > scores[0, 1::2].max()).mean() > 0.9
    assert (scores[1, 1::2] > scores[1, ::2].max()).mean() > 0.9
    assert bag.heard(Attribute("mood", "sad"), summary_of(mels))[::2].mean() > 0.9


def test_a_code_is_that_of_the_nearest_fitted_point() -> None:
    torch.manual_seed(0)
    fitted = torch.nn.functional.normalize(torch.randn(200, 6), dim=1)
    first, again, other = codes_of(fitted, fitted, fitted, -fitted)
    np.testing.assert_array_equal(first, again)
    assert (first == other).mean() < 0.2


def test_shared_codes_are_counted_level_by_level_beside_those_of_other_clips() -> None:
    of_audio = np.array([[3, 1], [3, 2], [0, 7], [3, 1]])
    own, other = shared_codes(np.array([[3, 0], [3, 1], [5, 7], [0, 1]]), of_audio)
    assert own.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    np.testing.assert_allclose(other, [[2 / 3, 0], [2 / 3, 2 / 3], [0, 0], [1 / 3, 1 / 3]])


def test_a_piece_counts_once_however_many_clips_it_has() -> None:
    values = np.array([1.0, 1.0, 1.0, 0.0, 1.0])
    assert by_piece(values, ["a", "a", "a", "b", "b"]).tolist() == [1.0, 0.5]


@pytest.mark.parametrize(("num_tracks", "holds"), [(4, False), (6, True)])
def test_four_tracks_are_no_claim_however_many_their_clips(num_tracks: int, holds: bool) -> None:
    tracks = [str(number) for number in range(num_tracks) for _ in range(17)]
    families = ["piano", "drums"] * (len(tracks) // 2)
    for name, claim in (("MAPS dev", "pianos_of_maps_are_heard_as_pianos"), ("games", "agrees_with_yamnet_more_than")):
        found = Findings()
        named = ["piano"] * len(tracks) if name == "MAPS dev" else families
        row = agreement_on(name, named, named, tracks, found)
        assert row[:3] == (name, num_tracks, 17 * num_tracks)
        assert [held for each, held in found.passed.items() if each.startswith(claim)] == [holds]


def test_agreement_counts_pieces_and_not_clips() -> None:
    found = Findings()
    agreement_on("games", ["piano"] * 4, ["piano", "piano", "piano", "drums"], ["a", "a", "a", "b"], found)
    assert found.numbers["recordings"]["games"]["same"][0] == pytest.approx(0.5)
    assert found.numbers["recordings"]["games"]["chance"] == pytest.approx(0.75)


def test_served_codes_are_reported_for_each_level() -> None:
    codes = torch.tensor([[0, 5], [1, 6], [2, 7]])
    ears = SimpleNamespace(
        texts=lambda captions: codes, clips=lambda split: codes + torch.tensor([0, 1]),
        model=SimpleNamespace(quantize=lambda points: points),
    )  # fmt: skip
    test = SimpleNamespace(records=[SimpleNamespace(heldout_captions=("a",))] * 3)
    found = Findings()
    judge_codes(cast(Ears, ears), cast(Split, test), found)
    assert [(same, other) for same, _, _, other, *_ in found.numbers["served_codes"]] == [(1.0, 0.0), (0.0, 1 / 3)]
    assert len(found.tables[0].rows) == 3
