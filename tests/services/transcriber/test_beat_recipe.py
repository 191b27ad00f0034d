"""The recipe of the beat tracker: its scores, its arrangements, its loss, and a run from end to end."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stretto_shared.training import asap
from stretto_shared.training.corpus.render import SymusicSynthesizer, bundled_soundfont

RECIPES = Path(__file__).resolve().parents[3] / "services" / "transcriber" / "recipes"
sys.path.append(str(RECIPES))
import beat_arranging  # noqa: E402
import beat_scores  # noqa: E402
import pack_beats  # noqa: E402
import prepare_beats  # noqa: E402
import score_beats  # noqa: E402
import train_beats  # noqa: E402
from stretto_transcriber.models.beat_tracker.config import BeatTrackerConfig  # noqa: E402
from stretto_transcriber.models.beat_tracker.weights import load_beat_tracker  # noqa: E402

CONFIG = BeatTrackerConfig()


def waltz(source: str = "pop909", tempo_bpm: float = 120.0, num_beats: int = 120) -> beat_scores.Music:
    """A chord on every beat, the lowest on the first of three, and a melody."""
    beat_s = np.arange(num_beats) * 60 / tempo_bpm
    places = np.arange(num_beats) % 3 + 1
    chord = np.array([[t, 0.4, 48.0 if p == 1 else 60.0, 100 if p == 1 else 60] for t, p in zip(beat_s, places)])
    melody = np.array([[t, 0.3, 72.0 + n % 5, 80.0] for n, t in enumerate(beat_s)])
    parts = (beat_scores.Part("melody", melody), beat_scores.Part("piano", chord))
    return beat_scores.Music(source, "waltz", parts, beat_s, places, np.ones(num_beats, bool))


def make_shard(path: Path, count: int, seed: int) -> None:
    """Excerpts as `prepare_beats` writes them, made by the synthesizer that needs no install."""
    synthesizer = SymusicSynthesizer(bundled_soundfont(), CONFIG.sample_rate_hz)
    mels, pitches, targets, beats = [], [], [], []
    for row in range(count):
        random = np.random.default_rng([seed, row])
        excerpt = beat_arranging.draw_excerpt(waltz(), synthesizer, 10.0, CONFIG.sample_rate_hz, random)
        assert excerpt is not None
        audio = torch.from_numpy(excerpt.audio)[None]
        mels.append(prepare_beats.log_mel(audio, CONFIG)[0].half().numpy())
        pitches.append(prepare_beats.log_pitches(audio, CONFIG)[0].half().numpy())
        targets.append(prepare_beats.targets_of(excerpt, 500, 50.0))
        beats.append(np.column_stack([np.full(len(excerpt.beat_s), row), excerpt.beat_s, excerpt.beat_in_bar]))
    np.savez(
        path,
        mel=np.stack(mels),
        pitches=np.stack(pitches),
        targets=np.stack(targets),
        beats=np.concatenate(beats),
        sources=np.array(["x"] * count),
    )


def test_the_recipe_learns_exports_and_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_shard(tmp_path / "excerpts_train_0000.npz", 6, 0)
    make_shard(tmp_path / "excerpts_valid_0000.npz", 2, 1)
    options = ["--excerpts", str(tmp_path), "--run", str(tmp_path / "run"), "--config"]
    train_beats.main([*options, str(RECIPES / "beats_debug.toml")])
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert '"valid_beat_f"' in log
    tracker = load_beat_tracker(tmp_path / "run" / "export" / "beat_tracker")
    heard = tracker.hear(torch.zeros(320 * 30))
    assert len(heard.beat) == 30 and bool(torch.isfinite(heard.beat).all())
    capsys.readouterr()
    score_beats.main(["--weights", str(tmp_path / "run" / "export" / "beat_tracker"), "--excerpts", str(tmp_path)])
    heading, of_source, of_all = capsys.readouterr().out.splitlines()
    assert heading.startswith("source excerpts beat_f") and of_source.split()[:2] == ["x", "2"]
    assert of_all.split()[1:] == of_source.split()[1:]


def test_scores_are_told_by_source() -> None:
    scores = np.array([[1.0, 0.0, 0.5, 1.0], [0.5, 0.0, 0.5, 0.0], [0.0, 0.3, 0.5, 1.0]])
    lines = score_beats.table(scores, ["a", "b", "a"]).splitlines()[1:]
    assert lines == ["a 2 0.500 0.150 0.500 1.000", "b 1 0.500 0.000 0.500 0.000", "all 3 0.500 0.100 0.500 0.667"]


def test_the_loss_falls_when_it_is_followed() -> None:
    torch.manual_seed(0)
    logits = torch.full((1, 200), -2.0, requires_grad=True)
    flagged = torch.zeros(1, 200, dtype=torch.bool)
    flagged[0, 20::40] = True
    optimizer = torch.optim.SGD([logits], lr=50.0)
    first = last = 0.0
    for step in range(60):
        loss = train_beats.shift_tolerant_loss(logits, flagged, 2, 2.0)
        first, last = (loss.item() if step == 0 else first), loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert last < 0.3 * first


def test_the_loss_forgives_a_small_shift_and_no_more() -> None:
    flagged = torch.zeros(1, 100, dtype=torch.bool)
    flagged[0, 50] = True

    def loss_at(frame: int) -> float:
        logits = torch.full((1, 100), -8.0)
        logits[0, frame] = 8.0
        return train_beats.shift_tolerant_loss(logits, flagged, 2, 2.0).item()

    assert loss_at(50) == pytest.approx(loss_at(52)) == pytest.approx(loss_at(48))
    assert loss_at(53) > 10 * loss_at(52)
    assert loss_at(80) > loss_at(53)  # besides the missed beat, one that is none


def test_targets_lie_at_the_nearest_frames() -> None:
    excerpt = beat_arranging.Excerpt(
        np.zeros(16_000, np.float32), np.array([0.0, 0.511]), np.array([1, 2]), np.array([0.0, 0.25, 0.511, 0.999])
    )
    targets = prepare_beats.targets_of(excerpt, 50, 50.0)
    assert np.flatnonzero(targets & prepare_beats.BEAT).tolist() == [0, 26]
    assert np.flatnonzero(targets & prepare_beats.DOWNBEAT).tolist() == [0]
    assert np.flatnonzero(targets & prepare_beats.ONSET).tolist() == [0, 12, 26]  # the frame after the end is none


@pytest.mark.parametrize("source", ["asap", "pop909"])
def test_an_excerpt_sounds_where_its_truth_says(source: str) -> None:
    synthesizer = SymusicSynthesizer(bundled_soundfont(), CONFIG.sample_rate_hz)
    music = waltz(source)
    parts = [beat_arranging.RenderPart(0, False, part.notes) for part in music.parts]
    audio = beat_arranging.play(parts, synthesizer, 10.25, 1.2, 8.0, CONFIG.sample_rate_hz)
    beat_s, places, onset_s = beat_arranging.truth(music, parts, 10.25, 1.2, 8.0)
    assert len(audio) == 8 * CONFIG.sample_rate_hz
    assert np.diff(beat_s) == pytest.approx(np.full(len(beat_s) - 1, 0.6))
    assert beat_s[0] == pytest.approx(0.3) and places[:3].tolist() == [1 + (21 + n) % 3 for n in range(3)]
    assert onset_s == pytest.approx(beat_s)
    mel = prepare_beats.log_mel(torch.from_numpy(audio)[None], CONFIG)[0]
    rise = torch.diff(mel, dim=0).clamp(min=0).sum(1).numpy()
    near = [rise[max(0, round(t * 50) - 2) : round(t * 50) + 2].max() for t in beat_s]
    assert np.median(near) > 4 * np.median(rise)


def test_excerpts_are_drawn_alike_and_only_where_beats_are_sure() -> None:
    synthesizer = SymusicSynthesizer(bundled_soundfont(), CONFIG.sample_rate_hz)
    first, again = (
        beat_arranging.draw_excerpt(waltz(), synthesizer, 6.0, 16_000, np.random.default_rng(5)) for _ in range(2)
    )
    assert first is not None and again is not None
    assert np.array_equal(first.audio, again.audio) and np.array_equal(first.beat_s, again.beat_s)
    unsure = waltz()
    unsure.is_sure[::8] = False
    assert beat_arranging.draw_excerpt(unsure, synthesizer, 6.0, 16_000, np.random.default_rng(5)) is None


def test_bars_are_counted_from_downbeats() -> None:
    flags = np.array([False, True, False, False, True, True])
    assert beat_scores.count_bars(flags).tolist() == [0, 1, 2, 3, 1, 1]


@pytest.mark.parametrize(
    ("key", "composition"),
    [
        ("Haydn/Keyboard_Sonatas/32-1_no_repeat", "Haydn/Keyboard_Sonatas/32-1"),
        ("Beethoven/Piano_Sonatas/24-1_no_2_repeat", "Beethoven/Piano_Sonatas/24-1"),
        ("Schumann/Toccata_repeat", "Schumann/Toccata"),
        ("Beethoven/Piano_Sonatas/9-2_no_trio", "Beethoven/Piano_Sonatas/9-2"),
        ("Schubert/Moment_Musical_no_1", "Schubert/Moment_Musical_no_1"),
    ],
)
def test_a_composition_is_one_with_and_without_repeats(key: str, composition: str) -> None:
    assert asap.work_of(key) == composition


def test_no_composition_is_on_both_sides_of_the_split(tmp_path: Path) -> None:
    works = [f"Composer/Work/{number}{end}" for number in range(200) for end in ("", "_no_repeat")]
    works += sorted(asap.MAPS_TITLES)
    for key in works:
        (tmp_path / key).mkdir(parents=True)
        (tmp_path / key / "midi_score.mid").touch()
    train, valid, test = ({*beat_scores.asap_folders(tmp_path, split)} for split in ("train", "valid", "test"))
    trained = {asap.work_of(key) for key in train}
    held_out = {asap.work_of(key) for key in valid | test}
    assert train and valid and test and not trained & held_out and not train & asap.MAPS_TITLES


def test_validation_counts_each_beat_once() -> None:
    true_s = np.array([1.0, 2.0, 3.0])
    assert train_beats.f_measure(true_s, true_s + 0.069, 0.07) == 1.0
    assert train_beats.f_measure(np.array([0.99, 1.01, 2.5]), true_s, 0.07) == pytest.approx(1 / 3)
    assert train_beats.f_measure(np.zeros(0), true_s, 0.07) == 0.0


def test_variation_keeps_shape_and_silence_under_its_noise() -> None:
    mel = torch.zeros(3, 100, 64)
    varied = train_beats.varied(mel, torch.Generator().manual_seed(0))
    assert varied.shape == mel.shape and float(varied.max()) < 1.0 and float(varied.min()) >= 0.0
    loud = torch.full((3, 100, 64), 5.0)
    assert not torch.equal(train_beats.varied(loud, torch.Generator().manual_seed(0)), loud)


def test_semitones_are_drawn_with_the_frames_that_they_stand_for(tmp_path: Path) -> None:
    frames = np.arange(480)
    columns = np.arange(120)
    np.savez(
        tmp_path / "excerpts_train_0000.npz",
        mel=np.broadcast_to((frames[:, None] >= 240) * 4.0, (1, 480, 64)).astype(np.float16),
        pitches=np.broadcast_to((columns[:, None] >= 60) * 4.0, (1, 120, 60)).astype(np.float16),
        targets=(frames >= 240).astype(np.uint8)[None],
        beats=np.zeros((0, 3)),
    )
    drawn, targets = train_beats.Excerpts(tmp_path, "train").draw(16, 400, torch.Generator().manual_seed(0))
    first = targets.argmax(1)  # flags begin where the sound does
    assert len(first.unique()) > 4
    assert torch.equal(drawn.pitches.sum(2).diff(dim=1).argmax(1) + 1, first // 4)
    assert drawn.mel.shape == (16, 400, 64) and drawn.pitches.shape == (16, 100, 60)


def test_shards_without_semitones_are_refused_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "excerpts_train_0007.npz", mel=np.zeros((1, 8, 64)))
    with pytest.raises(SystemExit, match=r"excerpts_train_0007\.npz: .* got no pitches\. Prepare them anew\."):
        train_beats.Excerpts(tmp_path, "train")


def test_semitones_move_whole_and_no_further_than_six() -> None:
    pitches = torch.zeros(64, 3, 60)
    pitches[:, :, 30] = 2.0
    moved = train_beats.transposed(pitches, torch.Generator().manual_seed(0))
    places = moved.argmax(2)
    assert torch.equal(moved.sum(2), pitches.sum(2)) and bool((places == places[:, :1]).all())
    assert set(places[:, 0].tolist()) <= set(range(24, 37)) and len(places[:, 0].unique()) > 6
    pitches[:, :, 30] = 0.0
    pitches[:, :, 59] = 2.0
    assert float(train_beats.transposed(pitches, torch.Generator().manual_seed(0))[:, 0, :30].sum()) == 0.0


def test_packed_excerpts_are_those_of_the_shards_within_half_a_step(tmp_path: Path) -> None:
    for number, count in enumerate((2, 1)):
        make_shard(tmp_path / f"excerpts_train_{number:04d}.npz", count, number)
    make_shard(tmp_path / "excerpts_valid_0000.npz", 1, 3)
    pack_beats.main(["--excerpts", str(tmp_path), "--out", str(tmp_path / "packed")])

    packed, plain = (train_beats.Excerpts(folder, "train") for folder in (tmp_path / "packed", tmp_path))

    assert len(packed) == len(plain) == 3
    for ours, theirs in ((packed.mel, plain.mel), (packed.pitches, plain.pitches)):
        difference = pack_beats.spectra(ours) - pack_beats.spectra(theirs)
        assert float(difference.abs().max()) <= 0.5 / pack_beats.STEPS_PER_UNIT + 1e-3
    assert torch.equal(packed.targets, plain.targets) and packed.sources == plain.sources == ["x", "x", "x"]
    assert all(np.array_equal(one, other) for one, other in zip(packed.beats, plain.beats, strict=True))
