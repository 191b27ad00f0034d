"""The engine with a small joint encoder: turns on the model thread, admission, cancellation, and what is counted."""

import asyncio
import threading

import numpy as np
import pytest
from band_encoders import BANDS, RATE_HZ, band_encoder, level_encoder, tone
from stretto_embedding.engine import EmbeddingEngine, Limits, embedding_engine, limits
from stretto_embedding.engine.listening import cut_windows, resample
from stretto_embedding.loading import Once
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput, NotFound, NotReady, Overloaded
from stretto_shared.features import JointEmbedding
from stretto_shared.grpc.metrics import Metrics

LOW = Waveform(tone(500), RATE_HZ)
LONG = Waveform(np.tile(tone(500), 20), RATE_HZ)


class Gated:
    """Holds the model thread in its first window until it is let go, and writes down what ran; in a text if told so."""

    def __init__(self, encoder, *, holds_texts=False):
        self.encoder, self.holds_texts = encoder, holds_texts
        self.gate, self.is_reached = threading.Event(), threading.Event()
        self.ran, self.threads = [], set()
        listen, read = encoder.embed_window, encoder.embed_ids

        def embed_window(samples):
            self.is_reached.set()
            assert self.gate.wait(30)
            self.ran.append("window")
            self.threads.add(threading.current_thread().name)
            return listen(samples)

        def embed_ids(ids):
            self.is_reached.set()
            assert not self.holds_texts or self.gate.wait(30)
            self.ran.append("text")
            self.threads.add(threading.current_thread().name)
            return read(ids)

        encoder.embed_window, encoder.embed_ids = embed_window, embed_ids

    async def reached(self):
        assert await asyncio.to_thread(self.is_reached.wait, 30)


async def started(encoder, **options):
    engine = EmbeddingEngine({}, joint_loaders={encoder.info.name: lambda: encoder}, **options)
    await engine.start()
    return engine


def brute_windows(samples, window, stride):
    """Every window by its definition, from a whole clip at its rate."""
    if len(samples) <= window:
        return [samples]
    starts = list(range(0, len(samples) - window + 1, stride))
    if starts[-1] + window < len(samples):
        starts.append(len(samples) - window)
    return [samples[start : start + window] for start in starts]


@pytest.mark.parametrize("num_samples", [800, 7_999, 8_000, 8_001, 11_999, 12_000, 12_001, 19_999, 20_000, 44_000])
@pytest.mark.parametrize("stride", [8_000, 4_000, 1_237])
def test_windows_cover_a_recording_to_its_last_sample(num_samples, stride):
    samples = np.random.default_rng(num_samples).standard_normal(num_samples).astype(np.float32)
    got = list(cut_windows(Waveform(samples, RATE_HZ), RATE_HZ, 8_000, stride))
    want = brute_windows(samples, 8_000, stride)
    assert len(got) == len(want)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_resampled_blocks_are_the_recording_at_the_other_rate():
    blocks = list(resample(Waveform(tone(440, 3.3, 44_100), 44_100), RATE_HZ))
    whole = np.concatenate(blocks)
    assert max(map(len, blocks)) <= 2 * RATE_HZ and len(whole) == round(3.3 * RATE_HZ)
    np.testing.assert_allclose(whole[800:-800], tone(440, 3.3)[800:-800], atol=2e-3)


async def test_texts_take_turns_with_the_windows_of_a_long_recording():
    gated = Gated(band_encoder())
    engine = await started(gated.encoder)
    hearing = asyncio.create_task(engine.embed_audio("", LONG))
    await gated.reached()
    reading = asyncio.create_task(engine.embed_text("bands", ["low"]))
    await asyncio.sleep(0.1)  # the text's batch is queued behind the window that runs
    gated.gate.set()
    assert (await reading).embeddings[0].codes[0] == 0
    assert len((await hearing).windows) == 39
    assert gated.ran.index("text") <= 2 and gated.ran.count("window") == 39
    assert gated.threads == {"model-bands"}
    await engine.stop()


async def test_a_cancelled_recording_leaves_after_the_window_that_runs():
    gated = Gated(band_encoder())
    engine = await started(gated.encoder)
    hearing = asyncio.create_task(engine.embed_audio("", LONG))
    await gated.reached()
    hearing.cancel()
    gated.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await hearing
    await engine.embed_text("bands", ["low"])
    assert gated.ran == ["window", "text"]
    await engine.stop()


