"""The codecs that the repository ships sound like what they were given."""

from pathlib import Path

import numpy as np
import pytest
import torch
from stretto_codec import loading
from stretto_codec.models.packed_matrix import JOINED_CLIPS
from stretto_codec.models.streaming import step_together
from stretto_shared.metrics.spectral import log_mel_distance

WEIGHTS = Path(__file__).parents[3] / "services/codec/weights"
SAMPLE_RATE_HZ = 24_000


def arpeggio() -> torch.Tensor:
    """Four decaying notes with five partials each [1, 1, S], 1.92 s, over a room's noise: no band is quite empty."""
    time_s = torch.arange(int(0.48 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    notes = []
    for pitch_hz in (220.0, 277.2, 329.6, 440.0):
        partials = [torch.sin(2 * torch.pi * k * pitch_hz * time_s) / k**1.5 for k in range(1, 6)]
        notes.append(0.2 * sum(partials) * torch.exp(-3 * time_s))
    room = 2e-3 * torch.randn(len(notes) * len(time_s), generator=torch.Generator().manual_seed(0))
    return (torch.cat(notes) + room)[None, None]


@pytest.fixture(scope="module", params=loading.list_default_names(WEIGHTS))
def codec(request: pytest.FixtureRequest) -> loading.LoadedCodec:
    return loading.load(request.param, "default", weights_dir=WEIGHTS)


def test_a_committed_codec_is_nearer_to_its_input_than_other_codes_of_its_own(codec: loading.LoadedCodec) -> None:
    audio = arpeggio()
    with torch.inference_mode():
        codes, _ = codec.encode(audio)
        own = codec.module.decode(codes)[0, 0, : audio.shape[-1]].numpy()
        shuffled = codes[..., torch.randperm(codes.shape[-1], generator=torch.Generator().manual_seed(0))]
        other = codec.module.decode(shuffled)[0, 0, : audio.shape[-1]].numpy()
    target = audio[0, 0].numpy()
    distance = log_mel_distance(target, own, SAMPLE_RATE_HZ)
    assert distance < log_mel_distance(target, other, SAMPLE_RATE_HZ)
    assert distance < 0.25 * log_mel_distance(target, np.zeros_like(target), SAMPLE_RATE_HZ)


def test_a_committed_codec_streams_what_it_decodes_at_once(codec: loading.LoadedCodec) -> None:
    with torch.inference_mode():
        codes, _ = codec.encode(arpeggio())
        whole, state, parts = codec.module.decode(codes), codec.module.init_decoder_state(1), []
        for chunk in codes.split(7, dim=-1):
            part, state = codec.module.decode_chunk(chunk, state)
            parts.append(part)
    torch.testing.assert_close(torch.cat(parts, -1), whole, atol=2e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_committed_codec_gives_the_same_bytes_in_any_company(dtype: str) -> None:
    codec = loading.load("framecodec", "default", weights_dir=WEIGHTS, dtype=dtype, max_joined=8)
    generator, order = torch.Generator().manual_seed(1), np.random.default_rng(1)
    codes = torch.randint(0, codec.config.cardinality, (8, codec.config.num_codebooks, 33), generator=generator)
    together = [codec.open_decoder() for _ in codes]
    with torch.inference_mode():
        alone = [codec.open_decoder() for _ in codes]
        for start, stop in codec.grid.cuts(codes.shape[-1]):
            expected = [clip.step(codes[index : index + 1, :, start:stop]) for index, clip in enumerate(alone)]
            waiting = order.permutation(8).tolist()
            while waiting:
                counts = [count for count in (1, *JOINED_CLIPS) if count <= min(len(waiting), codec.max_joined)]
                chosen = waiting[: order.choice(counts)]
                waiting = waiting[len(chosen) :]
                audios = step_together([together[index] for index in chosen], codes[chosen, :, start:stop])
                assert all(torch.equal(audio, expected[index]) for index, audio in zip(chosen, audios))
