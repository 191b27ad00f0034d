"""The recipe of the modular analyzer: what trains, batches built on the device, and a run end to end."""

from __future__ import annotations

import dataclasses
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.analyzer import ModularAnalyzer
from stretto_harmony.models.modular.config import PUBLISHED, ModularConfig, search_of
from stretto_harmony.models.modular.networks import Modules
from stretto_harmony.models.modular.search import Reading
from stretto_harmony.models.modular.weights import load_modular
from stretto_harmony.scores.labels import Analysis, ChordType, HarmonyLabel, Key
from stretto_harmony.scores.score import TICKS_PER_QUARTER, Score
from tiny_modules import tiny_modules, tiny_score

RECIPES = Path(__file__).resolve().parents[4] / "services" / "harmony" / "recipes"
sys.path.append(str(RECIPES))
import assemble_modular  # noqa: E402
import functional_harmony  # noqa: E402
import modular_scores  # noqa: E402
import train_modular  # noqa: E402
from modular_pieces import NoteStore, Piece, change_targets, chord_rows, label_fit, piece_of, spans_of  # noqa: E402
from modular_twins import twins, with_durations  # noqa: E402
from pack_modular import load_pieces, save_pieces  # noqa: E402

CPU = torch.device("cpu")


def labelled(score: Score, shift: int = 0) -> Analysis:
    """Half-bar chords in C major and G major by turns."""
    labels = []
    half = 2 * TICKS_PER_QUARTER
    for place in range(score.num_ticks // half):
        key = Key(shift) if place % 4 < 2 else Key(shift + 1)
        root = key.tonic + place % 2
        labels.append(HarmonyLabel(place * half, (place + 1) * half, key, "I", key, root, ChordType.MAJOR, 0))
    return Analysis(tuple(labels))


def piece(seed: int = 0, num_beats: int = 16) -> Piece:
    score = tiny_score(num_beats, seed)
    return piece_of(f"extra/tenth/{seed}", score, labelled(score))


def test_a_store_builds_the_vectors_of_notes() -> None:
    pieces = [piece(0), piece(1, 8)]
    store = NoteStore(pieces, CPU)
    low, high = torch.as_tensor(store.starts[:2]), torch.as_tensor(store.starts[1:])
    built, is_note = store.vectors(low, high, torch.zeros(2, dtype=torch.long))
    for row, own in enumerate(pieces):
        expected = vectors.note_vectors(own.notes)
        np.testing.assert_allclose(built[row, : len(expected)].numpy(), expected, atol=1e-6)
        assert is_note[row].sum() == len(expected)
        assert not built[row, len(expected) :].any()


def test_a_store_builds_the_vectors_of_spans() -> None:
    own = piece(2)
    store = NoteStore([piece(1), own], CPU)
    spans = spans_of([piece(1), own], store)
    rows = torch.where(spans.piece == 1)[0]
    built, lengths = store.spans(spans, rows, torch.zeros_like(rows), torch.ones(len(rows)))
    note_vectors = vectors.note_vectors(own.notes)
    ends = np.append(own.begin[1:], len(own.notes.onset))
    for place, (chord, begin, end) in enumerate(zip(own.which, own.begin, ends)):
        until = own.notes.onset[begin] + own.chords.duration[chord]
        expected = vectors.span_vectors(own.notes, note_vectors, begin, end, until)
        assert lengths[place] == len(expected)
        np.testing.assert_allclose(built[place, : len(expected)].numpy(), expected, atol=1e-5)


def test_hidden_durations_are_told_of_no_note() -> None:
    store = NoteStore([piece()], CPU)
    spans = spans_of([piece()], store)
    rows = torch.arange(2)
    built, _ = store.spans(spans, rows, torch.zeros(2, dtype=torch.long), torch.tensor([1.0, 0.0]))
    hidden = built[:, :, vectors.IN_SPAN + 1 : vectors.IN_SPAN + 3]
    assert hidden[0].any() and not hidden[1].any()


@pytest.mark.parametrize("shift", [-3, 4])
def test_a_transposed_row_is_the_transposed_score(shift: int) -> None:
    score = tiny_score(8)
    store = NoteStore([piece_of("a", score, labelled(score))], CPU)
    moved = vectors.note_vectors(vectors.note_table(score.transposed(shift)))
    built, _ = store.vectors(torch.tensor([0]), torch.tensor([score.num_notes]), torch.tensor([shift]))
    order = np.lexsort((moved[:, vectors.HEIGHT], score.onset))
    np.testing.assert_allclose(built[0].numpy()[order][:, :69], moved[:, :69], atol=1e-6)


def test_transpositions_stay_in_the_spellings() -> None:
    store = NoteStore([piece()], CPU)
    random = torch.Generator().manual_seed(0)
    shifts = store.shifts(torch.zeros(500, dtype=torch.long), random)
    assert shifts.min() >= -7 and shifts.max() <= 7 and len(set(shifts.tolist())) == 15
    built, _ = store.vectors(torch.zeros(2, dtype=torch.long), torch.tensor([48, 48]), torch.tensor([-7, 7]))
    assert (built[..., :35].sum(-1) == 1).all()


def test_changes_are_told_at_the_first_note_of_an_onset_but_the_first() -> None:
    targets = change_targets([piece()], CPU).reshape(16, 3)
    assert (targets[:, 1:] == -1).all()
    assert targets[:, 0].tolist() == [-1, 0, *[1, 0] * 7]


def test_chords_of_a_new_key_are_also_told_in_the_old_one() -> None:
    rows = chord_rows([piece(), piece(1, 8)], CPU)
    assert rows.length.tolist() == [8, 4]
    assert torch.where(rows.is_change[0])[0].tolist() == [2, 4, 6]
    root_in_own, root_before = rows.wide[0, 2, :39].argmax() - 19, rows.before[0, 2, :39].argmax() - 19
    assert (root_in_own, root_before) == (0, 1)
    assert rows.wide[0, 2, -1] == 1 and rows.before[0, 2, -1] == 0
    assert torch.equal(rows.wide[0, 1], rows.before[0, 1])


def test_the_published_order_of_chords_is_type_by_type() -> None:
    order = functional_harmony.published_order(29)
    assert sorted(order.tolist()) == list(range(1276))
    assert order[42] == 14 * 44  # the tonic's major triad is the 43rd of the published relative chords
    assert order[29 * 3] == 3  # the first minor triad comes after all major ones


def test_chords_without_a_note_are_left_out_where_the_times_say_so() -> None:
    onset = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    begin, which = functional_harmony._aligned(onset, np.array([2, 4]), [1.5, 0.5, 2.0, 1.0, 1.0])
    assert begin.tolist() == [0, 2, 4] and which.tolist() == [0, 2, 3]


def test_the_same_music_is_known_in_another_key_and_its_durations_are_found() -> None:
    score, other = tiny_score(32), tiny_score(32, seed=9)
    own = piece_of("published/1", score, labelled(score))
    moved = piece_of("extra/moved", score.transposed(2), labelled(score, 2))
    others = [moved, piece_of("extra/other", other, labelled(other))]
    assert twins([own], others) == {"published/1": "extra/moved"}
    assert twins([own], others[1:]) == {}
    silent = dataclasses.replace(own, notes=dataclasses.replace(own.notes, duration=np.zeros(96)))
    assert not silent.has_durations
    assert (with_durations(silent, moved).notes.duration == 0.25).all()
    assert not with_durations(silent, others[1]).has_durations


def test_packed_pieces_are_read_as_they_were(tmp_path: Path) -> None:
    save_pieces(tmp_path / "pieces.npz", {"train": [piece(0), piece(1, 8)], "valid": [piece(2)]})
    read = load_pieces(tmp_path / "pieces.npz", "train")
    assert [each.name for each in read] == ["extra/tenth/0", "extra/tenth/1"]
    for name in vars(read[1].notes):
        assert (getattr(read[1].notes, name) == getattr(piece(1, 8).notes, name)).all()
    for name in vars(read[1].chords):
        assert (getattr(read[1].chords, name) == getattr(piece(1, 8).chords, name)).all()
    assert len(load_pieces(tmp_path / "pieces.npz", "valid")) == 1


def test_a_corpus_that_is_left_out_does_not_train_under_another_name(tmp_path: Path) -> None:
    own = [dataclasses.replace(piece(seed, 32), name=f"dcml/a/{seed}") for seed in range(3)]
    again = dataclasses.replace(own[0], name="wir/the-same")
    save_pieces(
        tmp_path / "pieces.npz", {"train": [dataclasses.replace(own[2], name="fh/2")], "extra": [*own[:2], again]}
    )
    recipe = train_modular.Recipe("modular", "MIT", {}, {}, weight_of_published=2)
    everything = train_modular.training_pieces(recipe, tmp_path / "pieces.npz", "")
    assert len(everything) == 5
    rest = train_modular.training_pieces(recipe, tmp_path / "pieces.npz", "dcml/a/0")
    assert [each.name for each in rest] == ["fh/2", "fh/2", "dcml/a/1"]


def test_pieces_whose_labels_are_of_other_notes_do_not_train_what_hears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = piece(0, 32)
    far = dataclasses.replace(piece(1, 32), chords=dataclasses.replace(own.chords, root=own.chords.root + 12))
    save_pieces(tmp_path / "pieces.npz", {"train": [own], "extra": [far], "valid": [own, far, far]})
    text = (RECIPES / "modular_debug.toml").read_text("utf-8")
    (tmp_path / "recipe.toml").write_text(f"min_label_fit = {label_fit(own) - 0.01}\n{text}", "utf-8")
    heard: list[tuple[int, int]] = []
    arguments = ["train_modular.py", "--config", str(tmp_path / "recipe.toml"), "--run", str(tmp_path / "run")]
    arguments += ["--pieces", str(tmp_path / "pieces.npz"), "--module"]
    monkeypatch.setattr(train_modular, "train", lambda task, *_: heard.append(task))
    for module in train_modular.MODULES:
        monkeypatch.setattr(sys, "argv", [*arguments, module])
        monkeypatch.setitem(train_modular.TASKS, module, lambda _, pieces, valid, *rest: (len(pieces), len(valid)))
        train_modular.main()
    assert dict(zip(train_modular.MODULES, heard)) == {
        "ctm": (1, 1), "ccm": (1, 1), "csm": (2, 3), "ktm": (2, 3), "ksm": (2, 3)
    }  # fmt: skip


def test_the_mean_of_the_weights_is_heard_and_then_put_away() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Dropout(0.5))
    mean = train_modular.RunningMean(module, 0.5)
    seen = []
    for value in (1.0, 2.0, 6.0):
        torch.nn.init.constant_(module[0].weight, value)
        mean.add()
        with mean.in_place():
            assert not module.training
            seen.append(float(module[0].weight.detach()))
        assert module.training and float(module[0].weight.detach()) == value
    # 0/10, 1/11 and 2/12 of what was there are kept, until the decay is reached
    assert seen == pytest.approx([1.0, 1 / 11 + 2 * 10 / 11, (1 / 11 + 2 * 10 / 11) / 6 + 6 * 5 / 6])
    for _ in range(40):
        mean.add()
    torch.nn.init.constant_(module[0].weight, 8.0)
    mean.add()
    with mean.in_place():
        assert float(module[0].weight.detach()) == pytest.approx(7.0)


