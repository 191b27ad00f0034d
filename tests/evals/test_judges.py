from collections.abc import Sequence

import numpy as np
import pytest
from judges import JOINT, NUM_DIMS, YAMNET, Embedded, distances, noise, own_and_others


def clips(centre: float, count: int = 12) -> Embedded:
    random = np.random.default_rng(0)

    def rows(num_rows: int, dim: int) -> Sequence[np.ndarray]:
        return [centre + random.standard_normal((num_rows, dim)) for _ in range(count)]

    return Embedded({YAMNET: rows(5, 32), JOINT: rows(1, 16)})


def test_a_set_like_the_reference_is_nearer_than_one_unlike_it_in_both_spaces() -> None:
    found = distances(clips(0.0, 40), {"like": clips(0.1), "unlike": clips(2.0)})
    assert set(found) == set(NUM_DIMS)
    for space in found.values():
        assert space["like"].value < space["unlike"].value
        assert space["like"].interval[1] < space["unlike"].interval[0]


def test_few_references_take_fewer_axes() -> None:
    assert distances(clips(0.0, 4), {"x": clips(0.0)})[JOINT]["x"].value >= 0


def test_own_text_is_told_from_the_others() -> None:
    texts = np.eye(3)
    clips = np.array([[1.0, 0, 0], [0, 0.6, 0.8], [0, 0, 1]])
    own, others = own_and_others(texts, clips)
    assert own.tolist() == [1.0, 0.6, 1.0]
    assert others == pytest.approx([0.0, 0.4, 0.0])
    with pytest.raises(ValueError, match="two texts"):
        own_and_others(texts[:1], clips[:1])


def test_noise_has_its_colour_and_level() -> None:
    for colour, fall_db in (("white", 0.0), ("pink", 10 * np.log10(10))):
        samples = noise(colour, 4.0, 0).samples[0].astype(float)
        assert 20 * np.log10(samples.std()) == pytest.approx(-20, abs=0.2)
        power = np.abs(np.fft.rfft(samples)) ** 2
        low, high = power[4 * 300 : 4 * 400].mean(), power[4 * 3000 : 4 * 4000].mean()
        assert 10 * np.log10(low / high) == pytest.approx(fall_db, abs=1.5)
    assert not np.array_equal(noise("white", 0.1, 0).samples, noise("white", 0.1, 1).samples)
    with pytest.raises(ValueError, match="brown"):
        noise("brown", 1.0, 0)
