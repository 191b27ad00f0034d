"""The cascade `musiclm` with the real semantic and acoustic services: tiny untrained language models of every stage."""

import dataclasses

import numpy as np
import pytest
import torch
from fake_stages import CODEC, FRAME_RATE_HZ, MELODY, MULAN, SEMANTIC_RATE_HZ, TOKENIZER, host_of, open_house
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto_acoustic.engine import AcousticEngine, Refining
from stretto_acoustic.main import host as acoustic_host
from stretto_semantic.engine import Generating, SemanticEngine, Tokenizing
from stretto_semantic.servicer import SemanticServicer
from stretto_shared.engine.stage_loading import make_loaded_stage
from stretto_shared.grpc.hosting import ServiceHost
from stretto_shared.nn.stage_lm import StageConfig, StageLM

TINY = {"dim": 16, "num_layers": 2, "num_heads": 2, "feed_forward_dim": 32, "num_buckets": 8, "table_dim": 8}
STYLE = {"num_style_codes": 4, "style_cardinality": 64, "style_encoder": MULAN.model_id}
SEMANTIC_LM = StageConfig(
    num_codebooks=1, cardinality=64, frame_rate_hz=SEMANTIC_RATE_HZ, window_s=0.4, stride_s=0.2,
    num_melody_codebooks=2, melody_cardinality=12, melody_frame_rate_hz=1.0, melody_encoder=MELODY.model_id,
    tokens=TOKENIZER.model_id, **STYLE, **TINY,
)  # fmt: skip
COARSE_LM = StageConfig(
    num_codebooks=1, cardinality=64, frame_rate_hz=FRAME_RATE_HZ, window_s=0.4, stride_s=0.2,
    num_source_codebooks=1, source_cardinality=64, source_frame_rate_hz=SEMANTIC_RATE_HZ,
    tokens=CODEC.model_id, source_tokens=TOKENIZER.model_id, **STYLE, **TINY,
)  # fmt: skip
FINE_LM = dataclasses.replace(
    COARSE_LM, window_s=0.2, stride_s=0.1, source_frame_rate_hz=FRAME_RATE_HZ, source_tokens=CODEC.model_id,
    num_style_codes=0, style_cardinality=0, style_encoder="",
)  # fmt: skip


def loaded(name, config, service, digest):
    torch.manual_seed(0)  # here, not in `load`: loaders work side by side, and would draw from one generator
    model = StageLM(config)
    with torch.no_grad():
        model.narrow.weight.mul_(3)  # an untrained model is close to indifferent: let its opinions show
        model.bias.normal_()

    def load():
        return make_loaded_stage(name, model, service=service, digest_sha256=digest * 64, is_default=True)

    return {name: load}


def semantic_builder(house):
    engine = SemanticEngine(Tokenizing({}), Generating(loaded("musiclm_semantic", SEMANTIC_LM, "semantic", "1")))
    own = SemanticServicer(engine)
    own.TokenizeAudio = house.semantic.TokenizeAudio  # a recording is heard as the tiny stage hears it

    def build(context):
        made = host_of("semantic", own)(context)
        return ServiceHost("semantic", made.full_name, made.add_to_server, engine.start, engine.stop)

    return build


def acoustic_builder(context):
    refining = Refining(
        loaded("musiclm_coarse", COARSE_LM, "acoustic", "2") | loaded("musiclm_fine", FINE_LM, "acoustic", "3")
    )
    return acoustic_host(AcousticEngine({}), refining)


@pytest.fixture
async def house():
    cascades = {"waiting": {"kind": "musiclm", "fine_model": "musiclm_fine", "streams": False}}
    async with open_house(extra_cascades=cascades) as opened:
        for name, build in (("semantic", semantic_builder(opened)), ("acoustic", acoustic_builder)):
            await opened.servers[name].stop()
            await opened.start_stage(name, opened.ports[name], build)
        yield opened


async def test_real_stages_make_music_of_several_windows_whichever_way_they_wait(house, collect, request_music):
    def made(**fields):
        return collect(
            house.stub.GenerateMusic(
                request_music(**({"cascade": "musiclm-fine", "duration_s": 1.2} | fields)), timeout=300
            )
        )

    music = await made()
    assert len(music.samples) == 9_600 and len(np.unique(music.samples)) > 20
    assert [model.name for model in music.receipt.models] == [
        "mulan", "musiclm_semantic", "musiclm_coarse", "musiclm_fine", "tinycodec",
    ]  # fmt: skip
    told = {progress.stage: progress for progress in music.progress}
    assert told["acoustic/musiclm_fine"].done_frame_count == told["acoustic/musiclm_fine"].total_frame_count == 60
    assert (await made(cascade="waiting")).samples.tobytes() == music.samples.tobytes()
    story = [orchestrator_pb2.PromptSpan(start_s=0.5, prompt="a storm", blend_s=0.2)]
    for change in ({"seed": 8}, {"prompt": "a fast reel"}, {"story": story}):
        assert (await made(**change)).samples.tobytes() != music.samples.tobytes(), change
    begun_alike = (await made(story=story)).samples[:3_200]
    assert begun_alike.tobytes() == music.samples[:3_200].tobytes(), "the story changes nothing before its windows"


async def test_real_stages_continue_a_recording(house, collect):
    samples = np.linspace(0.1, 0.9, 8_000).astype("<f4").tobytes()
    request = orchestrator_pb2.ContinueMusicRequest(cascade="musiclm-fine", duration_s=1.0, seed=3)
    request.audio.sample_rate_hz, request.audio.channel_count, request.audio.samples = 8_000, 1, samples
    new = await collect(house.stub.ContinueMusic(request, timeout=300))
    assert len(new.samples) == 8_000
    request.include_recording = True
    whole = await collect(house.stub.ContinueMusic(request, timeout=300))
    assert whole.samples[8_000:].tobytes() == new.samples.tobytes()
