"""The eval of MusicLM tells a cascade that does what it is told from one that does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from choice import Distance
from findings import Findings
from judges import JOINT, YAMNET, Embedded
from quality import musiclm
from stretto_shared.audio import Waveform


def embedded(points: np.ndarray, centre: float = 0.0) -> Embedded:
    random = np.random.default_rng(0)
    rows = [centre + random.standard_normal((4, 32)) for _ in points]
    return Embedded({YAMNET: rows, JOINT: [point[None] for point in points]})


@pytest.mark.parametrize(("order", "holds"), [(range(8), True), ([1, 2, 3, 4, 5, 6, 7, 0], False)])
def test_samples_of_their_own_captions_are_told_from_samples_of_others(order: range | list[int], holds: bool) -> None:
    found = Findings()
    musiclm.report_cycle({"musiclm, MusicCaps": embedded(np.eye(8)[list(order)])}, {"MusicCaps": np.eye(8)}, found)
    assert found.passed == {"cycle: own caption above others, MusicCaps": holds}
    own, others, gap, _, _ = found.numbers["cycle"]["musiclm, MusicCaps"]
    assert gap == pytest.approx(own - others)
    assert (own, others) == ((1.0, 0.0) if holds else (0.0, pytest.approx(1 / 7)))


def test_other_systems_are_reported_and_claim_nothing() -> None:
    found = Findings()
    musiclm.report_cycle({"musicgen, MusicCaps": embedded(np.eye(8))}, {"MusicCaps": np.eye(8)}, found)
    assert not found.passed and "musicgen, MusicCaps" in found.numbers["cycle"]


@pytest.mark.parametrize(("own", "noise", "peer"), [(0.1, True, True), (3.0, True, False), (9.0, False, False)])
def test_distances_are_claimed_against_noise_and_musicgen(own: float, noise: bool, peer: bool) -> None:
    def of(centre: float, count: int = 10) -> Embedded:
        points = np.random.default_rng(1).standard_normal((count, 16)) + centre
        return embedded(points, centre)

    sets = {
        "musiclm, held-out captions": of(own),
        "musicgen, held-out captions": of(1.0),
        "pink noise": of(6.0),
        "white noise": of(7.0),
    }
    found = Findings()
    musiclm.report_distances(of(0.0, 40), sets, found)
    for space in (YAMNET, JOINT):
        assert found.passed[f"distance: nearer than noise, {space}"] is noise
        assert found.passed[f"distance: nearer than musicgen, {space}"] is peer
    assert len(found.tables[0].rows) == 1 + len(sets)


def test_a_distance_that_is_nearer_by_chance_is_no_claim() -> None:
    random = np.random.default_rng(0)
    own, peer = Distance(2.0, random.normal(2, 1, 500)), Distance(2.1, random.normal(2.1, 1, 500))
    noise, found = Distance(9.0, random.normal(9, 1, 500)), Findings()
    by_set = {"musiclm, held-out captions": own, "musicgen, held-out captions": peer}
    musiclm.claim_distances({YAMNET: by_set | {"pink noise": noise, "white noise": noise}}, 10, found)
    assert found.passed == {
        "distance: nearer than noise, YAMNet": True,
        "distance: nearer than musicgen, YAMNet": False,
    }
    assert found.numbers["distance_gap"]["musicgen, held-out captions, YAMNet"][0] == pytest.approx(-0.1)
    assert found.numbers["distance_gap"]["musicgen, held-out captions, YAMNet"][1] < -1
    musiclm.claim_distances({YAMNET: by_set | {"pink noise": noise, "white noise": noise}}, 5, found)
    assert not any(found.passed.values())
    musiclm.claim_distances({YAMNET: by_set | {"pink noise": noise, "white noise": own}}, 10, found)
    assert not any(found.passed.values())
    paired = Distance(2.1, own.resampled + 0.1)
    nearer = by_set | {"pink noise": noise, "white noise": noise, "musicgen, held-out captions": paired}
    musiclm.claim_distances({YAMNET: nearer}, 10, found)
    assert all(found.passed.values())


def test_a_followed_melody_is_claimed_against_none_and_others() -> None:
    ones, found = np.ones(8), Findings()
    musiclm.report_melody(0.5 * ones, 0.2 * ones, 0.6 * ones, found)
    assert found.passed == {"melody: above without": True, "melody: own above others": False}


def test_a_story_is_claimed_for_each_part_and_their_sum() -> None:
    found = Findings()
    musiclm.report_story({"first part": [0.5] * 8, "second part": [-0.3] * 8}, found)
    assert found.passed == {
        "story: first part nearer its own prompt": True,
        "story: second part nearer its own prompt": False,
        "story: both parts nearer its own prompt": True,
    }
    assert found.numbers["story"]["both parts"][0] == pytest.approx(0.2)


def test_a_part_is_a_stretch_of_the_piece() -> None:
    piece = Waveform(np.linspace(0, 1, 40_000, dtype=np.float32)[None], 10_000)
    assert np.array_equal(musiclm.part_of(piece, 1.0, 1.5).samples, piece.samples[:, 10_000:15_000])


def test_reference_clips_are_none_of_those_asked_for() -> None:
    asked, others = musiclm.split_clips(range(40), 8, 100)
    assert len(asked) == 8 and len(others) == 32 and not set(asked) & set(others)
    assert len(musiclm.split_clips(range(40), 8, 5)[1]) == 5
    with pytest.raises(SystemExit, match="at least 42"):
        musiclm.split_clips(range(40), 21, 5)


def test_reference_clips_are_of_other_pieces_than_those_asked_for() -> None:
    pieces = [index // 4 for index in range(40)]
    asked, others = musiclm.split_clips(pieces, 4, 100)
    assert len(asked) == 4 and len(others) == 24
    assert not {pieces[index] for index in asked} & {pieces[index] for index in others}
    with pytest.raises(SystemExit, match="other pieces"):
        musiclm.split_clips([0] * 40, 4, 100)


def test_only_captions_that_are_heard_in_full_are_asked(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("ytid,caption\n" + "".join(f"{n},{'x' * n}\n" for n in (10, 500, 240, 241, 30)))
    assert [len(caption) for caption in musiclm.musiccaps_captions(path, 9).captions] == [10, 240, 30]
    assert len(musiclm.musiccaps_captions(path, 2).captions) == 2


def test_counts_come_from_quick_the_options_and_the_limit() -> None:
    assert musiclm.parse([])[1] == musiclm.FULL
    quick = musiclm.parse(["--quick", "--clips", "5"])[1]
    assert (quick.clips, quick.melodies) == (5, musiclm.QUICK.melodies)
    limited = musiclm.parse(["--limit", "3"])[1]
    assert (limited.clips, limited.stories, limited.structure_s) == (3, 3, musiclm.FULL.structure_s)
    with pytest.raises(SystemExit):
        musiclm.parse(["--parts", "cycle,nothing"])


def test_stories_are_of_two_different_prompts_each() -> None:
    assert len(set(musiclm.STORIES)) == len(musiclm.STORIES) >= musiclm.FULL.stories
    assert all(first != second for first, second in musiclm.STORIES)
