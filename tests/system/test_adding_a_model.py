"""The codec of `docs/adding-a-model.md`, copied off that page step by step, is served and keeps its promises."""

import dataclasses
import importlib.util
import re
import subprocess
import sys
from types import ModuleType

import grpc
import numpy as np
import pytest
import torch
from real_server import ROOT
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto_codec import loading
from stretto_codec.main import build
from stretto_codec.settings import CodecSettings
from stretto_shared import weights
from stretto_shared.audio import Waveform
from stretto_shared.grpc import convert
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings

MODEL, PARTS, ENTRY = re.findall(r"```py\n(.*?)```", (ROOT / "docs/adding-a-model.md").read_text(), re.DOTALL)
DURATION_S = 11.01  # three windows, and an end within a frame


@pytest.fixture
def mycodec(tmp_path, monkeypatch) -> ModuleType:
    """Step 1: the file with the model. Step 2: its parts and its entry in `loading`. Step 5: weights, here random."""
    (tmp_path / "mycodec.py").write_text(MODEL)
    spec = importlib.util.spec_from_file_location("mycodec", tmp_path / "mycodec.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mycodec", module)
    spec.loader.exec_module(module)
    names = vars(loading) | vars(module)
    exec(PARTS, names)
    entry = eval("{" + ENTRY + "}", names)
    monkeypatch.setattr(loading, "ARCHITECTURES", dict(loading.ARCHITECTURES) | entry)
    torch.manual_seed(0)
    module.codec = module.MyCodec(module.MyCodecConfig()).eval()
    for key, tensor in module.codec.state_dict().items():
        if key.endswith(".embed"):
            tensor.normal_()
    weights.write(
        tmp_path / "mycodec",
        module.codec.state_dict(),
        name="mycodec",
        architecture="MyCodec",
        config=dataclasses.asdict(module.MyCodecConfig()),
        licence="CC0-1.0",
        score="untrained",
        training={},
    )
    return module


@pytest.fixture
async def stub(mycodec, tmp_path):
    settings = CodecSettings(models="mycodec", weights_dir=tmp_path, num_threads=1)
    server = StrettoServer(
        GrpcSettings(host="127.0.0.1", port=0, drain_s=0.1, log_level="error"),
        {"codec": lambda context: build(context, settings)},
    )
    port = await server.start()
    await server.wait_until_ready()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield codec_pb2_grpc.CodecServiceStub(channel)
    await server.stop()


async def test_the_codec_of_the_page_is_served_with_the_tokens_and_the_audio_of_one_piece(mycodec, stub):
    listed = (await stub.ListModels(codec_pb2.ListModelsRequest())).models
    assert [(model.name, model.frame_rate_hz, model.codebook_count) for model in listed] == [("mycodec", 50.0, 4)]

    audio = np.random.default_rng(0).standard_normal((1, round(DURATION_S * 24_000))).astype(np.float32) / 4
    request = codec_pb2.EncodeAudioRequest(waveform=convert.waveform_to_proto(Waveform(audio, 24_000)))
    tokens = convert.tokens_from_proto((await stub.EncodeAudio(request)).tokens)
    with torch.inference_mode():
        whole = mycodec.codec.encode(torch.from_numpy(audio)[None])
        expected = mycodec.codec.decode(whole)[0].numpy()
    assert tokens.codes.shape == (4, 551) and len(np.unique(tokens.codes)) > 50
    np.testing.assert_array_equal(tokens.codes, whole[0].numpy())

    cuts = (0, 1, 30, 200, tokens.num_frames)
    runs = [convert.tokens_to_proto(tokens.frames(start, stop)) for start, stop in zip(cuts, cuts[1:])]
    first = codec_pb2.DecodeTokensRequest(config=codec_pb2.DecodeConfig())
    requests = [first, *(codec_pb2.DecodeTokensRequest(tokens=run) for run in runs)]
    parts = [convert.waveform_from_proto(answer.waveform).samples async for answer in stub.DecodeTokens(iter(requests))]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, atol=1e-5)


@pytest.mark.parametrize(("command", "code"), [("check", MODEL), ("format --diff", MODEL), ("format --diff", PARTS)])
def test_the_code_of_the_page_passes_make_check(command, code):
    ruff = [sys.executable, "-m", "ruff", *command.split(), "--stdin-filename", "services/codec/mycodec.py", "-"]
    done = subprocess.run(ruff, cwd=ROOT, input=code, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
