"""The play-out account: what a listener hears of chunks that come at given seconds."""

import numpy as np
import pytest
from stretto_client.bench.playout import Arrival, Playout, play_out


def played(*chunks: tuple[float, float], buffer_s: float = 0.0, cut_at_s: float | None = None) -> Playout:
    playout = play_out([Arrival(*chunk) for chunk in chunks], buffer_s=buffer_s, cut_at_s=cut_at_s)
    assert playout is not None
    return playout


def test_a_stream_without_audio_has_no_account() -> None:
    assert play_out([]) is None
    assert play_out([], buffer_s=1.0, cut_at_s=5.0) is None


def test_audio_that_comes_in_time_is_heard_without_an_underrun() -> None:
    playout = played((2.0, 1.0), (2.5, 1.0), (4.0, 0.5))  # the last comes just as the first two have been played
    assert (playout.underrun_count, playout.underrun_s) == (0, 0.0)
    assert (playout.first_audio_s, playout.audio_s, playout.played_out_s) == (2.0, 2.5, 4.5)
    np.testing.assert_allclose(playout.gaps_s, [0.5, 1.5])


def test_every_wait_for_audio_is_an_underrun_and_moves_the_rest_of_the_music() -> None:
    playout = played((0.0, 1.0), (1.5, 1.0), (2.4, 1.0), (4.5, 1.0))
    # plays 0–1, waits 0.5, plays 1.5–3.5, waits 1, plays 4.5–5.5: only the first wait lets the third chunk be in time
    assert playout.underrun_count == 2
    assert playout.underrun_s == pytest.approx(1.5)
    assert playout.played_out_s == pytest.approx(5.5)
    np.testing.assert_allclose(playout.silences_s, [0, 0.5, 0, 1.0])


def test_a_buffer_forgives_what_is_shorter_and_nothing_that_is_longer() -> None:
    chunks = ((0.0, 1.0), (1.5, 1.0))
    assert played(*chunks, buffer_s=0.5).underrun_count == 0
    assert played(*chunks, buffer_s=0.5).played_out_s == pytest.approx(2.5)
    assert played(*chunks, buffer_s=0.2).underrun_s == pytest.approx(0.3)


def test_a_stream_that_is_cut_off_counts_the_wait_that_ended_it() -> None:
    assert played((0.0, 1.0), cut_at_s=3.0).underrun_s == pytest.approx(2.0)
    assert played((0.0, 1.0), cut_at_s=3.0).underrun_count == 1
    assert played((0.0, 1.0), cut_at_s=0.5).underrun_count == 0


def test_rounding_is_no_underrun() -> None:
    chunks = [(0.1 * n, 0.1) for n in range(1000)]  # exactly in time, but for the sums of floats
    assert played(*chunks).underrun_count == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_account_balances_for_any_stream(seed: int) -> None:
    draw = np.random.default_rng(seed)
    at_s = np.cumsum(draw.exponential(0.1, 50))
    chunks = list(zip(at_s, draw.uniform(0.01, 0.2, 50)))
    for buffer_s in (0.0, 0.3):
        playout = played(*chunks, buffer_s=buffer_s)
        # from the first audio on a listener waits, hears music or hears an underrun, and nothing else
        heard_s = playout.played_out_s - playout.first_audio_s
        assert heard_s == pytest.approx(buffer_s + playout.audio_s + playout.underrun_s)
    assert played(*chunks, buffer_s=0.3).underrun_s <= played(*chunks).underrun_s
    assert played(*chunks, buffer_s=100.0).underrun_count == 0
