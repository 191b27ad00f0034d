"""Tiny stages that speak the real protos over real channels, and an orchestrator in front of them."""

import asyncio
import dataclasses
import zlib
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import numpy as np
from fake_harmony import FakeHarmony
from fake_transcriber import FakeTranscriber
from stretto.acoustic.v1 import acoustic_pb2, acoustic_pb2_grpc
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from stretto.harmony.v1 import harmony_pb2_grpc
from stretto.orchestrator.v1 import orchestrator_pb2_grpc
from stretto.semantic.v1 import semantic_pb2, semantic_pb2_grpc
from stretto.transcriber.v1 import transcriber_pb2_grpc
from stretto_orchestrator import main
from stretto_orchestrator.settings import OrchestratorSettings
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput, NotFound, NotReady
from stretto_shared.features import Chromagram, JointEmbedding, SamplingOptions, TextStates
from stretto_shared.grpc import convert
from stretto_shared.grpc.hosting import ServiceHost
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings
from stretto_shared.tokens import TokenMatrix
from watched import FRAME_RATE_HZ, HOP, NUM_CODEBOOKS, RATE_HZ, Watched, model_info

SEMANTIC_RATE_HZ = 100.0
FRAMES_PER_MESSAGE = 5
FRAMES_PER_CHUNK = 10


CODEC = model_info("codec", "tinycodec")
MULAN, MELODY = model_info("embedding", "mulan", "d"), model_info("embedding", "melody", "e")
TOKENIZER, SEMANTIC = model_info("semantic", "w2vbert", "f"), model_info("semantic", "musiclm_semantic", "1")
COARSE = dataclasses.replace(model_info("acoustic", "musiclm_coarse", "2"), num_codebooks=1)
FINE = model_info("acoustic", "musiclm_fine", "3")


def point_of(text):
    return np.random.default_rng(zlib.crc32(text.encode())).normal(size=4)


def quantized(values):
    point = JointEmbedding(MULAN.model_id, values)
    return JointEmbedding(MULAN.model_id, values, tuple(int(31 * (1 + value)) for value in point.values))


def style_at(styles, times_s):
    """One number for the style of each moment."""
    sums = np.array([0, *(sum(style.codes) for style in styles)])
    return sums[np.searchsorted([style.start_s for style in styles], np.asarray(times_s) + 1e-9, side="right")]


def key_of(*parts):
    return zlib.crc32(repr(parts).encode())


def noise(key, frames):
    return np.array([zlib.crc32(f"{key} {frame}".encode()) % 64 for frame in frames])


def num_frames_of(tokens):
    return len(tokens.codes) // max(1, tokens.codebook_count)


class FakeEmbedding(embedding_pb2_grpc.EmbeddingServiceServicer):
    def __init__(self):
        self.watched = Watched(info=model_info("embedding", "tinytext"))

    async def EmbedText(self, request, context):
        async with self.watched.call(context):
            self.watched.requests.append(request)
            for index, text in enumerate(request.texts):
                if len(text) > 1000:
                    raise InvalidInput(f"texts[{index}]", "expected at most 256 tokens.")
            if request.model == "mulan":
                points = [convert.joint_embedding_to_proto(quantized(point_of(text))) for text in request.texts]
                return embedding_pb2.EmbedTextResponse(embeddings=points, model=convert.model_info_to_proto(MULAN))
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
            if request.model == "melody":
                codes = convert.tokens_to_proto(TokenMatrix(np.full((2, 3), loud), 1.0, MELODY.model_id))
                return embedding_pb2.EmbedMelodyResponse(codes=codes, model=convert.model_info_to_proto(MELODY))
            return embedding_pb2.EmbedMelodyResponse(melody=convert.chromagram_to_proto(Chromagram(np.full(4, loud))))

    async def EmbedAudio(self, request, context):
        async with self.watched.call(context):
            self.watched.requests.append(request)
            point = quantized(point_of(f"{np.frombuffer(request.waveform.samples, '<f4').max():.3f}"))
            return embedding_pb2.EmbedAudioResponse(
                embedding=convert.joint_embedding_to_proto(point), model=convert.model_info_to_proto(MULAN)
            )

    async def QuantizeEmbeddings(self, request, context):
        async with self.watched.call(context):
            self.watched.requests.append(request)
            points = [quantized(convert.joint_embedding_from_proto(each).values) for each in request.embeddings]
            return embedding_pb2.QuantizeEmbeddingsResponse(
                embeddings=[convert.joint_embedding_to_proto(point) for point in points],
                model=convert.model_info_to_proto(MULAN),
            )

    async def RankAudio(self, request, context):
        """The loudest on average fits best."""
        async with self.watched.call(context):
            self.watched.requests.append(request)
            means = [float(np.frombuffer(each.samples, "<f4").mean()) for each in request.candidates]
            ranking = [
                embedding_pb2.RankedAudio(candidate_index=index, similarity=means[index])
                for index in sorted(range(len(means)), key=lambda index: -means[index])
            ]
            return embedding_pb2.RankAudioResponse(ranking=ranking, model=convert.model_info_to_proto(MULAN))

    async def ListModels(self, request, context):
        async with self.watched.call(context):
            return embedding_pb2.ListModelsResponse(models=[convert.model_info_to_proto(self.watched.info)])


