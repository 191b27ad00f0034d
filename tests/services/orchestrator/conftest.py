"""Tiny stages that speak the real protos over real channels, and an orchestrator in front of them."""

import asyncio
import zlib
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest
from stretto.acoustic.v1 import acoustic_pb2, acoustic_pb2_grpc
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from stretto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from stretto_orchestrator import main
from stretto_orchestrator.settings import OrchestratorSettings
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput, NotReady
from stretto_shared.features import Chromagram, ModelInfo, SamplingOptions, TextStates
from stretto_shared.grpc import convert
from stretto_shared.grpc.hosting import ServiceHost
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings
from stretto_shared.tokens import TokenMatrix

RATE_HZ = 8_000
FRAME_RATE_HZ = 50.0
HOP = 160
NUM_CODEBOOKS = 2
FRAMES_PER_MESSAGE = 5
FRAMES_PER_CHUNK = 10


def model_info(service: str, name: str, digest: str = "a") -> ModelInfo:
    return ModelInfo(
        name=name, service=service, digest_sha256=digest * 64, licence="Apache-2.0", is_default=True,
        sample_rate_hz=RATE_HZ if service == "codec" else 0, frame_rate_hz=FRAME_RATE_HZ, num_codebooks=NUM_CODEBOOKS,
    )  # fmt: skip


CODEC = model_info("codec", "tinycodec")


@dataclass
class Watched:
    """What the tests look at, and the faults that they set; `refusals` are those of the next calls, one each."""

    num_calls: int = 0
    num_cancelled: int = 0
    num_active: int = 0
    remaining_s: float | None = None
    lose_after: list[int] = field(default_factory=list)
    error: Exception | None = None
    refusals: list[Exception | None] = field(default_factory=list)
    gate: asyncio.Event | None = None
    step_s: float = 0.0
    num_sent: int = 0
    info: ModelInfo | None = None
    info_after_loss: ModelInfo | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def call(self, context):
        self.num_calls += 1
        self.num_active += 1
        self.remaining_s = context.time_remaining()
        self.metadata = dict(context.invocation_metadata() or ())
        try:
            refusal = self.refusals.pop(0) if self.refusals else self.error
            if refusal is not None:
                raise refusal
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.num_cancelled += 1
            raise
        finally:
            self.num_active -= 1


class FakeEmbedding(embedding_pb2_grpc.EmbeddingServiceServicer):
    def __init__(self):
        self.watched = Watched(info=model_info("embedding", "tinytext"))

    async def EmbedText(self, request, context):
        async with self.watched.call(context):
            if len(request.texts[0]) > 1000:
                raise InvalidInput("texts[0]", "expected at most 256 tokens.")
            values = np.frombuffer(zlib.crc32(request.texts[0].encode()).to_bytes(4, "little"), np.uint8) / 255
            states = TextStates("tinytext@aaaaaaaaaaaa", values, values[np.newaxis])
            return embedding_pb2.EmbedTextResponse(
                states=[convert.text_states_to_proto(states)], model=convert.model_info_to_proto(self.watched.info)
            )

    async def EmbedMelody(self, request, context):
        async with self.watched.call(context):
            waveform = convert.waveform_from_proto(request.waveform)
            if waveform.duration_s < 0.1:
                raise InvalidInput("waveform", "expected 0.1 s to 60 s.")
            loud = int(abs(float(waveform.samples.max())) * 11) % 12
            return embedding_pb2.EmbedMelodyResponse(melody=convert.chromagram_to_proto(Chromagram(np.full(4, loud))))

    async def ListModels(self, request, context):
        async with self.watched.call(context):
            return embedding_pb2.ListModelsResponse(models=[convert.model_info_to_proto(self.watched.info)])


