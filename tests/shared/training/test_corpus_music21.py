"""music21's corpus as a source: what is read of a score, what is left out, and which split a work belongs to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from stretto_shared.training.corpus import library, music21_scores, vocabulary
from stretto_shared.training.corpus.captions import make_captions
from stretto_shared.training.corpus.clips import describe
from stretto_shared.training.corpus.instruments import INSTRUMENTS, names_of
from stretto_shared.training.corpus.library import ScoreLibrary
from stretto_shared.training.corpus.orchestration import arrange
from stretto_shared.training.corpus.plans import ENSEMBLE, ENSEMBLE_PLANS, REPERTOIRES
from stretto_shared.training.corpus.quotations import RUN_LENGTH, Quotations
from stretto_shared.training.corpus.room import draw_room
from stretto_shared.training.corpus.scores import Notes, Piece, sorted_notes
from stretto_shared.training.corpus.shelves import SHELVES, Shelf, genre_of_tune
from stretto_shared.training.corpus.splits import split_of

JIG = """X: 7
T:The Lilting Fisher, Jig
M:6/8
L:1/8
O:Irland
K:D
|:fef afe|dBB AFA|BdB AFA|Bee e2g|fef afe|dBB AFA|BdB AFA|Bdd d3:|
|:faa fbb|faa fed|faa fbb|afd e2d|faa fbb|faa fed|BdB AFA|Bdd d3:|
"""


def line(seed: int, length: int, lowest: float) -> Notes:
    rng = np.random.default_rng(seed)
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12], dtype=float)
    return sorted_notes([(float(beat), 1.0, lowest + scale[int(rng.integers(8))], 80.0) for beat in range(length)])


def polyphony(source: str, num_parts: int, name: str, seed: int) -> Piece:
    roles = ["melody"] if num_parts == 1 else [f"voice {number + 1}" for number in range(num_parts)]
    parts = {role: line(seed + number, 64, 72.0 - 5 * number) for number, role in enumerate(roles)}
    return Piece(source, name, parts, 90.0, np.arange(0.0, 65.0, 4.0), "Renaissance madrigal")


def ensemble_library() -> ScoreLibrary:
    pieces = {music21_scores.TUNES: [polyphony(music21_scores.TUNES, 1, "tune/a", 0)]}
    for count, source in music21_scores.ENSEMBLES.items():
        pieces[source] = [polyphony(source, count, f"work {count}/1", 10 * count)]
    return ScoreLibrary(pieces)


def test_a_tune_is_read_in_the_beats_of_its_metre_with_its_repeats(tmp_path: Path) -> None:
    (tmp_path / "irishBook").mkdir()
    (tmp_path / "irishBook" / "one.abc").write_text("% a book\n\n" + JIG, encoding="utf-8")
    (piece,) = music21_scores.read_shelf(tmp_path, Shelf("irishBook/*.abc", None, 5, 4.5))
    assert (piece.source, piece.name, piece.genre) == (music21_scores.TUNES, "liltingfisher/irishBook-1", "Irish jig")
    assert music21_scores.work_of(piece.name) == "liltingfisher"
    melody = piece.parts["melody"]
    assert melody[:4, :3] == pytest.approx(
        np.array([[0, 1 / 3, 78], [1 / 3, 1 / 3, 76], [2 / 3, 1 / 3, 78], [1, 1 / 3, 81]])
    )
    assert piece.bar_starts.tolist() == [2.0 * bar for bar in range(33)]
    assert piece.tempo_bpm == pytest.approx(60.0 * 4.5 / (len(melody) / 64.0), rel=0.05)


def test_files_that_reserve_rights_and_tunes_that_are_too_short_are_left_out(tmp_path: Path) -> None:
    shelf = Shelf("book/*.abc", None, 5, 4.5)
    (tmp_path / "book").mkdir()
    path = tmp_path / "book" / "one.abc"
    path.write_text("% All Rights Reserved\n\n" + JIG, encoding="utf-8")
    assert music21_scores.read_shelf(tmp_path, shelf) == []
    path.write_text("\n".join(JIG.splitlines()[:-1]).replace("|:", "|").replace(":|", "|]"), encoding="utf-8")
    assert music21_scores.read_shelf(tmp_path, shelf) == []
    path.write_text(JIG, encoding="utf-8")
    assert len(music21_scores.read_shelf(tmp_path, shelf)) == 1


def test_a_score_in_two_metres_is_two_pieces_of_one_work() -> None:
    from music21 import meter, note, stream

    score = stream.Score()
    for top in (72, 60, 48):
        part = stream.Part()
        for bar in range(40):
            measure = stream.Measure(number=bar + 1)
            if bar in (0, 20):
                measure.append(meter.TimeSignature("4/4" if bar == 0 else "4/2"))
            for step in range(4):
                measure.append(note.Note(top - step, quarterLength=1.0 if bar < 20 else 2.0))
            part.append(measure)
        score.append(part)
        part.offset = 0.0
    for part in score.parts:
        score.setElementOffset(part, 0.0)
    first, second = music21_scores.read_score(score, "composer work/1", "Renaissance", 2.8)
    assert (first.name, second.name) == ("composer work/1-1", "composer work/1-2")
    assert first.source == second.source == "music21 trios"
    for piece in (first, second):
        assert list(piece.parts) == ["voice 1", "voice 2", "voice 3"]
        assert piece.parts["voice 1"][:3, :3].tolist() == [[0, 1, 72], [1, 1, 71], [2, 1, 70]]
        assert piece.bar_starts.tolist() == [4.0 * bar for bar in range(21)]


def test_parsed_pieces_come_back_from_the_cache_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [polyphony("music21 quartets", 4, "quartet/1", 3), polyphony(music21_scores.TUNES, 1, "tune/b", 4)]
    assert made[0].tempo_bpm < music21_scores.MAX_TEMPO_BPM
    monkeypatch.setattr(music21_scores, "SHELVES", SHELVES[:1])
    monkeypatch.setattr(music21_scores, "read_shelf", lambda corpus, shelf: made)
    cache = tmp_path / "music21"
    first = music21_scores.read_music21(cache)
    monkeypatch.setattr(music21_scores, "read_shelf", lambda corpus, shelf: pytest.fail("parsed again"))
    for piece, again, once in zip(made, music21_scores.read_music21(cache), first, strict=True):
        assert (again.source, again.name, again.tempo_bpm, again.genre) == (
            piece.source,
            piece.name,
            piece.tempo_bpm,
            piece.genre,
        )
        for role, notes in piece.parts.items():
            assert np.array_equal(again.parts[role], notes) and np.array_equal(once.parts[role], notes)
        assert np.array_equal(again.bar_starts, piece.bar_starts)


def splits_of(pieces: Sequence[Piece], others: Sequence[tuple[str, Piece]] = ()) -> dict[str, dict[str, list[Piece]]]:
    by_split: dict[str, dict[str, list[Piece]]] = {split: {"jsb": []} for split in ("train", "valid", "test")}
    for split, piece in others:
        by_split[split]["jsb"].append(piece)
    library._add_music21(by_split, pieces)
    return by_split


def test_no_work_is_in_two_splits() -> None:
    pieces = [
        polyphony("music21 quartets", 4, f"work {work}/{movement}", 1000 * work + 10 * movement)
        for work in range(120)
        for movement in range(2)
    ]
    splits: dict[str, set[str]] = {}
    for split, sources in splits_of(pieces).items():
        for piece in sources.get("music21 quartets", []):
            splits.setdefault(music21_scores.work_of(piece.name), set()).add(split)
    assert len(splits) == 120
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "valid", "test"}


def test_a_piece_that_shares_a_tune_with_another_split_is_left_out() -> None:
    heldout = Piece("jsb", "chorale", {"soprano": line(5, 40, 60.0)}, 80.0, np.arange(0.0, 40.0, 4.0))
    same = polyphony(music21_scores.TUNES, 1, "by another name/x", 6)
    tune = heldout.parts["soprano"][8:30] + np.array([2.0, 0.0, 7.0, 0.0])
    same = Piece(
        same.source, same.name, {"melody": sorted_notes([*same.parts["melody"][:2], *tune])}, 90.0, same.bar_starts
    )
    assert split_of("music21", music21_scores.work_of(same.name)) == "train"
    assert splits_of([same], [("test", heldout)])["train"].get(music21_scores.TUNES, []) == []
    assert splits_of([same], [("train", heldout)])["train"][music21_scores.TUNES] == [same]


def test_a_heldout_piece_with_a_training_tune_or_a_shared_beat_is_left_out() -> None:
    def piece(name: str, seed: int, transposed: float = 0.0) -> Piece:
        notes = line(seed, 40, 60.0) + np.array([0.0, 0.0, transposed, 0.0])
        return Piece("pop909", name, {"melody": sorted_notes(notes)}, 80.0, np.arange(0.0, 40.0, 4.0))

    beat = Piece("groove", "drummer1/eval_session/3", {"drums": line(9, 40, 36.0)}, 80.0, np.zeros(1))
    other = Piece("groove", "drummer1/session1/3", {"drums": line(9, 40, 36.0)}, 80.0, np.zeros(1))
    by_split = {
        "train": {"pop909": [piece("a", 1)], "groove": [beat]},
        "valid": {"pop909": [piece("b", 1, 3.0), piece("c", 2)], "groove": [other]},
        "test": {"pop909": [piece("d", 3)], "groove": [beat, other]},
    }
    library._leave_out_known(by_split)
    kept = {split: [p.name for pieces in sources.values() for p in pieces] for split, sources in by_split.items()}
    assert kept == {"train": ["a", beat.name], "valid": ["c", other.name], "test": ["d", other.name]}


def test_scales_and_broken_chords_are_no_tunes() -> None:
    scale = sorted_notes([(float(step), 1.0, 40.0 + 2 * step, 80.0) for step in range(20)])
    broken = sorted_notes([(float(step), 1.0, 60.0 + (0, 4, 7, 4)[step % 4], 80.0) for step in range(40)])
    known = Quotations()
    for notes in (scale, broken):
        known.add("test", Piece("jsb", "x", {"soprano": notes}, 80.0, np.zeros(0)))
        assert not known.in_other_split("train", Piece("jsb", "y", {"soprano": notes}, 80.0, np.zeros(0)))
    assert len(scale) > RUN_LENGTH


def test_ensembles_play_every_part_within_range_and_captions_name_them_truly() -> None:
    rng, pieces = np.random.default_rng(2), ensemble_library()
    ranges = {instrument.program: instrument for instrument in INSTRUMENTS}
    textures, quartets = set(), 0
    for index in range(80):
        arrangement = arrange(pieces, rng, ENSEMBLE)
        textures.add(arrangement.plan)
        plan = next(plan for plan in ENSEMBLE_PLANS if plan.name == arrangement.plan)
        assert len(arrangement.parts) == len(plan.roles)
        for part in arrangement.parts:
            assert part.notes[:, 2].min() >= ranges[part.program].low
            assert part.notes[:, 2].max() <= ranges[part.program].high
        record = describe(arrangement, list(arrangement.parts), draw_room(rng), "timgm6mb", "train", f"e-{index}")
        families = {use.family for use in record.instruments}
        for caption in make_captions(record, 0):
            found = re.search(r"(string|brass|saxophone|flute) (trio|quartet|quintet)", caption)
            if found:
                quartets += 1
                assert families == {{"string": "strings"}.get(found[1], found[1])}
                assert len(plan.roles) == {"trio": 3, "quartet": 4, "quintet": 5}[found[2]]
            else:
                names = {name for use in record.instruments for name in names_of(use.program, use.family)}
                names |= {name for family in families for name in vocabulary.FAMILY_NAMES.get(family, ())}
                assert any(name in caption.lower() for name in map(str.lower, names)), caption
            assert not re.search("chorale|hymn|melody over", caption)
    assert textures == {plan.name for plan in ENSEMBLE_PLANS}
    assert quartets > 10


def test_repertoires_never_share_shards_or_draws() -> None:
    repertoires = list(REPERTOIRES.values())
    assert sorted(repertoire.first_shard for repertoire in repertoires) == [0, 1000, 2000, 3000]
    assert len({repertoire.stream for repertoire in repertoires}) == len(repertoires)
    assert ENSEMBLE.sources == set(music21_scores.SOURCES)
    assert not any(repertoire.sources & ENSEMBLE.sources for repertoire in repertoires if repertoire is not ENSEMBLE)
    assert not any("-" in repertoire.name for repertoire in repertoires)


def test_genres_of_tunes_follow_their_own_words() -> None:
    assert genre_of_tune("ryansMammoth", "T:Acacia -- Reel\nR:reel\n") == "traditional reel"
    assert genre_of_tune("oneills1850", "T:The Pretty Maid\nM:3/4\n") == "Irish folk"
    assert genre_of_tune("essenFolksong", "T:Reel\nO: Europa, Mitteleuropa, Deutschland\n") == "German folk"
    assert genre_of_tune("essenFolksong", "T:X\n") == "folk"
