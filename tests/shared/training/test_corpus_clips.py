"""The corpus renderer: clips are pure functions of (seed, index), and sound as their records say."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
from stretto_shared.training.corpus.captions import make_captions
from stretto_shared.training.corpus.clips import describe, make_clip
from stretto_shared.training.corpus.debug import build_debug_corpus, debug_library
from stretto_shared.training.corpus.instruments import INSTRUMENTS
from stretto_shared.training.corpus.orchestration import DYNAMICS, arrange, fit_range
from stretto_shared.training.corpus.plans import RHYTHM
from stretto_shared.training.corpus.records import CLIP_SAMPLES, SAMPLE_RATE_HZ, SPLITS
from stretto_shared.training.corpus.render import (
    FluidSynthesizer,
    RenderPart,
    SymusicSynthesizer,
    Synthesizer,
    bundled_soundfont,
)
from stretto_shared.training.corpus.room import MAX_PEAK, RMS_DB, Room, apply_room
from stretto_shared.training.corpus.scores import DURATION, ONSET, PITCH
from stretto_shared.training.dataset import AudioShards

DRY = Room(None, 0.3, 0.1, 1.0, 0.0, 5)


def installed_synthesizers() -> dict[str, Synthesizer]:
    """symusic's, and FluidSynth's where its library is installed; both with the bundled SoundFont."""
    synthesizers: dict[str, Synthesizer] = {"symusic": SymusicSynthesizer(bundled_soundfont(), SAMPLE_RATE_HZ)}
    with contextlib.suppress(OSError):
        synthesizers["fluidsynth"] = FluidSynthesizer(bundled_soundfont(), SAMPLE_RATE_HZ)
    return synthesizers


@pytest.fixture(scope="module")
def synthesizers() -> dict[str, Synthesizer]:
    return installed_synthesizers()


def one_note(program: int, pitch: float, *, is_drum: bool = False) -> RenderPart:
    return RenderPart(program, is_drum, np.array([[0.1, 1.5, pitch, 90.0]]))


def strongest_frequency_hz(audio: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    return float(np.argmax(spectrum) * SAMPLE_RATE_HZ / len(audio))


def test_same_seed_and_index_give_the_same_bytes_in_any_order(synthesizers: dict[str, Synthesizer]) -> None:
    library = debug_library("train")
    for name, synthesizer in synthesizers.items():
        only = {name: synthesizer}
        first = {index: make_clip(library, only, "train", 7, index) for index in (0, 1, 2)}
        again = {index: make_clip(library, only, "train", 7, index) for index in (2, 0)}
        for index, clip in again.items():
            assert np.array_equal(clip.samples, first[index].samples)
            assert clip.record == first[index].record


def test_seed_index_and_split_each_change_the_clip(synthesizers: dict[str, Synthesizer]) -> None:
    library = debug_library("train")
    only = {"symusic": synthesizers["symusic"]}
    clips = [
        make_clip(library, only, *draw).samples
        for draw in (("train", 0, 0), ("train", 1, 0), ("train", 0, 1), ("test", 0, 0))
    ]
    for one in range(len(clips)):
        for other in range(one):
            assert not np.array_equal(clips[one], clips[other])


def test_a_note_sounds_at_its_pitch_and_time(synthesizers: dict[str, Synthesizer]) -> None:
    for synthesizer in synthesizers.values():
        audio = synthesizer.render([one_note(73, 69.0)], 2 * SAMPLE_RATE_HZ)
        assert audio.shape == (2 * SAMPLE_RATE_HZ,)
        assert strongest_frequency_hz(audio) == pytest.approx(440.0, rel=0.02)
        assert np.abs(audio[: int(0.09 * SAMPLE_RATE_HZ)]).max() < 0.02 * np.abs(audio).max()


def test_the_program_changes_the_sound(synthesizers: dict[str, Synthesizer]) -> None:
    for synthesizer in synthesizers.values():
        sounds = [synthesizer.render([one_note(program, 60.0)], SAMPLE_RATE_HZ) for program in (0, 48, 56)]
        sounds.append(synthesizer.render([one_note(0, 38.0, is_drum=True)], SAMPLE_RATE_HZ))
        for one in range(len(sounds)):
            assert np.abs(sounds[one]).max() > 1e-3
            for other in range(one):
                assert np.abs(sounds[one] - sounds[other]).max() > 1e-3


def test_rendered_beats_follow_the_stated_tempo() -> None:
    rng = np.random.default_rng(3)
    library = debug_library("train")
    seen = 0
    while seen < 5:
        arrangement = arrange(library, rng)
        if arrangement.plan != "solo drums":
            continue
        seen += 1
        kicks = arrangement.parts[0].notes
        kicks = kicks[kicks[:, PITCH] == 36]
        assert np.median(np.diff(kicks[:, ONSET])) == pytest.approx(2 * 60.0 / arrangement.tempo_bpm, rel=0.01)


def test_arrangements_stay_within_range_and_clip() -> None:
    rng = np.random.default_rng(1)
    library = debug_library("train")
    ranges = {instrument.program: instrument for instrument in INSTRUMENTS}
    textures = set()
    for _ in range(40):
        arrangement = arrange(library, rng)
        textures.add(arrangement.plan)
        assert arrangement.dynamics in {name for name, _, _ in DYNAMICS}
        for part, use in zip(arrangement.parts, arrangement.instruments, strict=True):
            assert part.is_drum == (use.family == "drums")
            if not part.is_drum:
                assert part.notes[:, PITCH].min() >= ranges[part.program].low
                assert part.notes[:, PITCH].max() <= ranges[part.program].high
    assert len(textures) >= 6


def test_the_rhythm_repertoire_plays_drums_at_every_tempo_and_says_which() -> None:
    library = debug_library("train")
    clips = [arrange(library, np.random.default_rng(index), RHYTHM) for index in range(60)]
    assert all(any(use.family == "drums" for use in clip.instruments) for clip in clips)
    low, high = RHYTHM.tempo_range_bpm or (0.0, 0.0)
    tempos = [clip.tempo_bpm for clip in clips]
    assert low <= min(tempos) < 1.25 * low and 0.8 * high < max(tempos) <= high
    stated = 0
    for index, clip in enumerate(clips):
        record = describe(clip, list(clip.parts), DRY, "timgm6mb", "train", f"v0-rhythm-train-{index:06d}")
        captions = make_captions(record, 0)
        stated += any(re.search(rf"\b{clip.tempo_bpm:.0f} bpm", caption, re.IGNORECASE) for caption in captions)
    assert stated > 0.5 * len(clips)


def test_fitting_a_range_ends_notes_before_the_same_pitch_returns() -> None:
    notes = np.array([[0.0, 3.0, 30.0, 80.0], [1.0, 1.0, 42.0, 80.0], [1.0, 1.0, 54.0, 80.0]])
    violin = next(instrument for instrument in INSTRUMENTS if instrument.program == 40)
    fitted = fit_range(notes, violin, "middle")
    for pitch in np.unique(fitted[:, PITCH]):
        same = fitted[fitted[:, PITCH] == pitch]
        assert (same[:-1, ONSET] + same[:-1, DURATION] <= same[1:, ONSET]).all()


def test_dynamics_set_the_level_and_nothing_clips() -> None:
    tone = np.sin(2 * np.pi * 440.0 * np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ).astype(np.float32)
    for dynamics, level_db in RMS_DB.items():
        coloured = apply_room(tone, DRY, dynamics, SAMPLE_RATE_HZ)
        assert coloured is not None
        assert np.abs(coloured).max() <= MAX_PEAK + 1e-6
        assert 20 * np.log10(np.sqrt(np.mean(coloured**2))) == pytest.approx(level_db, abs=0.1)
    assert apply_room(0.0 * tone, DRY, "soft", SAMPLE_RATE_HZ) is None


def test_debug_corpus_reads_back_as_it_was_made(tmp_path: Path) -> None:
    build_debug_corpus(tmp_path, 4, seed=2)
    pieces = {}
    for split in SPLITS:
        shards = AudioShards(tmp_path, split)
        assert len(shards) == (4 if split == "train" else 2)
        for index in range(len(shards)):
            record = shards.record(index)
            assert shards.clip(index).shape == (CLIP_SAMPLES,)
            assert shards.clip(index).dtype == np.int16
            assert np.abs(shards.clip(index)).max() > 300
            assert record.split == split
            assert len(record.captions) == 3
            assert bool(record.heldout_captions) == (split != "train")
            pieces.setdefault(record.piece, set()).add(split)
    assert all(len(splits) == 1 for splits in pieces.values())
    fresh = make_clip(debug_library("train"), {"timgm6mb": installed_synthesizers()["symusic"]}, "train", 2, 3)
    assert np.array_equal(fresh.samples, AudioShards(tmp_path, "train").clip(3))


def test_missing_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="split 'train'"):
        AudioShards(tmp_path, "train")
