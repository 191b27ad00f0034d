"""The engine with a tiny encoder: readiness, limits, and one failing text among others."""

import asyncio
import threading

import numpy as np
import pytest
import torch
from stretto_embedding.engine import EmbeddingEngine, Limits, embedding_engine
from stretto_embedding.loading import TextEncoder
from stretto_embedding.models.minilm import MiniLm, MiniLmConfig
from stretto_shared.audio import Waveform
from stretto_shared.dsp.chroma import extract_chroma
from stretto_shared.errors import NotFound, NotReady, Overloaded
from stretto_shared.features import ModelInfo
from stretto_shared.grpc.metrics import Metrics
from tokenizers import Tokenizer, models, pre_tokenizers


def tiny_encoder(name="tiny"):
    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "piano": 1, "waltz": 2, "slow": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = MiniLm(MiniLmConfig(4, 8, 1, 2, 16, 32)).eval()
    return TextEncoder(ModelInfo(name, "embedding", "d" * 64, "Apache-2.0"), tokenizer, model, 32)


async def test_before_start_and_after_stop_it_is_not_ready():
    engine = EmbeddingEngine({"tiny": tiny_encoder})
    with pytest.raises(NotReady):
        await engine.embed_text("", ["piano"])
    await engine.start()
    await engine.embed_text("", ["piano"])
    await engine.stop()
    with pytest.raises(NotReady):
        await engine.embed_text("", ["piano"])


async def test_torch_runs_on_the_model_thread_only():
    seen = set()
    encoder = tiny_encoder()
    model = encoder.model

    class Watched:
        pool = staticmethod(model.pool)

        def __call__(self, ids):
            seen.add(threading.current_thread().name)
            return model(ids)

    engine = EmbeddingEngine({"tiny": lambda: TextEncoder(encoder.info, encoder.tokenizer, Watched(), 32)})
    await engine.start()
    await engine.embed_text("tiny", ["piano", "slow waltz"])
    await engine.stop()
    assert seen == {"model-tiny"}


async def test_the_first_encoder_is_the_default_and_others_go_by_name():
    engine = EmbeddingEngine({"one": lambda: tiny_encoder("one"), "two": lambda: tiny_encoder("two")})
    await engine.start()
    assert (await engine.embed_text("", ["piano"])).model.name == "one"
    assert (await engine.embed_text("two", ["piano"])).model.name == "two"
    assert [info.name for info in engine.list_models()] == ["one", "two"]
    with pytest.raises(NotFound, match="one, two"):
        await engine.embed_text("three", ["piano"])
    await engine.stop()


async def test_a_full_queue_is_refused_with_an_estimate():
    gate = threading.Event()
    encoder = tiny_encoder()
    model = encoder.model

    class Slow:
        pool = staticmethod(model.pool)

        def __call__(self, ids):
            gate.wait(10)
            return model(ids)

    engine = EmbeddingEngine(
        {"tiny": lambda: TextEncoder(encoder.info, encoder.tokenizer, Slow(), 32)},
        limits=Limits(max_queued=2, max_batch_size=1),
    )
    await engine.start()
    waiting = [asyncio.create_task(engine.embed_text("", ["piano"])) for _ in range(2)]
    await asyncio.sleep(0.2)
    with pytest.raises(Overloaded) as caught:
        await engine.embed_text("", ["piano", "waltz", "slow", "piano"])
    assert caught.value.retry_after_s > 0
    gate.set()
    await asyncio.gather(*waiting)
    assert len((await engine.embed_text("", ["piano"])).states) == 1
    await engine.stop()


async def test_texts_and_melodies_that_wait_are_seen_and_those_that_gave_up_are_not(monkeypatch):
    gate = threading.Event()
    encoder = tiny_encoder()

    class Slow:
        pool = staticmethod(encoder.model.pool)

        def __call__(self, ids):
            gate.wait(10)
            return encoder.model(ids)

    def slow_chroma(waveform):
        gate.wait(10)
        return extract_chroma(waveform)

    metrics = Metrics()

    def value(name):
        return metrics.registry.get_sample_value(name, {"stage": "embedding"})

    async def until(is_true):
        async with asyncio.timeout(20):
            while not is_true():  # noqa: ASYNC110 - the engine tells nobody who waits
                await asyncio.sleep(0.01)

    monkeypatch.setattr(embedding_engine, "extract_chroma", slow_chroma)
    engine = EmbeddingEngine(
        {"tiny": lambda: TextEncoder(encoder.info, encoder.tokenizer, Slow(), 32)},
        limits=Limits(max_batch_size=1),
        meter=metrics.stage("embedding"),
    )
    await engine.start()
    melody = Waveform(np.zeros(16_000), 16_000)
    running = [
        asyncio.create_task(engine.embed_text("", ["piano"])),
        asyncio.create_task(engine.embed_melody(melody)),
    ]
    await until(lambda: value("stretto_request_queue_wait_s_count") == 2)
    texts = asyncio.create_task(engine.embed_text("", ["waltz", "slow"]))
    waiting = asyncio.create_task(engine.embed_melody(melody))
    await until(lambda: value("stretto_stage_waiting_requests") == 3)
    for task in (texts, waiting):
        task.cancel()
    await asyncio.gather(texts, waiting, return_exceptions=True)
    await until(lambda: value("stretto_stage_waiting_requests") == 0)
    gate.set()
    await asyncio.gather(*running)
    await engine.stop()
    assert value("stretto_request_queue_wait_s_count") == 2


async def test_the_wait_of_every_text_is_counted():
    metrics = Metrics()
    engine = EmbeddingEngine({"tiny": tiny_encoder}, meter=metrics.stage("embedding"))
    await engine.start()
    await engine.embed_text("", ["piano", "waltz", "slow"])
    await engine.stop()
    assert metrics.registry.get_sample_value("stretto_request_queue_wait_s_count", {"stage": "embedding"}) == 3
    assert metrics.registry.get_sample_value("stretto_stage_waiting_requests", {"stage": "embedding"}) == 0


async def test_a_melody_does_not_wait_for_texts():
    engine = EmbeddingEngine({"tiny": tiny_encoder})
    await engine.start()
    melody = await engine.embed_melody(Waveform(np.zeros(16_000), 16_000))
    assert (melody.chromagram.pitch_classes == -1).all()
    await engine.stop()
