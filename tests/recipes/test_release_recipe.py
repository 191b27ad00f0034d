"""The recipe of releases runs end to end on a corpus made in seconds, and learns when its keys go up."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stretto_transcriber
import torch
from piano_tones import write_clip
from stretto_shared import weights
from stretto_transcriber.models.onsets_frames import OnsetsFramesConfig, build_onsets_frames, transcribe_clip

RECIPES = Path(__file__).parents[2] / "services/transcriber/recipes"
sys.path.append(str(RECIPES))
import choose_levels  # noqa: E402
from heard_notes import NoteDeck, read_clips  # noqa: E402
from note_scores import matched  # noqa: E402
from piano_clips import list_clips, read_beginning  # noqa: E402
from stretto_transcriber.models.onsets_frames.releases import (  # noqa: E402
    BEFORE,
    LASTS,
    NUM_INPUTS,
    NUM_STEPS,
    OWN_FRAME,
    OWN_KEY,
    STRIDE,
)
from train_releases import faded, paths_of, title_of  # noqa: E402

COMMITTED = Path(stretto_transcriber.__path__[0]).parent / "weights/onsets_frames"
RECIPE = """
channels = 8
minutes = 0.15
batch_size = 32
learning_rate = 1e-2
warmup_steps = 5
average_decay = 0.9
validate_every_s = 2.0
num_valid_notes = 30
most_slower = 1.2
log_every = 10
"""


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, str(RECIPES / name), *map(str, arguments)]
    return subprocess.run(command, check=True, timeout=600, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    for number in range(4):
        write_clip(folder / "corpus/train", f"clip_{number}", number)
    write_clip(folder / "corpus/valid", "clip_9", 9)
    write_clip(folder / "corpus/valid", "MAPS_MUS-tones_Piano", 8)
    run("hear_piano.py", "--weights", COMMITTED, "--corpus", folder / "corpus", "--out", folder / "heard")
    (folder / "recipe.toml").write_text(RECIPE)
    base = ("--weights", COMMITTED, "--heard", folder / "heard")
    run("train_releases.py", "--config", folder / "recipe.toml", *base, "--run", folder / "run")
    return folder


def test_the_corpus_is_heard_plainly_or_in_a_room_and_for_validation_both_ways(folder: Path) -> None:
    train = sorted(path.stem.removesuffix("_room") for path in (folder / "heard/train").iterdir())
    assert train == [f"clip_{number}" for number in range(4)]
    valid = [np.load(folder / f"heard/valid/clip_9{room}.npz") for room in ("", "_room")]
    assert valid[0]["heads"].shape == (300, 5, 88) and valid[0]["notes"].shape[1] == 5
    assert not np.array_equal(valid[0]["heads"], valid[1]["heads"])


def test_a_batch_tells_of_each_note_what_its_reader_is_told(folder: Path) -> None:
    paths = sorted((folder / "heard/train").iterdir())
    config = OnsetsFramesConfig(
        **weights.resolve("default", name="onsets_frames", default_dir=COMMITTED.parent).config["config"]
    )
    clips = read_clips(paths, config, 2)
    deck, num_notes = NoteDeck(clips, 1.0, torch.device("cpu")), sum(len(clip.notes) for clip in clips)
    assert len(deck) == num_notes > 40

    given, ends = deck.batch((np.arange(num_notes) + 0.5) / num_notes)
    alone, labels = [], []
    for clip in clips:
        for first, pitch, velocity, sound, *ended in clip.notes.tolist():
            alone.append(clip.around.of_note(int(first), int(pitch), int(velocity), sound))
            labels.append(ended)
    assert np.array_equal(given.numpy(), np.stack(alone))
    assert np.array_equal(ends.numpy(), np.array(labels, np.float32))


def test_a_note_told_more_slowly_is_told_the_same_later_and_ends_later(folder: Path) -> None:
    config = OnsetsFramesConfig(
        **weights.resolve("default", name="onsets_frames", default_dir=COMMITTED.parent).config["config"]
    )
    clips = read_clips(sorted((folder / "heard/train").iterdir())[:2], config, 1)
    deck = NoteDeck(clips, 1.0, torch.device("cpu"))
    places = (np.arange(len(deck)) + 0.5) / len(deck)
    given, ends = deck.batch(places)
    same, same_ends = deck.batch(places, np.ones(len(deck)))
    slow, slow_ends = deck.batch(places, np.full(len(deck), 2.0))

    assert torch.equal(given, same) and torch.equal(ends, same_ends)
    assert torch.equal(slow_ends, 2 * ends)
    onset = BEFORE // STRIDE
    assert torch.equal(slow[:, onset::2, :OWN_FRAME], given[:, onset : onset + 50, :OWN_FRAME])
    assert given[:, onset : onset + 50, :OWN_FRAME].std() > 0.05
    assert slow[..., LASTS].sum(1) == pytest.approx((2 * given[..., LASTS].sum(1)).clamp(max=100.0), abs=1e-3)

    fast, _ = deck.batch(places, np.full(len(deck), 0.4))  # reads beyond what there is of the last notes: silence
    assert fast.isfinite().all() and (fast[-1, -10:, :OWN_FRAME] == 0.0).all()


def test_notes_of_the_repertoire_of_maps_are_drawn_more_often(folder: Path) -> None:
    config = OnsetsFramesConfig(
        **weights.resolve("default", name="onsets_frames", default_dir=COMMITTED.parent).config["config"]
    )
    clips = read_clips(sorted((folder / "heard/train").iterdir())[:2], config, 1)
    clips[0].name, clips[0].notes[:, 4], clips[1].notes[:, 4] = "MAPS_MUS-x_Y", 1.0, 0.0
    deck = NoteDeck(clips, 3.0, torch.device("cpu"))
    share = float(deck.batch((np.arange(1000) + 0.5) / 1000)[1][:, 0].mean())
    first, second = (len(clip.notes) for clip in clips)
    assert share == pytest.approx(3 * first / (3 * first + second), abs=0.01)


def test_faded_notes_lose_what_was_heard_of_themselves_from_before_their_key_is_up() -> None:
    given, ends = torch.ones(400, NUM_STEPS, NUM_INPUTS), torch.tensor([30.0, 60.0]).expand(400, 2)
    told = faded(given, ends, 0.5, np.random.default_rng(0))
    fades = (told != given).any(2).any(1)
    assert 0.4 < float(fades.float().mean()) < 0.6
    key, frame, lasts = (told[fades, :, column] for column in (OWN_KEY, OWN_FRAME, LASTS))
    assert torch.equal(key, frame) and torch.equal(lasts == 0.0, key < 1.0)
    last_heard = (key == 1.0).sum(1) - BEFORE // STRIDE  # steps after the onset
    assert last_heard.min() <= 2 and 28 <= last_heard.max() <= 30
    assert key[:, -1].max() <= 0.5 and key[:, -1].std() > 0.1

    told[..., [OWN_KEY, OWN_FRAME, LASTS]] = 1.0
    assert torch.equal(told, given)
    assert torch.equal(faded(given, ends, 0.0, np.random.default_rng(0)), given)


def test_it_learns_and_what_it_exports_ends_keys_where_they_go_up(folder: Path) -> None:
    log = [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]
    losses = [line["valid_key"] for line in log if "valid_key" in line]
    assert min(losses[1:]) < losses[0]
    kinds = [[line[f"valid_{kind}_key"] for line in log if "valid_key" in line] for kind in ("notated", "played")]
    assert losses == pytest.approx(np.mean(kinds, 0), rel=1e-3) and kinds[0] != kinds[1]

    resolved = weights.resolve("default", name="onsets_frames", default_dir=folder / "run/export")
    model = build_onsets_frames(resolved.config["config"], weights.load_tensors(resolved))
    clip = next(clip for clip in list_clips(folder / "corpus/valid") if clip.path.stem == "clip_9")
    notes = transcribe_clip(model, read_beginning(clip, clip.num_samples), "key")
    pairs = matched(notes, clip.notes[:, :4].astype(np.float64), 0.05)
    assert len(pairs) > 20
    lasted_s = np.median([notes.offset_s[i] - clip.notes[j, 0] for i, j in pairs])
    assert lasted_s == pytest.approx(0.2, abs=0.03)


def test_levels_are_chosen_by_the_mean_of_both_kinds_of_clips(folder: Path) -> None:
    config = OnsetsFramesConfig(
        **weights.resolve("default", name="onsets_frames", default_dir=COMMITTED.parent).config["config"]
    )
    best = {"MAPS_a": (0.3, 0.9), "MAPS_b": (0.3, 0.9), "played": (0.5, 1.0)}
    clips = {
        name: {
            (ends, level): (0.5, reached if level == peak else 0.1 * level)
            for ends in choose_levels.COLUMNS
            for level in choose_levels.LEVELS
        }
        for name, (peak, reached) in best.items()
    }
    means = choose_levels.means_of(clips)
    assert means["notated"]["key", 0.3] == pytest.approx((0.5, 0.9))
    found = choose_levels.chosen(config, means)
    assert (found.key_level, found.sound_level) == (0.5, 0.5)  # of clips alike the notated ones would have won
    del means["played"]
    assert choose_levels.chosen(config, means).key_level == 0.3


def test_levels_of_what_was_learned_are_chosen_and_written(folder: Path) -> None:
    again = ("--weights", COMMITTED, "--corpus", folder / "corpus", "--out", folder / "in_rooms")
    run("hear_piano.py", *again, "--split", "valid", "--rooms", 2)
    assert [path.name for path in (folder / "in_rooms").iterdir()] == ["valid"]
    heads = [np.load(folder / f"{name}/valid/clip_9_room.npz")["heads"] for name in ("heard", "in_rooms")]
    assert not np.array_equal(*heads), "in one room more"
    base = ("--weights", folder / "run/export/onsets_frames", "--heard", folder / "in_rooms", "--jobs", 2)
    assert "2 clips: key_level" in run(
        "choose_levels.py", *base, "--in-rooms", "--out", folder / "chosen/onsets_frames"
    )
    resolved = weights.resolve("default", name="onsets_frames", default_dir=folder / "chosen")
    before = weights.resolve("default", name="onsets_frames", default_dir=folder / "run/export")
    levels = ("key_level", "sound_level")
    reached = choose_levels.all_reached(sorted((folder / "in_rooms/valid").glob("*_room.npz")), base[1], 1)
    best = choose_levels.chosen(OnsetsFramesConfig(**before.config["config"]), choose_levels.means_of(reached))
    assert [resolved.config["config"][name] for name in levels] == [best.key_level, best.sound_level]
    told = resolved.config["training"]
    assert 0.5 < told["valid_played_key_frame_f1"] <= 1.0 and "valid_key_f1" not in told  # the one of other clips
    changed = {name for name, value in resolved.config["config"].items() if before.config["config"][name] != value}
    assert changed <= set(levels)
    kept, old = (weights.load_tensors(each) for each in (resolved, before))
    assert all(torch.equal(kept[name], old[name]) for name in old) and len(kept) == len(old)


def test_a_reader_that_remembers_reads_a_note_once() -> None:
    class Counting:
        read = 0

        def lasting(self, given: np.ndarray) -> np.ndarray:
            self.read += len(given)
            return given[:, :100, :2] * 2

    given = np.random.default_rng(0).random((3, NUM_STEPS, NUM_INPUTS), np.float32)
    counting = Counting()
    reader = choose_levels.Remembering(counting)
    first = reader.lasting(given[:2])
    assert np.array_equal(reader.lasting(given), given[:, :100, :2] * 2) and counting.read == 3
    assert np.array_equal(first, reader.lasting(given[:2]))


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("MAPS_MUS-alb_esp2_AkPnCGdD", "alb_esp2"),
        ("MAPS_MUS-alb_esp2_SptkBGAm_room", "alb_esp2"),
        ("00024_salamander0_pianomidi_alb_esp2", "alb_esp2"),
        ("MAPS_MUS-chpn-p11-format0_AkPnCGdD", "chpn-p11"),
        ("s4_00001_salamander160_pianomidi_god_chpn_op10_e12_room", "chpn_op10_e12"),
        ("00044_FluidR3_GM0_asap_Bach_Fugue_bwv_854_Ozaki01M", "00044_FluidR3_GM0_asap_Bach_Fugue_bwv_854_Ozaki01M"),
    ],
)
def test_a_title_is_one_title_on_whatever_piano(name: str, title: str) -> None:
    assert title_of(name) == title


def test_no_title_is_learned_from_and_validated_on(tmp_path: Path) -> None:
    for path in (
        "train/MAPS_MUS-a_AkPnStgb",
        "train/00001_x_pianomidi_a",
        "train/00002_x_pianomidi_b",
        "valid/MAPS_MUS-a_AkPnCGdD",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / f"{path}.npz").touch()
    train, valid = paths_of(tmp_path)
    assert [path.stem for path in train] == ["00002_x_pianomidi_b"] and len(valid) == 1
    with pytest.raises(ValueError, match=r"expected train/NAME\.npz"):
        paths_of(tmp_path / "train")
