from pathlib import Path

import numpy as np
import pytest
from quality.beats import PUBLISHED, given, is_tuned_on, metre_of, of_madmom


def test_the_metre_is_that_of_most_bars_in_time() -> None:
    assert metre_of(np.array([3, 4, 1, 2, 3, 4, 1, 2, 1, 2, 1])) == 2  # two bars of 2 against one of 4: in time a tie
    assert metre_of(np.array([1, 2, 3, 1, 2, 3, 1, 2, 1])) == 3
    assert metre_of(np.array([2, 3, 1, 2])) == 0


def test_what_madmom_wrote_is_read_as_beats() -> None:
    heard = of_madmom({"beats": [[0.5, 2], [1.0, 3], [1.5, 1]], "onsets": [0.1, 0.7]})
    assert heard.beats.beat_s.tolist() == [0.5, 1.0, 1.5] and heard.beats.downbeat_s.tolist() == [1.5]
    assert heard.beats.numerator == 3 and heard.onset_s.tolist() == [0.1, 0.7]
    nothing = of_madmom({"beats": [], "onsets": []})
    assert len(nothing.beats.beat_s) == 0 and nothing.beats.numerator == 0


@pytest.mark.parametrize("count", [2000])
def test_half_of_the_tracks_are_not_tuned_on(count: int) -> None:
    share = np.mean([is_tuned_on(f"set/track{number}") for number in range(count)])
    assert share == pytest.approx(0.5, abs=0.05)


def test_the_decoder_is_told_beside_madmoms_on_the_same_activations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    true_s = np.arange(0.5, 30.0, 0.5)
    activation = np.zeros(3000, np.uint8)
    activation[np.round(100 * true_s).astype(int)] = 255
    kept, late = {}, {}
    for corpus in PUBLISHED:
        for number in range(4):
            name = f"{corpus}/{number}"
            kept[f"{name}/activation"] = activation
            kept[f"{name}/beats"] = np.column_stack([true_s, np.ones_like(true_s)])
            late[name] = true_s + 0.2 if corpus == "smc" else true_s
    np.savez(tmp_path / "activations.npz", **kept)
    np.savez(tmp_path / "madmom.npz", **late)

    tables, numbers, passed = given(tmp_path / "activations.npz", tmp_path / "madmom.npz", 0)
    assert numbers["smc"]["ours"]["f"] == pytest.approx(1.0, abs=0.02)
    assert (numbers["smc"]["madmom's"]["f"], numbers["simac"]["madmom's"]["f_from_5_s"]) == (0.0, 1.0)
    assert numbers["smc"]["ours above madmom's, not tuned on"][1] > 0.9
    assert all(passed.values()) and len(passed) == 12
    assert [row[3] for row in tables[0].rows[1:3]] == ["ours", "madmom's"]

    others = {name: each + 0.2 if name.endswith("beats") else each for name, each in kept.items()}
    np.savez(tmp_path / "others.npz", **others)
    _, _, passed = given(tmp_path / "others.npz", tmp_path / "madmom.npz", 0)
    of_smc = [holds for claim, holds in passed.items() if claim.startswith("smc")]
    assert of_smc == [False, False]  # madmom's are right there, and ours are not

    _, numbers, passed = given(tmp_path / "activations.npz", tmp_path / "none.npz", 2)
    assert len(passed) == 6 and set(numbers["smc"]) == {"tracks", "published", "ours"}
    assert "madmom_decoder.py" in capsys.readouterr().err