def test_without_a_mean_the_weights_are_heard_as_they_are() -> None:
    module = torch.nn.Linear(1, 1)
    mean = train_modular.RunningMean(module, 0.0)
    for value in (1.0, 2.0):
        torch.nn.init.constant_(module.weight, value)
        mean.add()
        with mean.in_place():
            assert float(module.weight.detach()) == value


@pytest.mark.parametrize("module", ["ccm", "csm"])
def test_smoothed_labels_cost_where_chords_are_told(module: str) -> None:
    pieces, losses = [piece(0), piece(1)], []
    for smoothing in (0.0, 0.5):
        plan = train_modular.Schedule(1.0, 4, label_smoothing=smoothing, transpose=False, hide_durations=0.0)
        task = train_modular.TASKS[module](tiny_modules(), pieces, pieces, plan, CPU)
        losses.append(float(task.loss(torch.Generator().manual_seed(0))))
    assert losses[0] != pytest.approx(losses[1], abs=1e-3)


def test_a_module_learns_on_from_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pieces(tmp_path / "pieces.npz", {"train": [piece(0)], "extra": [piece(1)], "valid": [piece(0)]})
    before = Modules(ModularConfig(**tomllib.loads((RECIPES / "modular_debug.toml").read_text("utf-8"))["model"])).ktm
    save_file({key: value.contiguous() for key, value in before.state_dict().items()}, tmp_path / "ktm.safetensors")
    seen = []
    monkeypatch.setattr(train_modular, "train", lambda task, *_: seen.append(task.module.state_dict()))
    arguments = ["--config", str(RECIPES / "modular_debug.toml"), "--pieces", str(tmp_path / "pieces.npz")]
    arguments += ["--run", str(tmp_path / "run"), "--module", "ktm", "--start", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["train_modular.py", *arguments])
    train_modular.main()
    for key, value in before.state_dict().items():
        torch.testing.assert_close(seen[0][key], value)


