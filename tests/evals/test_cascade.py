"""The evals' batch of pieces is the service's engine, piece by piece."""

from typing import Any

import cascade
import numpy as np
import pytest
import torch
from cascade import Cascade, generate_codes
from served import stepper_of
from stretto_acoustic.engine import AcousticEngine, GenerateRequest
from stretto_acoustic.loading import LoadedLM, make_loaded
from stretto_acoustic.models.musicgen import MusicGenConfig, MusicGenLM
from stretto_shared.engine.sampling import Sampling
from stretto_shared.features import TextStates

NUM_FRAMES = 20
CONFIG = MusicGenConfig(
    num_codebooks=3, cardinality=32, dim=32, num_layers=2, num_heads=4, ffn_dim=64, text_dim=8,
    max_frames=40, attention_frames=12, melody_conditioning="prefix", frame_rate_hz=25.0,
)  # fmt: skip


@pytest.fixture
def loaded() -> LoadedLM:
    torch.manual_seed(0)
    # In double precision: a batch and a piece alone differ by rounding, which in single precision may decide a near tie
    # of two tokens, on one machine or another.
    module = MusicGenLM(CONFIG)
    module.conditioner.text_proj.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    return make_loaded("tiny", module, digest_sha256="0" * 64, dtype="float64")


def texts() -> list[TextStates]:
    random = np.random.default_rng(0)
    return [TextStates("minilm", np.zeros(8), 3 * random.standard_normal((length, 8))) for length in (3, 7, 5)]


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 3.0])
async def test_a_batch_gives_each_piece_the_tokens_of_the_service(loaded: LoadedLM, guidance_scale: float) -> None:
    sampling = Sampling(temperature=0.9, top_k=20, guidance_scale=guidance_scale)
    batch = generate_codes(loaded.module, texts(), sampling, [1, 2, 2], NUM_FRAMES)
    assert np.array_equal(batch, await of_the_service(loaded, sampling, [1, 2, 2]))
    assert not np.array_equal(batch[1], batch[2]) or guidance_scale == 0  # another text is another piece


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 3.0])
async def test_where_rows_stand_alone_the_service_s_own_stepper_joins_them(
    guidance_scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    loaded = make_loaded("tiny", MusicGenLM(CONFIG), digest_sha256="0" * 64, weight_format="int8")
    sampling = Sampling(temperature=0.9, top_k=20, guidance_scale=guidance_scale)
    no_part: Any = None
    whole = Cascade(no_part, loaded, stepper_of(loaded), no_part)
    expected = await of_the_service(loaded, sampling, [1, 2, 2])
    monkeypatch.setattr(cascade, "generate_codes", None)  # the batch takes no part
    for joined in (2, 3):
        monkeypatch.setattr(cascade, "JOINED_PIECES", joined)
        made = whole.generate(texts(), sampling, [1, 2, 2], duration_s=NUM_FRAMES / CONFIG.frame_rate_hz)
        assert np.array_equal(made, expected)


async def of_the_service(loaded: LoadedLM, sampling: Sampling, seeds: list[int]) -> np.ndarray:
    """Codes [N, K, T] of the texts, each asked of the engine alone."""
    engine = AcousticEngine({"tiny": lambda: loaded})
    await engine.start()
    pieces = []
    try:
        for text, seed in zip(texts(), seeds, strict=True):
            request = GenerateRequest("tiny", NUM_FRAMES / 25.0, seed, sampling.as_options(), text=text)
            blocks = [frames.tokens.codes async for frames in engine.generate(request)]
            pieces.append(np.concatenate(blocks, axis=1))
    finally:
        await engine.stop()
    return np.stack(pieces)
