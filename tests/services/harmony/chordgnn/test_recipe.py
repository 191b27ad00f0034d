"""The recipe of ChordGNN: packed pieces, stretches of them on the device, and a run from end to end."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from random_scores import chorale

RECIPES = Path(__file__).resolve().parents[4] / "services" / "harmony" / "recipes"
sys.path.append(str(RECIPES))
import choose_chordgnn_decoding  # noqa: E402
import chordgnn_pieces  # noqa: E402
import train_chordgnn  # noqa: E402
from stretto_harmony.models.chordgnn.analyzer import ChordGnnAnalyzer  # noqa: E402
from stretto_harmony.models.chordgnn.batch import collate  # noqa: E402
from stretto_harmony.models.chordgnn.config import NUM_QUALITIES, ChordGnnConfig  # noqa: E402
from stretto_harmony.models.chordgnn.decoding import DecodingOptions  # noqa: E402
from stretto_harmony.models.chordgnn.network import ChordGnn  # noqa: E402
from stretto_harmony.models.chordgnn.parts import NO_LABEL, onset_parts  # noqa: E402
from stretto_harmony.models.chordgnn.weights import load_chordgnn  # noqa: E402
from stretto_harmony.scores.packed import write_piece  # noqa: E402

META = {
    "training": {"may_train": True, "augmentednet": "training"},
    "validation": {"may_train": False, "augmentednet": "validation"},
    "test": {"may_train": False, "augmentednet": "test"},
    "a": {"may_train": False, "augmentednet": "", "twin": "augmentednet/test/piece5.npz"},
}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    for seed, group in enumerate(
        ["augmentednet/training"] * 4 + ["augmentednet/validation", "augmentednet/test", "dcml/a"]
    ):
        folder = tmp_path / "corpus" / group
        folder.mkdir(parents=True, exist_ok=True)
        write_piece(folder / f"piece{seed}.npz", *chorale(seed), META[group.partition("/")[2]])
    chordgnn_pieces.main(["--corpus", str(tmp_path / "corpus"), "--out", str(tmp_path / "pieces.npz")])
    return tmp_path / "pieces.npz"


def test_packed_pieces_come_back_as_they_were(packed: Path) -> None:
    pieces, numerals = chordgnn_pieces.read(packed)
    assert [(piece.group, piece.name) for piece in pieces][-2:] == [
        ("augmentednet/validation", "piece4"),
        ("dcml/a", "piece6"),
    ]
    assert [piece.held_out for piece in pieces] == ["test", *[""] * 4, "validation", "test"]
    score, analysis = chorale(4)
    piece = pieces[-2]
    assert (piece.graph.fifths == score.fifths).all() and piece.num_ticks == score.num_ticks
    expected = onset_parts(analysis, piece.graph.onset_time, {numeral: n for n, numeral in enumerate(numerals)})
    assert all((piece.parts[name] == expected[name]).all() for name in chordgnn_pieces.PARTS)


def test_a_stretch_of_a_whole_piece_is_the_piece(packed: Path) -> None:
    pieces, _ = chordgnn_pieces.read(packed)
    stretches = chordgnn_pieces.Stretches(pieces, NUM_QUALITIES, torch.device("cpu"))
    starts = stretches.piece_starts[[2, 5]] + 3
    batch, parts, gap = stretches.draw(starts, 999, torch.tensor([0, 2]), torch.zeros(2, dtype=torch.bool))
    chosen = [pieces[2], pieces[5]]
    shifts = [int(batch.fifths[0]) - int(pieces[2].graph.fifths[0])]
    shifts.append(int(batch.fifths[pieces[2].graph.num_notes]) - int(pieces[5].graph.fifths[0]))
    expected = collate([piece.graph for piece in chosen], shifts)
    for field in dataclasses.fields(expected):
        found, wanted = getattr(batch, field.name), getattr(expected, field.name)
        pairs = zip(found, wanted) if field.name == "edges" else [(found, wanted)]
        assert all(torch.equal(each, other) for each, other in pairs), field.name
    moved = chorale_parts(pieces[2], shifts[0]), chorale_parts(pieces[5], shifts[1])
    for name in ("key", "root", "bass", "chord", "degree"):
        assert parts[name].tolist() == np.concatenate([each[name] for each in moved]).tolist()
    assert int(gap.sum()) == sum(piece.num_ticks for piece in chosen)


def chorale_parts(piece: chordgnn_pieces.Piece, shift: int) -> dict[str, np.ndarray]:
    _, analysis = chorale(int(piece.name.removeprefix("piece")))
    return onset_parts(analysis.transposed(shift), piece.graph.onset_time, {})


def test_a_stretch_has_no_edge_out_of_itself(packed: Path) -> None:
    pieces, _ = chordgnn_pieces.read(packed)
    stretches = chordgnn_pieces.Stretches(pieces, NUM_QUALITIES, torch.device("cpu"))
    batch, _, _ = stretches.draw(torch.tensor([4, 30]), 7, torch.zeros(2, dtype=torch.long), torch.ones(2) > 0)
    assert batch.lengths.tolist() == [7, 7] and len(batch.fifths) == 42
    for edge in batch.edges:
        assert ((edge[0] < 21) == (edge[1] < 21)).all()
    assert batch.edges[1].shape[1] == 2 * 6 * 9
    assert int(batch.bass.max()) < 42 and (batch.onset[batch.bass] == torch.arange(14)).all()
    assert ((batch.span_bass < 21) == (torch.arange(14) < 7)).all() and int(batch.span_bass.min()) >= 0


def test_a_span_whose_lowest_note_is_cut_off_falls_back_to_the_bass(packed: Path) -> None:
    pieces, _ = chordgnn_pieces.read(packed)
    stretches = chordgnn_pieces.Stretches(pieces, NUM_QUALITIES, torch.device("cpu"))
    whole = torch.from_numpy(pieces[0].graph.span_bass)
    for first in range(pieces[0].graph.num_onsets - 3):
        batch, _, _ = stretches.draw(torch.tensor([first]), 3, torch.zeros(1, dtype=torch.long), torch.ones(1) > 0)
        note = int(stretches.note_starts[first])
        wanted = whole[:, first : first + 3] - note
        inside = (wanted >= 0) & (wanted < len(batch.fifths))
        assert torch.equal(batch.span_bass, torch.where(inside, wanted, batch.bass))


def test_emphasis_weighs_the_loss_of_its_part(packed: Path) -> None:
    pieces, numerals = chordgnn_pieces.read(packed)
    chordgnn_pieces.recount(pieces, numerals, chordgnn_pieces.choose_numerals(pieces, numerals, 8))
    device = torch.device("cpu")
    stretches = chordgnn_pieces.Stretches(pieces, NUM_QUALITIES, device)
    totals = []
    for emphasis in ({}, {"inversion": 1.0}, {"inversion": 3.0}, {"inversion": 5.0}):
        torch.manual_seed(0)
        recipe = train_chordgnn.Recipe("x", "y", 1.0, {}, batch_size=2, num_onsets=8, emphasis=emphasis)
        config = ChordGnnConfig(num_numerals=9, hidden_dim=8, onset_dim=8, recurrent_dim=6, post_dim=0)
        favour = train_chordgnn.favour_of(pieces, recipe, device)
        trainer = train_chordgnn.Trainer(recipe, ChordGnn(config), ChordGnn(config), stretches, favour)
        totals.append(float(trainer.step(0, 0.0)))
    assert totals[0] == totals[1]
    assert totals[2] > totals[1] + 0.1
    assert totals[3] - totals[2] == pytest.approx(totals[2] - totals[1], rel=1e-3)


def test_parts_that_leave_the_range_are_not_told() -> None:
    parts = {name: torch.tensor([34, NO_LABEL]) for name in ("key", "tonicised", "root", "bass")}
    parts["chord"] = torch.tensor([3, NO_LABEL])
    moved = chordgnn_pieces.move_parts(parts, torch.tensor([1, 1]), 15)
    assert moved["root"].tolist() == [NO_LABEL, NO_LABEL] and moved["key"].tolist() == [NO_LABEL, NO_LABEL]
    assert moved["chord"].tolist() == [7 * 15 + 3, NO_LABEL]


def test_the_recipe_learns_and_exports(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = ["--config", str(RECIPES / "chordgnn_debug.toml"), "--pieces", str(packed), "--run", str(run)]
    train_chordgnn.main(options)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert log[-1]["valid_first"] > 0.6
    assert log[-1]["valid_quality"] > 0.6
    score, _ = chorale(4)
    analysis = ChordGnnAnalyzer(load_chordgnn(run / "export" / "chordgnn")).analyze(score)
    assert {label.quality.value for label in analysis} <= {"major", "minor"}
    chooses_a_decoding_no_worse_than_the_defaults(run / "export" / "chordgnn", packed, capsys)


def chooses_a_decoding_no_worse_than_the_defaults(
    weights: Path, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    choose_chordgnn_decoding.main(["--weights", str(weights), "--pieces", str(packed), "--moves", "0", "0,1"])
    *told, chosen = capsys.readouterr().out.splitlines()
    defaults = [float(line.split(": ")[1].split()[0]) for line in told if "with the defaults" in line]
    assert [line.split(": ")[0] for line in told if "defaults" in line] == [
        "post 0.0, moves (0,)",
        "post 0.0, moves (0, 1)",
    ]
    assert json.loads(chosen)["right"] >= max(defaults) > 0.3
    assert json.loads(chosen)["moves"] in ([0], [0, 1])


def test_weights_are_refined_to_the_notch_that_reads_more(monkeypatch: pytest.MonkeyPatch) -> None:
    best = {"bass": 1.0, "key": 0.0, "chord": 3.0}

    def share(told: object, analyzer: object, options: DecodingOptions) -> float:
        return -sum(abs(getattr(options, name) - value) for name, value in best.items())

    monkeypatch.setattr(choose_chordgnn_decoding, "searched", share)
    start = DecodingOptions(key=0.0, bass=0.75, chord=3.0, root=0.0)
    found = choose_chordgnn_decoding.refine_weights([], None, start)
    assert found == dataclasses.replace(start, bass=1.0)


def test_a_corpus_left_out_trains_on_the_others_of_dcml_alone() -> None:
    groups = ["dcml/a", "dcml/b", "dcml/b", "augmentednet/training", "augmentednet/test"]
    held_out = ["", "", "validation", "", "test"]
    pieces = [
        chordgnn_pieces.Piece(str(n), group, held, None, {}, 0) for n, (group, held) in enumerate(zip(groups, held_out))
    ]
    recipe = train_chordgnn.Recipe("x", "y", 1.0, {})
    train, valid = train_chordgnn.split(pieces, recipe, "dcml/a")
    assert {piece.group for piece in train + valid} == {"dcml/b"} and len(train) == 1
    train, valid = train_chordgnn.split(pieces, recipe, "")
    assert [piece.name for piece in train] == ["0", "1", "3"]
    train, valid = train_chordgnn.split(pieces, dataclasses.replace(recipe, with_validation=True), "")
    assert [piece.name for piece in train] == ["0", "1", "2", "3"]


def test_a_weight_that_is_learnt_weighs_a_hard_part_less() -> None:
    torch.manual_seed(0)
    loss = train_chordgnn.WeighedLoss(["hard", "easy"])
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss({"hard": torch.tensor(8.0), "easy": torch.tensor(0.5)}).backward()
        optimizer.step()
    assert loss.spread["hard"] > 1.2 * loss.spread["easy"]


def test_label_smoothing_leaves_out_gaps() -> None:
    logits = {"key": torch.randn(3, 70)}
    parts = {"key": torch.tensor([4, NO_LABEL, 9])}
    weight = torch.tensor([1.0, 5.0, 1.0])
    found = train_chordgnn.part_losses(logits, parts, weight, 0.1)["key"]
    kept = torch.nn.functional.cross_entropy(logits["key"][[0, 2]], parts["key"][[0, 2]], label_smoothing=0.1)
    torch.testing.assert_close(found, kept)