async def test_requests_beyond_the_limit_are_refused_with_an_estimate_and_accepted_ones_are_not():
    gated = Gated(band_encoder())
    engine = await started(gated.encoder, limits=Limits(max_requests=3))
    hearing = [asyncio.create_task(engine.embed_audio("", LONG)) for _ in range(3)]
    await gated.reached()
    reading = asyncio.create_task(engine.embed_text("bands", ["low", "high"]))
    await asyncio.sleep(0.05)
    refused = (
        engine.embed_audio("", LOW),
        engine.rank_audio("", "low", [LOW]),
        engine.tag_audio("", LOW, []),
        engine.quantize("", [JointEmbedding("bands@" + "b" * 12, np.ones(4))]),
    )
    for call in refused:
        with pytest.raises(Overloaded) as caught:
            await call
        assert caught.value.retry_after_s > 0
    gated.gate.set()
    assert [len(each.windows) for each in await asyncio.gather(*hearing)] == [39, 39, 39]
    assert len((await reading).embeddings) == 2
    assert len((await engine.embed_audio("", LOW)).windows) == 1
    await engine.stop()


async def test_own_tags_are_embedded_once():
    encoder = band_encoder()
    engine = await started(encoder)
    first, second = [await engine.tag_audio("", LOW, []) for _ in range(2)]
    assert first == second and first[0][0].tag == "low"
    assert sorted(texts_of(encoder)) == [[index] for index in range(len(BANDS))]
    await engine.stop()


def texts_of(encoder):
    return [each for each in encoder.seen if isinstance(each, list)]


async def late(call):
    """Make a call when those beside it wait."""
    await asyncio.sleep(0.05)
    return await call


async def gathered(gated, calls):
    """Let the thread go when all of them wait."""
    tasks = [asyncio.create_task(call) for call in calls]
    await gated.reached()
    await asyncio.sleep(0.2)
    gated.gate.set()
    return await asyncio.gather(*tasks)


async def test_own_tags_are_embedded_once_for_all_that_ask_at_once_and_nobody_is_refused():
    own = tuple(f"low {index}" for index in range(40))
    gated = Gated(band_encoder(default_tags=own), holds_texts=True)
    engine = await started(gated.encoder)
    tagged = await gathered(gated, [engine.tag_audio("", LOW, []) for _ in range(16)])
    assert len(tagged) == 16 and all(each == tagged[0] for each in tagged) and len(tagged[0][0]) == 40
    assert len(texts_of(gated.encoder)) == 40
    await engine.stop()


