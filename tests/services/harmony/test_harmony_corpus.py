"""The recipe of the corpora: works have one name whatever the edition, and no held-out work trains under another."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from stretto_harmony.scores.labels import Analysis, ChordType, HarmonyLabel, Key
from stretto_harmony.scores.packed import read_piece, write_piece
from stretto_harmony.scores.pitch import spelled_name
from stretto_harmony.scores.score import Score
from written import score_of

RECIPES = Path(__file__).parents[3] / "services" / "harmony" / "recipes"


@pytest.fixture(scope="module")
def recipes() -> ModuleType:
    sys.path.insert(0, str(RECIPES))
    try:
        return importlib.import_module("prepare_harmony")
    finally:
        sys.path.remove(str(RECIPES))


@pytest.mark.parametrize(
    ("dcml", "path"),
    [
        (("ABC", "n01op18-1_03"), "Quartets/Beethoven,_Ludwig_van/Op18_No1/3"),
        (("ABC", "n10op74_04"), "Quartets/Beethoven,_Ludwig_van/Op074/4"),
        (("beethoven_piano_sonatas", "23-1"), "Piano_Sonatas/Beethoven,_Ludwig_van/Op057(Appassionata)/1"),
        (("beethoven_piano_sonatas", "01-4"), "Piano_Sonatas/Beethoven,_Ludwig_van/Op002_No1/4"),
        (("beethoven_piano_sonatas", "26-2"), "Piano_Sonatas/Beethoven,_Ludwig_van/Op081a(Les_Adieux)/2"),
        (("mozart_piano_sonatas", "K331-1"), "Piano_Sonatas/Mozart,_Wolfgang_Amadeus/K331/1"),
    ],
)
def test_editions_of_one_work_share_its_name(recipes: ModuleType, dcml: tuple[str, str], path: str) -> None:
    works = sys.modules["harmony_works"]
    assert works.work_of_dcml(*dcml) == works.work_of_path(path)


def test_the_trees_of_before_and_of_today_name_the_same_works(recipes: ModuleType) -> None:
    works = sys.modules["harmony_works"]
    before = "Etudes_and_Preludes/Bach,_Johann_Sebastian/The_Well-Tempered_Clavier_I/3"
    today = "Keyboard_Other/Bach,_Johann_Sebastian/The_Well-Tempered_Clavier_I/03"
    assert works.work_of_path(before) == works.work_of_path(today) == "bach/wtc1/3"
    assert works.work_of_path(today.replace("03", "03_fugue")) != works.work_of_path(today)
    chorales = "Early_Choral/Bach,_Johann_Sebastian/Chorales"
    assert works.work_of_path(f"{chorales}/4") == works.work_of_path(f"{chorales}/004") == "bach/chorale/4"


def tune(seed: int, num_notes: int = 120, move: int = 0) -> Score:
    """Two voices that wander over a scale, a draw of their own for each seed."""
    random = np.random.default_rng(seed)
    scale = [0, 2, 4, -1, 1, 3, 5]
    places = np.cumsum(random.integers(-3, 4, (2, num_notes)), axis=1) % 7
    notes = [
        (0.5 * place, 0.5, spelled_name(scale[step] + move), octave)
        for octave, voice in zip((5, 3), places, strict=True)
        for place, step in enumerate(voice)
    ]
    return score_of(notes, num_measures=num_notes // 8)


def written(out: Path, path: str, score: Score, work: str, split: str) -> Path:
    label = HarmonyLabel(0, score.num_ticks, Key(0), "I", Key(0), 0, ChordType.MAJOR, 0)
    meta = {"work": work, "augmentednet": split, "may_train": split not in ("test", "validation")}
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    write_piece(out / path, score, Analysis((label,)), meta)
    return out / path


def test_a_fingerprint_knows_a_piece_in_another_key_and_no_other_piece(recipes: ModuleType) -> None:
    twins = sys.modules["harmony_twins"]
    prints = [twins.fingerprint(score) for score in (tune(1), tune(1).transposed(2), tune(2))]
    assert twins.shared(prints[0], prints[1]) == 1.0
    assert twins.shared(prints[0], prints[2]) < twins.MIN_SHARED
    assert twins.shared(prints[0], frozenset()) == 0.0
    assert twins.fingerprint(score_of([])) == frozenset()


def test_a_held_out_work_trains_under_no_other_name(recipes: ModuleType, tmp_path: Path) -> None:
    written(tmp_path, "augmentednet/test/a.npz", tune(1), "someone/op1", "test")
    twin = written(tmp_path, "dcml/corpus/b.npz", tune(1).transposed(-1), "someone/early-version", "")
    other = written(tmp_path, "wir/c.npz", tune(2), "someone/op2", "")
    assert recipes.leaks(tmp_path) == ["dcml/corpus/b.npz"]
    recipes.mark_twins(tmp_path)
    assert recipes.leaks(tmp_path) == []
    assert not read_piece(twin)[2]["may_train"]
    assert read_piece(twin)[2]["twin"] == "augmentednet/test/a.npz"
    assert read_piece(other)[2]["may_train"]
    assert json.loads((tmp_path / "report_twins.json").read_text()) == {
        "augmentednet/test/a.npz": ["dcml/corpus/b.npz"]
    }


def test_another_edition_by_name_is_a_leak(recipes: ModuleType, tmp_path: Path) -> None:
    written(tmp_path, "augmentednet/validation/a.npz", tune(1), "someone/op1", "validation")
    written(tmp_path, "dcml/corpus/b.npz", tune(3), "someone/op1", "training")
    assert recipes.leaks(tmp_path) == ["dcml/corpus/b.npz"]


def test_a_first_ending_has_the_numbers_of_the_second(recipes: ModuleType) -> None:
    bps = sys.modules["harmony_bps"]
    once = [1, 2, 3, 4, 5, 6, 7]
    assert bps._numbers(once) == {bar: str(bar) for bar in range(8)}
    played = [*range(1, 51), *range(2, 50), *range(51, 60)]
    numbers = bps._numbers(played)
    assert (numbers[49], numbers[50], numbers[51], numbers[59]) == ("49", "50a", "50", "58")
