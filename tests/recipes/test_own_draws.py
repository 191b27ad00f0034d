"""What the language model draws in training stands where the tokens stand that it replaces."""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from stretto_shared.engine.delay import apply_delay

sys.path.insert(0, str(Path(__file__).parents[2] / "services/acoustic/recipes"))

from features import Batch
from train_musicgen import Trainer

DELAYS, SPECIAL = (0, 1, 2), 16


def test_a_model_that_knows_the_next_token_draws_the_music_itself() -> None:
    codes = torch.randint(0, 16, (2, 3, 7), generator=torch.Generator().manual_seed(0))
    following = apply_delay(codes, DELAYS, SPECIAL)[..., 1:]

    def knows(past: torch.Tensor, *_: object) -> torch.Tensor:
        assert past.shape == following.shape
        return 100.0 * torch.nn.functional.one_hot(following, SPECIAL + 1)

    trainer = object.__new__(Trainer)
    trainer.config = SimpleNamespace(delays=DELAYS, special_token=SPECIAL)
    trainer.model = knows
    batch = Batch(codes, torch.zeros(2, 1, 4), torch.ones(2, 1), torch.full((2, 5), -1))
    assert torch.equal(trainer._drawn(batch, melody=False, first_frame=0), codes)