async def test_as_many_tags_as_may_be_sent_are_embedded_for_all_that_were_accepted():
    gated = Gated(band_encoder(), holds_texts=True)
    engine = await started(gated.encoder)
    tags = [" ".join(BANDS[index // 4**place % 4] for place in range(4)) for index in range(256)]
    tagged = await gathered(gated, [engine.tag_audio("", LOW, tags) for _ in range(6)])
    alone = await engine.embed_text("bands", [tags[0]])
    assert all(each == tagged[0] for each in tagged) and len(tagged[0][0]) == 256
    whole = (await engine.embed_audio("", LOW)).embedding
    found = {each.tag: each.similarity for each in tagged[0][0]}
    assert found[tags[0]] == whole.similarity(alone.embeddings[0])
    await engine.stop()


async def test_a_ranking_that_was_accepted_finds_room_for_its_text_beside_many_texts():
    gated = Gated(band_encoder(), holds_texts=True)
    engine = await started(gated.encoder, limits=Limits(max_queued=64, max_batch_size=1))
    reading = asyncio.create_task(engine.embed_text("bands", ["low"] * 64))
    await gated.reached()
    results = await gathered(
        gated, [engine.embed_text("bands", ["low"]), late(engine.rank_audio("", "low", [LOW]))]
    )  # one text is being embedded, 64 wait, and the queue is full
    await reading
    assert results[-1][0][0].candidate_index == 0
    await engine.stop()


async def test_a_text_has_its_turn_among_the_tags_of_another():
    gated = Gated(band_encoder(), holds_texts=True)
    engine = await started(gated.encoder)
    await gathered(gated, [engine.tag_audio("", LOW, ["low"] * 256), late(engine.embed_text("bands", ["top top"]))])
    assert texts_of(gated.encoder).index([3, 3]) <= 2 * Limits().max_batch_size
    await engine.stop()


async def test_who_gives_up_while_its_own_tags_are_embedded_leaves_the_others_theirs():
    gated = Gated(band_encoder(), holds_texts=True)
    engine = await started(gated.encoder)
    first = asyncio.create_task(engine.tag_audio("", LOW, []))
    await gated.reached()
    others = [asyncio.create_task(engine.tag_audio("", LOW, [])) for _ in range(3)]
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    gated.gate.set()
    assert [tags[0].tag for tags, _ in await asyncio.gather(*others)] == ["low"] * 3
    assert len(texts_of(gated.encoder)) == 2 * len(BANDS)  # those of the first, which were under way, and the others'
    await engine.stop()


async def test_the_wait_of_every_request_is_counted_and_who_waits_is_seen():
    metrics = Metrics()

    def value(name):
        return metrics.registry.get_sample_value(name, {"stage": "embedding"})

    gated = Gated(band_encoder())
    engine = await started(gated.encoder, meter=metrics.stage("embedding"))
    running = asyncio.create_task(engine.embed_audio("", LONG))
    await gated.reached()
    waiting = [asyncio.create_task(engine.embed_audio("", LOW)) for _ in range(2)]
    await asyncio.sleep(0.05)
    assert value("stretto_stage_waiting_requests") == 2
    waiting[1].cancel()
    await asyncio.sleep(0.05)
    assert value("stretto_stage_waiting_requests") == 1
    gated.gate.set()
    await asyncio.gather(running, waiting[0])
    await engine.tag_audio("", LOW, ["low", "high"])
    await engine.stop()
    assert value("stretto_request_queue_wait_s_count") == 2 + 1 + 2  # recordings, the tagged one, its tags


async def test_how_loud_recordings_are_is_found_beside_the_event_loop(monkeypatch):
    heard = []
    check = limits.check_level

    def watched(waveform, field):
        heard.append((field, threading.current_thread() is threading.main_thread()))
        check(waveform, field)

    monkeypatch.setattr(limits, "check_level", watched)
    engine = await started(band_encoder(), melody_loaders={"levels": level_encoder})
    await engine.embed_audio("", LOW)
    await engine.rank_audio("", LOW, [LOW, LOW])
    await engine.tag_audio("", LOW, [])
    await engine.embed_melody(LOW, "levels")
    await engine.stop()
    fields = ["waveform", "reference", "candidates[0]", "candidates[1]", "waveform", "waveform"]
    assert heard == [(field, False) for field in fields]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0])
async def test_values_that_are_no_point_are_the_encoders_fault(wrong):
    engine = await started(band_encoder())
    encoder = engine._joints["bands"]._encoder
    encoder.embed_window = lambda samples: np.full(4, wrong, np.float32)
    for call in (engine.embed_audio("", LOW), engine.rank_audio("", "low", [LOW]), engine.tag_audio("", LOW, [])):
        with pytest.raises(RuntimeError, match=r"bands@.* no point"):
            await call
    encoder.embed_ids = lambda ids: np.full(4, wrong, np.float32)
    with pytest.raises(RuntimeError, match=r"bands@.* no point"):
        await engine.embed_text("bands", ["low"])
    await engine.stop()


async def test_before_start_and_after_stop_every_call_is_not_ready():
    engine = EmbeddingEngine({}, joint_loaders={"bands": band_encoder}, melody_loaders={"levels": level_encoder})
    point = JointEmbedding("bands@" + "b" * 12, np.ones(4))

    async def check():
        for call in (
            engine.embed_audio("", LOW),
            engine.rank_audio("", "low", [LOW]),
            engine.tag_audio("", LOW, []),
            engine.quantize("", [point]),
            engine.embed_melody(LOW),
            engine.embed_melody(LOW, "levels"),
        ):
            with pytest.raises(NotReady):
                await call
        with pytest.raises(NotReady):
            engine.list_models()

    await check()
    await engine.start()
    assert len(engine.list_models()) == 2
    await engine.stop()
    await check()


async def test_a_server_without_a_joint_encoder_says_so():
    engine = EmbeddingEngine({}, melody_loaders={"levels": level_encoder})
    await engine.start()
    with pytest.raises(NotFound, match="no encoder served here"):
        await engine.embed_audio("", LOW)
    await engine.stop()


def test_two_encoders_of_one_name_are_refused():
    with pytest.raises(InvalidInput, match="'bands'"):
        EmbeddingEngine({}, joint_loaders={"bands": band_encoder}, melody_loaders={"bands": level_encoder})


async def test_the_number_of_threads_is_set_where_each_encoder_runs(monkeypatch):
    told = []
    monkeypatch.setattr(
        embedding_engine,
        "use_threads",
        lambda number: told.append((number, threading.current_thread().name)),
    )
    engine = EmbeddingEngine(
        {}, joint_loaders={"bands": band_encoder}, melody_loaders={"levels": level_encoder}, num_threads=3
    )
    await engine.start()
    await engine.stop()
    assert sorted(told) == [(3, "model-bands"), (3, "model-levels")]


def test_a_shared_encoder_is_loaded_once_and_again_only_after_a_failure():
    answers = [OSError("no disk"), "encoder"]

    def load():
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    once = Once(load)
    with pytest.raises(OSError, match="no disk"):
        once()
    assert [once(), once()] == ["encoder", "encoder"] and not answers
