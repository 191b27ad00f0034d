"""EnCodec by the native kernel: near float32, the same bytes in any company and however a clip is cut."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stretto_codec import loading
from stretto_codec.engine.codec_engine import CodecEngine
from stretto_codec.engine.frames import Chunk
from stretto_codec.engine.shared_steps import SharedSteps
from stretto_codec.loading import ARCHITECTURES, LoadedCodec, make_loaded
from stretto_codec.main import build
from stretto_codec.models.encodec import GEOMETRIES, Encodec
from stretto_codec.models.encodec.streaming import EncodecDecoder, encodec_grid
from stretto_codec.models.streaming import ClipDecoder, DecodeGrid, decode_on_grid, step_together
from stretto_codec.settings import CodecSettings
from stretto_shared.engine.thread import ModelThread
from stretto_shared.grpc.hosting import HostContext
from stretto_shared.nn.lowbit import NativeKernel

# Wide enough for tiles in all layers but the finest unit, whose inner rows are 16 wide.
CONFIGS = {
    name: replace(GEOMETRIES[name], num_filters=32, hidden_size=32, cardinality=32, num_codebooks=4)
    for name in ("encodec_24khz", "encodec_32khz")
}


@pytest.fixture
def kernel(either_bands_kernel: NativeKernel) -> NativeKernel:
    return either_bands_kernel


@pytest.fixture
def kernel_dir(kernel: NativeKernel) -> Path:
    return Path(kernel.library._name).parent


def make(name: str) -> Encodec:
    torch.manual_seed(0)
    return Encodec(CONFIGS[name]).eval()


def random_codes(name: str, num_frames: int, num_clips: int = 1) -> torch.Tensor:
    shape = (num_clips, CONFIGS[name].num_codebooks, num_frames)
    return torch.randint(0, CONFIGS[name].cardinality, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_frames", [1, 2, 4, 5, 16, 45])
@torch.inference_mode()
def test_it_is_near_float32_at_every_length_and_the_same_on_every_grid(
    kernel: NativeKernel, name: str, num_frames: int
) -> None:
    model, codes = make(name), random_codes(name, num_frames)
    decoder = EncodecDecoder(model, torch.bfloat16, kernel)
    exact, streamed = model.decode(codes), decode_on_grid(ClipDecoder(decoder), encodec_grid(model.config), codes)
    assert streamed.shape == exact.shape and streamed.dtype == torch.float32 and not torch.equal(streamed, exact)
    assert 10 * torch.log10(exact.square().sum() / (streamed - exact).square().sum()) > 30
    for grid in (DecodeGrid(100), DecodeGrid(7, (3,))):
        assert torch.equal(decode_on_grid(ClipDecoder(decoder), grid, codes), streamed)


@torch.inference_mode()
def test_a_clip_has_its_bytes_in_any_company(kernel: NativeKernel) -> None:
    name = "encodec_32khz"
    decoder, codes = EncodecDecoder(make(name), torch.bfloat16, kernel), random_codes(name, 10, num_clips=5)
    alone = [ClipDecoder(decoder).step(clip) for clip in codes.split(1)]
    for order in ([3, 0, 4], [1, 2], [4, 3, 2, 1, 0]):
        together = step_together([ClipDecoder(decoder) for _ in order], codes[order])
        assert all(torch.equal(found, alone[clip]) for found, clip in zip(together, order, strict=True))


def test_any_number_of_clips_may_share_a_step_only_where_every_layer_is_the_kernels(kernel: NativeKernel) -> None:
    model, codec = Encodec(replace(CONFIGS["encodec_32khz"], num_filters=64)).eval(), loaded("float32", None)
    found = [
        replace(codec, decoder=EncodecDecoder(model, torch.bfloat16, each), max_joined=6).joined_sizes
        for each in (kernel, None)
    ]
    assert found == [[2, 3, 4, 5, 6], [2, 4]]
    assert not EncodecDecoder(make("encodec_32khz"), torch.bfloat16, kernel).joins_any


def loaded(dtype: str, kernel_dir: Path | None) -> LoadedCodec:
    name = "encodec_32khz"
    return make_loaded(
        name,
        make(name),
        ARCHITECTURES["Encodec"],
        CONFIGS[name],
        digest_sha256="0" * 64,
        dtype=dtype,
        native_kernel_dir=kernel_dir,
    )


def test_its_digest_is_neither_torchs_in_bfloat16_nor_float32s(kernel: NativeKernel, kernel_dir: Path) -> None:
    ours, torchs = loaded("bfloat16", kernel_dir), loaded("bfloat16", None)
    rounding = "bands-2" if kernel.has_bfloat16_tiles() else "bands-2-vectors"
    assert ours.info.digest_sha256 == hashlib.sha256(f"{'0' * 64} bfloat16 {rounding}".encode()).hexdigest()
    assert torchs.info.digest_sha256 == hashlib.sha256(f"{'0' * 64} bfloat16".encode()).hexdigest()
    assert loaded("float32", kernel_dir).info == loaded("float32", None).info
    codes = random_codes("encodec_32khz", 10)
    with torch.inference_mode():
        first, second = (decode_on_grid(codec.open_decoder(), codec.grid, codes) for codec in (ours, torchs))
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, second, atol=0.05, rtol=0)


async def test_the_service_asks_for_what_streams_and_for_the_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(loading, "load", lambda *args, **options: asked.append(options))
    loaders: dict[str, Any] = {}
    begin = CodecEngine.__init__
    monkeypatch.setattr(
        CodecEngine, "__init__", lambda engine, given, **rest: (loaders.update(given), begin(engine, given, **rest))[1]
    )
    build(HostContext(), CodecSettings(models="framecodec", native_kernel_dir=tmp_path))
    loaders["framecodec"]()
    assert [(each["only_streams"], each["native_kernel_dir"]) for each in asked] == [(True, tmp_path)]


@pytest.mark.parametrize("by_kernel", [True, False])
async def test_pieces_that_end_together_share_their_last_steps_only_where_any_number_may(
    kernel: NativeKernel, by_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, num_clips = "encodec_32khz", 3
    torch.manual_seed(0)
    model = Encodec(replace(CONFIGS[name], num_filters=64)).eval()
    decoder = EncodecDecoder(model, torch.bfloat16, kernel if by_kernel else None)
    codec, codes = replace(loaded("float32", None), decoder=decoder, max_joined=num_clips), random_codes(name, 13, 3)
    with torch.inference_mode():
        alone = [decode_on_grid(codec.open_decoder(), codec.grid, clip)[0].numpy() for clip in codes.split(1)]
    passes: list[int] = []
    advance = EncodecDecoder._advance

    def watched(self: EncodecDecoder, rows: torch.Tensor, state: Any, *, at_end: bool) -> Any:
        passes.append(len(rows))
        return advance(self, rows, state, at_end=at_end)

    monkeypatch.setattr(EncodecDecoder, "_advance", watched)
    clips, thread = [codec.open_decoder() for _ in range(num_clips)], ModelThread("held")
    steps = SharedSteps(codec, thread, None)
    found: list[list[Any]] = [[] for _ in range(num_clips)]
    for index, end in ((0, 10), (1, 13), (2, None)):
        go = threading.Event()
        held = asyncio.create_task(thread.run(partial(go.wait, 20)))
        await asyncio.sleep(0)
        works = []
        for clip, own in zip(clips, codes.numpy().astype(np.int32), strict=True):
            chunk = Chunk(index, own[:, 10 * index : end], None)
            works.append(steps.finish(clip, is_under_way=True) if end is None else steps.step(clip, chunk))
        tasks = [asyncio.create_task(work) for work in works]
        await asyncio.sleep(0)
        go.set()
        for own, waveform in zip(found, await asyncio.gather(*tasks), strict=True):
            own += [] if waveform is None else [waveform.samples]
        await held
    await thread.close()
    assert passes == [3, 3, 3] if by_kernel else passes == [2, *[1] * 7]
    assert all(np.array_equal(np.concatenate(own, 1), whole) for own, whole in zip(found, alone, strict=True))