class FakeSemantic(semantic_pb2_grpc.SemanticServiceServicer):
    """100 frames a second in messages of ten."""

    def __init__(self):
        self.watched = Watched(info=SEMANTIC)

    async def GenerateTokens(self, request, context):
        watched = self.watched
        async with watched.call(context):
            watched.requests.append(request)
            key = key_of(list(request.melody.codes), list(request.prompt.codes), request.seed)
            num_done = num_frames_of(request.prompt) + num_frames_of(request.resume_from)
            num_total = int(np.ceil(request.duration_s * SEMANTIC_RATE_HZ - 1e-6))
            lose_after = watched.lose_after.pop(0) if watched.lose_after else None
            is_first = True
            while num_done < num_total:
                frames = np.arange(num_done, min(num_total, num_done + 10))
                codes = (noise(key, frames) + style_at(request.styles, frames / SEMANTIC_RATE_HZ)) % 64
                yield semantic_pb2.GenerateTokensResponse(
                    tokens=convert.tokens_to_proto(TokenMatrix(codes[None], SEMANTIC_RATE_HZ, TOKENIZER.model_id)),
                    first_frame_index=num_done,
                    total_frame_count=num_total,
                    model=convert.model_info_to_proto(watched.info) if is_first else None,
                    sampling=convert.sampling_to_proto(SamplingOptions(1.0, 0, 1.0, 3.0)) if is_first else None,
                )
                is_first, num_done = False, num_done + len(frames)
                lose_after = watched.lose(lose_after)
                if watched.gate is not None and watched.num_sent >= 4:
                    await watched.gate.wait()

    async def TokenizeAudio(self, requests, context):
        async with self.watched.call(context):
            config = (await anext(aiter(requests))).config
            self.watched.requests.append(config)
            samples = np.zeros(0)
            async for request in requests:
                samples = np.concatenate([samples, np.frombuffer(request.waveform.samples, "<f4")])
                hop = request.waveform.sample_rate_hz * request.waveform.channel_count // 100
            codes = (abs(samples[::hop]) * 10).astype(int)
            for start in range(0, len(codes), 64):
                tokens = TokenMatrix(codes[None, start : start + 64], SEMANTIC_RATE_HZ, TOKENIZER.model_id)
                yield semantic_pb2.TokenizeAudioResponse(
                    tokens=convert.tokens_to_proto(tokens),
                    first_frame_index=start,
                    model=convert.model_info_to_proto(TOKENIZER) if start == 0 else None,
                )

    async def ListModels(self, request, context):
        async with self.watched.call(context):
            return semantic_pb2.ListModelsResponse(models=[convert.model_info_to_proto(self.watched.info)])


