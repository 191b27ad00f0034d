import numpy as np
import pytest
from choice import Distance, Distances, choose, hits_and_chance
from peers.yamnet import FAMILY_CLASSES, FamilyJudge
from quality.musicgen_sampling import split_indices


def clips(shift: float, seed: int, num_clips: int = 12) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [shift + random.standard_normal(6) + 0.5 * random.standard_normal((8, 6)) for _ in range(num_clips)]


def test_clips_of_another_kind_are_farther_than_clips_of_the_same() -> None:
    space = Distances(clips(0.0, 0, num_clips=60), 4)
    same, near, far = (space.of(clips(shift, 1)) for shift in (0.0, 1.0, 3.0))
    assert same.value < near.value < far.value
    for distance in (same, near, far):
        low, high = distance.interval
        assert low < distance.value < high


def test_resamples_of_two_rows_are_paired() -> None:
    space = Distances(clips(0.0, 0, num_clips=60), 4)
    first, second = space.of(clips(1.0, 1)), space.of([clip + 0.01 for clip in clips(1.0, 1)])
    assert np.std(second.resampled - first.resampled) < 0.1 * np.std(first.resampled)


def test_the_choice_is_the_setting_with_the_most_families_of_those_that_are_as_near() -> None:
    noise = np.random.default_rng(0).standard_normal(500)
    distances = {
        "near": Distance(5.0, 5.5 + noise),
        "as near": Distance(5.1, 5.6 + noise + 0.3 * np.random.default_rng(1).standard_normal(500)),
        "far": Distance(7.0, 7.5 + noise),
    }
    assert choose(distances, {"near": 0.5, "as near": 0.6, "far": 0.9}) == ("as near", ["near", "as near"])
    assert choose(distances, {"near": 0.6, "as near": 0.6, "far": 0.9})[0] == "near"


def test_chance_is_what_the_same_answers_score_against_the_other_captions() -> None:
    asked = [frozenset({"piano"}), frozenset({"piano", "bass"}), frozenset({"drums"})]
    hits, chance = hits_and_chance(["piano", "bass", "piano"], asked)
    assert hits == [1.0, 1.0, 0.0]
    assert chance == pytest.approx((1 + 0 + 0 + 0 + 1 + 1) / 6)


def test_the_family_judge_allows_for_what_every_clip_scores() -> None:
    classes = [name for family in ("piano", "drums") for name in FAMILY_CLASSES[family]]
    piano, drums = classes.index("Piano"), classes.index("Drum")

    def scores(of_piano: float, of_drums: float) -> np.ndarray:
        made = np.zeros(len(classes))
        made[piano], made[drums] = of_piano, of_drums
        return made

    judge = FamilyJudge(classes, ["piano", "drums"], [("piano", scores(0.9, 0.1)), ("drums", scores(0.7, 0.2))])
    assert judge.name(scores(0.7, 0.2)) == "drums"  # as a piano-like drum of the calibration
    assert judge.name(scores(0.9, 0.1)) == "piano"
    with pytest.raises(ValueError, match="calibrate"):
        FamilyJudge(classes, ["piano"], [("drums", scores(0.7, 0.2))])


def test_captions_and_reference_share_no_clip() -> None:
    captions, reference = split_indices(100, 20, 60)
    assert len(captions) == 20 and len(reference) == 60
    assert not set(captions) & set(reference)
    with pytest.raises(SystemExit, match="limit"):
        split_indices(100, 51, 10)