def test_pieces_of_like_lengths_go_together() -> None:
    rows = chord_rows([piece(n, 4 if n < 20 else 64) for n in range(40)], CPU)
    random = torch.Generator().manual_seed(0)
    drawn = [train_modular._pieces(rows, 8, random) for _ in range(40)]
    assert all(len(set(each.tolist())) == 8 for each in drawn)
    assert sum(len(set(rows.length[each].tolist())) == 1 for each in drawn) > 20
    assert {n for each in drawn for n in each.tolist()} == set(range(40))


def test_the_recipe_of_the_published_sizes_has_them_and_its_modules_read(tmp_path: Path) -> None:
    recipe = train_modular.Recipe(**tomllib.loads((RECIPES / "modular_published.toml").read_text("utf-8")))
    config = ModularConfig(**recipe.model)
    assert dataclasses.replace(config, dropout=0.0) == PUBLISHED
    assert not recipe.extra and all(recipe.schedule(name, 0).stray == 0.0 for name in train_modular.MODULES)
    for name in train_modular.MODULES:
        tensors = getattr(Modules(config), name).state_dict()
        save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / f"{name}.safetensors")
    modules = assemble_modular.gathered(config, tmp_path, [piece(0)])
    analyzer = ModularAnalyzer(modules, search_of("published_fh", beam_size=5))
    score = tiny_score(4)
    labels = list(analyzer.analyze(score))
    assert labels[0].start == 0 and labels[-1].end == score.num_ticks


