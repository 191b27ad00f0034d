"""What the loss eval compares a clip's own caption and melody with."""

import numpy as np
from quality.musicgen_loss import another_of_each


def test_every_clip_gets_another_one_and_each_is_given_once() -> None:
    chosen = np.arange(0, 960, 10)
    others = another_of_each(chosen)
    assert sorted(others.tolist()) == chosen.tolist()
    assert not np.any(others == chosen)


def test_the_other_clip_has_nothing_to_do_with_the_order_of_the_shards() -> None:
    chosen = np.arange(96)
    same_half = (another_of_each(chosen) < 48) == (chosen < 48)
    assert 0.3 < same_half.mean() < 0.7
    assert len(np.unique(another_of_each(chosen) - chosen)) > 40
