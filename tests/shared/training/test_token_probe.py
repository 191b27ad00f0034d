import numpy as np
from stretto_shared.training.corpus.records import ClipRecord, InstrumentUse
from stretto_shared.training.token_probe import (
    NO_TRUTH,
    ProbeOptions,
    TokenProbe,
    beat_truth,
    family_truth,
    pitch_class_truth,
)

DRUMS, FLUTE = InstrumentUse("drums", 0, "drums", "drums"), InstrumentUse("melody", 73, "flute", "flute")


def record(*uses: InstrumentUse, tempo_bpm: float | None = 120.0, start_s: float = 0.0) -> ClipRecord:
    return ClipRecord("c", "test", "s", "p", start_s=start_s, instruments=uses, tempo_bpm=tempo_bpm)


def random_tokens(seed: int, clips: int = 40, frames: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 10, (clips, frames))


def test_a_probe_reads_what_the_frame_says() -> None:
    tokens = random_tokens(0)
    probe = TokenProbe(ProbeOptions(10, 5, context=0), tokens, tokens % 5)
    unseen = random_tokens(1)
    assert np.all(probe.accuracies(unseen, unseen % 5) == 1.0)


def test_a_probe_reads_a_neighbour_only_within_its_context() -> None:
    tokens, unseen = random_tokens(0), random_tokens(1)
    before, unseen_before = np.roll(tokens, 2, 1) % 5, np.roll(unseen, 2, 1) % 5
    wide = TokenProbe(ProbeOptions(10, 5, context=2), tokens, before).accuracies(unseen, unseen_before)
    narrow = TokenProbe(ProbeOptions(10, 5, context=1), tokens, before).accuracies(unseen, unseen_before)
    assert wide.mean() > 0.9 and narrow.mean() < 0.4


def test_a_probe_of_whole_clips_reads_their_shares() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, (60, 1))
    tokens = np.where(random.random((60, 30)) < 0.3, truth, random.integers(2, 10, (60, 30)))
    probe = TokenProbe(ProbeOptions(10, 2, context=None), tokens[:40], truth[:40])
    assert probe.accuracies(tokens[40:], truth[40:]).mean() > 0.9


def test_frames_without_truth_count_neither_way() -> None:
    tokens = random_tokens(0)
    truth = np.where(tokens < 3, NO_TRUTH, tokens % 5)
    truth[0] = NO_TRUTH
    probe = TokenProbe(ProbeOptions(10, 5, context=0), tokens, truth)
    accuracies = probe.accuracies(tokens, truth)
    assert np.isnan(accuracies[0]) and np.all(accuracies[1:] == 1.0)


def test_the_same_seed_fits_the_same_probe() -> None:
    tokens, truth = random_tokens(0), random_tokens(2) % 5
    first, second = (TokenProbe(ProbeOptions(10, 5, 1), tokens, truth).accuracies(tokens, truth) for _ in range(2))
    assert np.array_equal(first, second)


def test_beats_are_counted_from_the_start_of_the_piece_in_clips_with_drums() -> None:
    # At 120 bpm a quarter of a beat takes 0.125 s: frames of 0.125 s are centred in one quarter each.
    truth = beat_truth(
        [record(DRUMS, FLUTE), record(DRUMS, start_s=0.25), record(FLUTE), record(DRUMS, tempo_bpm=None)], 5, 8.0
    )
    assert truth[0].tolist() == [0, 1, 2, 3, 0]
    assert truth[1].tolist() == [2, 3, 0, 1, 2]
    assert (truth[2:] == NO_TRUTH).all()


def test_a_family_is_known_where_it_sounds_alone() -> None:
    truth = family_truth([record(FLUTE), record(FLUTE, FLUTE), record(FLUTE, DRUMS), record(DRUMS)], ["drums", "flute"])
    assert truth.ravel().tolist() == [1, 1, NO_TRUTH, 0]


def test_a_frame_has_the_pitch_class_of_the_chroma_frame_nearest_to_it() -> None:
    chroma = np.array([[5, 7, NO_TRUTH, 9]], np.int8)  # centred at 0, 0.128, 0.256 and 0.384 s
    truth = pitch_class_truth(chroma, 10, 25.0)  # centred at 0.02, 0.06, 0.10 ... s
    assert truth[0].tolist() == [5, 5, 7, 7, 7, NO_TRUTH, NO_TRUTH, NO_TRUTH, 9, 9]


def test_family_names_that_were_not_asked_for_have_no_truth() -> None:
    assert family_truth([record(FLUTE)], ["drums"]).ravel().tolist() == [NO_TRUTH]