def test_recall_is_of_time_and_each_part_asks_for_more() -> None:
    own = piece(0, 8)
    true = modular_scores.told_by_analysis(own)
    assert modular_scores.onset_weights(own).tolist() == [0.25] * 8
    onsets = np.array([0, 2, 4, 6])
    exact = Reading(onsets, onsets + 2, true.chord[onsets], true.key[onsets], 0.0)
    assert set(modular_scores.score_of(exact, own).values()) == {1.0}
    seventh = true.chord[onsets] + [0, vectors.inverted_of(ChordType.DOMINANT_SEVENTH, 0), 1, 0]
    other_key = true.key[onsets] + [0, 0, 0, 1]
    found = modular_scores.score_of(Reading(onsets, onsets + 2, seventh, other_key, 0.0), own)
    assert found == {"root": 1.0, "type": 0.75, "inversion": 0.5, "key": 0.75, "full": 0.25}


@pytest.mark.parametrize("module", train_modular.MODULES)
def test_a_module_learns_and_is_put_together(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pieces(tmp_path / "pieces.npz", {"train": [piece(0)], "extra": [piece(1)], "valid": [piece(0)]})
    sizes = {name: 8 for name in vars(tiny_modules().config) if name.endswith("_dim")}
    lines = [f"{name} = {value}" for name, value in sizes.items()]
    steps = (
        "minutes = 1\nmax_steps = 40\nlearning_rate = 2e-2\nwarmup_steps = 1\nvalidate_every_s = 0.0\nbatch_size = 4"
    )
    config = tmp_path / "tiny.toml"
    schedules = "\n".join(f"[schedules.{name}]\n{steps}" for name in train_modular.MODULES)
    config.write_text("\n".join(['name = "modular"', 'licence = "MIT"', "[model]", *lines, schedules]), "utf-8")
    common = ["--config", str(config), "--pieces", str(tmp_path / "pieces.npz"), "--run", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["train_modular.py", *common, "--module", module])
    train_modular.main()
    log = [json.loads(line) for line in (tmp_path / "run" / module / "log.jsonl").read_text("utf-8").splitlines()]
    assert log[-1]["valid_loss"] < log[0]["valid_loss"]
    for name in train_modular.MODULES:
        target = tmp_path / "run" / f"{name}.safetensors"
        if not target.exists():
            save_file({k: v.contiguous() for k, v in getattr(tiny_modules(), name).state_dict().items()}, target)
    monkeypatch.setattr(sys, "argv", ["assemble_modular.py", *common, "--search", "published_fh"])
    assemble_modular.main()
    analyzer = load_modular(tmp_path / "run" / "export" / "modular")
    assert analyzer.config.key_sequence_exponent == 30.0
    assert analyzer.modules.icm.log_prior.exp()[0].argmax() == 14 * 44
    assert len(analyzer.analyze(tiny_score(4)))