class FakeAcoustic(acoustic_pb2_grpc.AcousticServiceServicer):
    def __init__(self):
        self.watched = Watched(info=model_info("acoustic", "tinylm", "b"))
        self.refining = {info.name: Watched(info=info) for info in (COARSE, FINE)}
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
                lose_after = watched.lose(lose_after)
                await asyncio.sleep(watched.step_s)
                if watched.gate is not None and watched.num_sent >= 4:
                    await watched.gate.wait()

    async def RefineTokens(self, requests, context):
        """Five frames a message, each of which reads its own source frames and those before."""
        requests = aiter(requests)
        config = (await anext(requests)).config
        if config.model not in self.refining:
            raise NotFound("model", f"expected one of {', '.join(self.refining)}, got '{config.model}'. Choose one.")
        watched = self.refining[config.model]
        async with watched.call(context):
            watched.requests.append(config)
            if watched.num_lost_unheard:
                await anext(requests)
                watched.num_lost_unheard -= 1
                raise NotReady("This replica is going away.")
            key = key_of(config.model, list(config.prompt.codes), config.seed)
            num_done = num_frames_of(config.prompt) + num_frames_of(config.resume_from)
            num_total = int(np.ceil(config.duration_s * FRAME_RATE_HZ - 1e-6))
            lose_after = watched.lose_after.pop(0) if watched.lose_after else None
            source, ratio, is_first = np.zeros((1, 0), int), 2 if config.model == "musiclm_coarse" else 1, True
            while num_done < num_total:
                frames = np.arange(num_done, min(num_total, num_done + FRAMES_PER_MESSAGE))
                while source.shape[1] < ratio * (frames[-1] + 1):
                    request = await anext(requests, None)
                    if request is None:
                        raise InvalidInput("source", "expected more frames.")
                    source = np.concatenate([source, convert.tokens_from_proto(request.source).codes], axis=1)
                heard = source[0, ratio * frames] + np.cumsum(source[0])[ratio * frames]
                codes = (noise(key, frames) + heard + style_at(config.styles, frames / FRAME_RATE_HZ))[None] % 64
                if ratio == 1:
                    codes = np.concatenate([source[:, frames], codes])
                yield acoustic_pb2.RefineTokensResponse(
                    tokens=convert.tokens_to_proto(TokenMatrix(codes, FRAME_RATE_HZ, CODEC.model_id)),
                    first_frame_index=num_done,
                    total_frame_count=num_total,
                    model=convert.model_info_to_proto(watched.info) if is_first else None,
                    sampling=convert.sampling_to_proto(SamplingOptions(0.4, 0, 1.0, 3.0)) if is_first else None,
                )
                is_first, num_done = False, num_done + len(frames)
                lose_after = watched.lose(lose_after)
                if watched.gate is not None and watched.num_sent >= 2:
                    await watched.gate.wait()

    async def CheckAdmission(self, request, context):
        self.checks.append(request)
        if self.admission_error is not None:
            raise self.admission_error
        return acoustic_pb2.CheckAdmissionResponse()

    async def ListModels(self, request, context):
        async with self.watched.call(context):
            infos = [self.watched.info, *(watched.info for watched in self.refining.values())]
            return acoustic_pb2.ListModelsResponse(models=[convert.model_info_to_proto(info) for info in infos])


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
                        missing = np.zeros((NUM_CODEBOOKS - tokens.num_codebooks, tokens.num_frames), int)
                        codes = np.concatenate([codes, np.concatenate([tokens.codes, missing])], axis=1)
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
                lose_after = watched.lose(lose_after)

    async def ListModels(self, request, context):
        async with self.watched.call(context):
            return codec_pb2.ListModelsResponse(models=[convert.model_info_to_proto(self.watched.info)])


ADD = {
    "harmony": harmony_pb2_grpc.add_HarmonyServiceServicer_to_server,
    "transcriber": transcriber_pb2_grpc.add_TranscriberServiceServicer_to_server,
    "semantic": semantic_pb2_grpc.add_SemanticServiceServicer_to_server,
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
    """Six stages and an orchestrator on seven ports, and a client's channel to the last one."""

    def __init__(self):
        self.embedding, self.semantic = FakeEmbedding(), FakeSemantic()
        self.acoustic, self.codec, self.transcriber = FakeAcoustic(), FakeCodec(), FakeTranscriber()
        self.harmony = FakeHarmony()
        self.servers, self.ports = {}, {}
        self.channel = None
        self.stub = None

    @property
    def watched(self):
        """What is watched of the stages of a `musiclm` piece, by what progress calls them."""
        refining = {f"acoustic/{name}": watched for name, watched in self.acoustic.refining.items()}
        return {"semantic": self.semantic.watched} | refining | {"codec": self.codec.watched}

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