class FakeAcoustic(acoustic_pb2_grpc.AcousticServiceServicer):
    def __init__(self):
        self.watched = Watched(info=model_info("acoustic", "tinylm", "b"))
        self.requests = []
        self.checks = []
        self.admission_error = None

    async def GenerateTokens(self, request, context):
        watched = self.watched
        async with watched.call(context):
            self.requests.append(request)
            if request.sampling.top_k > 64:
                raise InvalidInput("sampling.top_k", "expected 0 to 64, got more.")
            num_codebooks = watched.info.num_codebooks
            num_done = len(request.prompt.codes) // num_codebooks + len(request.resume_from.codes) // num_codebooks
            num_total = int(np.ceil(request.duration_s * FRAME_RATE_HZ - 1e-6))
            key = zlib.crc32(
                request.text.token_states + bytes(p + 1 for p in request.melody.pitch_classes)
                + np.array(request.prompt.codes, np.int32).tobytes() + request.seed.to_bytes(8, "little")
            )  # fmt: skip
            lose_after = watched.lose_after.pop(0) if watched.lose_after else None
            is_first = True
            while num_done < num_total:
                stop = min(num_total, num_done + FRAMES_PER_MESSAGE)
                frames = np.arange(num_done, stop)
                codes = np.stack([(key // (k + 1) + 7 * frames) % 64 for k in range(num_codebooks)])
                yield acoustic_pb2.GenerateTokensResponse(
                    tokens=convert.tokens_to_proto(TokenMatrix(codes, FRAME_RATE_HZ, CODEC.model_id)),
                    first_frame_index=num_done,
                    total_frame_count=num_total,
                    model=convert.model_info_to_proto(watched.info) if is_first else None,
                    sampling=convert.sampling_to_proto(SamplingOptions(1.0, 250, 1.0, 3.0)) if is_first else None,
                )
                is_first, num_done = False, stop
                watched.num_sent += 1
                if lose_after is not None:
                    lose_after -= 1
                    if lose_after == 0:
                        watched.info = watched.info_after_loss or watched.info
                        raise NotReady("This replica is going away.")
                await asyncio.sleep(watched.step_s)
                if watched.gate is not None and watched.num_sent >= 4:
                    await watched.gate.wait()

    async def CheckAdmission(self, request, context):
        self.checks.append(request)
        if self.admission_error is not None:
            raise self.admission_error
        return acoustic_pb2.CheckAdmissionResponse()

    async def ListModels(self, request, context):
        async with self.watched.call(context):
            return acoustic_pb2.ListModelsResponse(models=[convert.model_info_to_proto(self.watched.info)])


class FakeCodec(codec_pb2_grpc.CodecServiceServicer):
    def __init__(self):
        self.watched = Watched(info=CODEC)

    async def EncodeAudio(self, request, context):
        async with self.watched.call(context):
            waveform = convert.waveform_from_proto(request.waveform)
            num_samples = round(waveform.duration_s * RATE_HZ)
            num_frames = -(-num_samples // HOP)
            level = (np.abs(waveform.samples).sum(0)[:: max(1, waveform.sample_rate_hz // 50)] * 10).astype(int)
            codes = np.stack([np.resize(level, num_frames) % 64] * NUM_CODEBOOKS)
            return codec_pb2.EncodeAudioResponse(
                tokens=convert.tokens_to_proto(TokenMatrix(codes, FRAME_RATE_HZ, CODEC.model_id)),
                model=convert.model_info_to_proto(self.watched.info),
                sample_count=num_samples,
            )

    async def DecodeTokens(self, requests, context):
        watched = self.watched
        async with watched.call(context):
            assert (await anext(aiter(requests))).config.model == "tinycodec"
            lose_after = watched.lose_after.pop(0) if watched.lose_after else None
            codes, num_sent, is_open = np.zeros((NUM_CODEBOOKS, 0), int), 0, True
            while is_open or codes.shape[1]:
                while is_open and codes.shape[1] < FRAMES_PER_CHUNK:
                    if watched.gate is not None:
                        await watched.gate.wait()
                    request = await anext(requests, None)
                    is_open = request is not None
                    if is_open:
                        tokens = convert.tokens_from_proto(request.tokens)
                        if tokens.codec_id != watched.info.model_id:
                            raise InvalidInput("tokens.codec_id", f"expected '{watched.info.model_id}'.")
                        codes = np.concatenate([codes, tokens.codes], axis=1)
                chunk, codes = codes[:, :FRAMES_PER_CHUNK], codes[:, FRAMES_PER_CHUNK:]
                if not chunk.shape[1]:
                    break
                samples = np.repeat((chunk[0] * 64 + chunk[1]) / 4096, HOP)
                yield codec_pb2.DecodeTokensResponse(
                    waveform=convert.waveform_to_proto(Waveform(samples, RATE_HZ)),
                    first_sample_index=num_sent,
                    model=convert.model_info_to_proto(watched.info) if num_sent == 0 else None,
                )
                num_sent += len(samples)
                watched.num_sent += 1
                if lose_after is not None:
                    lose_after -= 1
                    if lose_after == 0:
                        watched.info = watched.info_after_loss or watched.info
                        raise NotReady("This replica is going away.")

    async def ListModels(self, request, context):
        async with self.watched.call(context):
            return codec_pb2.ListModelsResponse(models=[convert.model_info_to_proto(self.watched.info)])


ADD = {
    "embedding": embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server,
    "acoustic": acoustic_pb2_grpc.add_AcousticServiceServicer_to_server,
    "codec": codec_pb2_grpc.add_CodecServiceServicer_to_server,
}


async def nothing():
    """Starts and stops what needs neither."""


def host_of(name, servicer):
    def build(context):
        return ServiceHost(
            name, main.STAGE_SERVICES[name], lambda server: ADD[name](servicer, server), nothing, nothing
        )

    return build


async def serve(builders, port=0):
    settings = GrpcSettings(port=port, drain_s=0.0, log_level="error")
    server = StrettoServer(settings, builders)
    port = await server.start()
    await server.wait_until_ready()
    return server, port


class House:
    """Three stages and an orchestrator on four ports, and a client's channel to the last one."""

    def __init__(self):
        self.embedding, self.acoustic, self.codec = FakeEmbedding(), FakeAcoustic(), FakeCodec()
        self.servers, self.ports = {}, {}
        self.channel = None
        self.stub = None

    async def start_stage(self, name, port=0, build=None):
        builders = {name: build or host_of(name, getattr(self, name))}
        self.servers[name], self.ports[name] = await serve(builders, port)

    async def start_orchestrator(self, **settings):
        addresses = {f"{name}_address": f"127.0.0.1:{self.ports[name]}" for name in ADD}
        settings = OrchestratorSettings(**({"resume_backoff_s": 0.05} | addresses | settings))
        builders = {"orchestrator": lambda context: main.build(context, settings)}
        self.servers["orchestrator"], self.ports["orchestrator"] = await serve(builders)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.ports['orchestrator']}")
        self.stub = orchestrator_pb2_grpc.OrchestratorServiceStub(self.channel)

    async def stop(self):
        if self.channel is not None:
            await self.channel.close()
        for name in reversed(list(self.servers)):
            await self.servers[name].stop()


@asynccontextmanager
async def open_house(**settings):
    async with AsyncExitStack() as stack:
        house = House()
        stack.push_async_callback(house.stop)
        for name in ADD:
            await house.start_stage(name)
        await house.start_orchestrator(**settings)
        yield house


@pytest.fixture
async def house():
    async with open_house() as opened:
        yield opened


@pytest.fixture
def house_with():
    return open_house


@dataclass
class Music:
    """What one call gave."""

    samples: np.ndarray
    chunks: list
    progress: list
    receipt: object


@pytest.fixture
def collect():
    async def collect_music(call) -> Music:
        chunks, progress, receipt = [], [], None
        async for response in call:
            assert receipt is None, "the receipt must be the last message"
            match response.WhichOneof("payload"):
                case "chunk":
                    chunks.append(response.chunk)
                case "progress":
                    progress.append(response.progress)
                case "receipt":
                    receipt = response.receipt
        expected = 0
        for chunk in chunks:
            assert chunk.first_sample_index == expected
            expected += len(chunk.waveform.samples) // (4 * chunk.waveform.channel_count)
        samples = np.frombuffer(b"".join(chunk.waveform.samples for chunk in chunks), "<f4")
        return Music(samples, chunks, progress, receipt)

    return collect_music


@pytest.fixture
def request_music():
    def make(**fields):
        values = {"prompt": "a slow waltz", "duration_s": 2.0, "seed": 7} | fields
        return orchestrator_pb2.GenerateMusicRequest(**values)

    return make


@pytest.fixture
def eventually():
    async def wait_for(condition, timeout_s=60.0):
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in a server
                await asyncio.sleep(0.01)

    return wait_for
