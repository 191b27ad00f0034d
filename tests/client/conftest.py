"""A door with made-up models behind it, on a real port in a thread of its own."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_harmony_service import Harmony, label_of
from google.protobuf import duration_pb2
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto.common.v1 import model_pb2
from stretto.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from stretto.harmony.v1 import harmony_pb2_grpc
from stretto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from stretto.semantic.v1 import semantic_pb2, semantic_pb2_grpc
from stretto.transcriber.v1 import transcriber_pb2, transcriber_pb2_grpc
from stretto_client import write_audio
from stretto_client.cli import main as cli
from stretto_shared.audio import Waveform
from stretto_shared.errors import Conflict, InvalidInput, NotFound, NotReady, Overloaded
from stretto_shared.features import Chromagram, JointEmbedding, TextStates
from stretto_shared.grpc import convert
from stretto_shared.grpc.api_keys import shown_key
from stretto_shared.grpc.call import ServedCall
from stretto_shared.grpc.convert_score import score_to_proto
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings
from stretto_shared.score import Part, Score
from stretto_shared.tokens import TokenMatrix

SAMPLE_RATE_HZ = 24_000
HOP_LENGTH = 480
GUARD_S = 120.0  # against hanging, not a limit of speed
ERRORS = {
    "invalid": InvalidInput("prompt", "expected a better one, got 'invalid'."),
    "missing": NotFound("cascade", "expected 'musicgen', got 'missing'."),
    "loading": NotReady("The weights are loading. Try again."),
    "full": Overloaded("The queue is full.", retry_after_s=1.5),
    "conflict": Conflict("The stream changed its codec."),
    "broken": RuntimeError("a secret of the server"),
}


def model(name: str, service: str) -> model_pb2.ModelInfo:
    return model_pb2.ModelInfo(
        name=name,
        service=service,
        digest_sha256="ab" * 32,
        licence="Apache-2.0",
        score="mel 0.2 [/b]",
        parameter_count=12345,
        is_default=True,
        source="default",
    )


@dataclass
class Seen:
    """What the door was asked, and how many calls were cut short: by prompt, for the server hears of a call that is
    cut short only after its client has returned, perhaps in the middle of the next test."""

    requests: list[Any] = field(default_factory=list)
    num_cancelled: Counter[str] = field(default_factory=Counter)
    num_decoding: int = 0
    keys: list[str] = field(default_factory=list)


class Orchestrator(orchestrator_pb2_grpc.OrchestratorServiceServicer):  # type: ignore[misc]
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def GenerateMusic(self, request: Any, context: Any) -> Any:
        async for payload in self._music(request):
            yield orchestrator_pb2.GenerateMusicResponse(**payload)

    async def ContinueMusic(self, request: Any, context: Any) -> Any:
        async for payload in self._music(request):
            yield orchestrator_pb2.ContinueMusicResponse(**payload)

    async def _music(self, request: Any) -> Any:
        self._seen.requests.append(request)
        if request.prompt in ERRORS:
            raise ERRORS[request.prompt]
        samples = np.sin(np.arange(SAMPLE_RATE_HZ) * 2 * np.pi * 440 / SAMPLE_RATE_HZ).astype(np.float32) * 0.5
        try:
            for second in range(int(request.duration_s)):
                yield {
                    "progress": orchestrator_pb2.Progress(
                        stage="acoustic", done_frame_count=50 * second, total_frame_count=int(50 * request.duration_s)
                    )
                }
                waveform = convert.waveform_to_proto(Waveform(samples, SAMPLE_RATE_HZ))
                chunk = orchestrator_pb2.AudioChunk(waveform=waveform, first_sample_index=second * SAMPLE_RATE_HZ)
                yield {"chunk": chunk}
                if request.prompt.startswith("slow"):
                    await asyncio.sleep(30)
                if request.prompt == "dies":
                    raise RuntimeError("in the middle")
        except (asyncio.CancelledError, GeneratorExit):
            self._seen.num_cancelled[request.prompt] += 1
            raise
        chosen = {}
        if isinstance(request, orchestrator_pb2.GenerateMusicRequest):
            chosen = {"story": request.story, "candidate_count": request.candidate_count, "similarity": 0.25}
        yield {
            "receipt": orchestrator_pb2.Receipt(
                cascade=request.cascade or "musicgen",
                prompt=request.prompt,
                seed=request.seed,
                duration_s=request.duration_s,
                sampling=model_pb2.SamplingOptions(temperature=1.0, top_k=250),
                models=[model("minilm", "embedding"), model("musicgen", "acoustic")],
                stretto_version="0.1.0",
                output_sha256="cd" * 32,
                first_audio_latency=duration_pb2.Duration(nanos=250_000_000),
                total_latency=duration_pb2.Duration(seconds=1),
                **chosen,
            )
        }

    async def AnalyzeMusic(self, requests: Any, context: Any) -> Any:
        response, sections, num_seconds = orchestrator_pb2.AnalyzeMusicResponse, list[int](), 0.0
        note_model, title, length_s = "", "", 0.5
        async for request in requests:
            if request.WhichOneof("payload") == "config":
                sections, note_model, title = (
                    list(request.config.sections),
                    request.config.note_model,
                    request.config.title,
                )
                length_s = 0.25 if request.config.note_ends == transcriber_pb2.NOTE_ENDS_KEY else 0.5
                yield response(progress=orchestrator_pb2.AnalysisProgress(stage="transcriber/notes"))
                continue
            if note_model in ERRORS:
                raise ERRORS[note_model]
            notes = orchestrator_pb2.AnalyzedNotes(notes=_note_at(num_seconds, length_s), complete_s=num_seconds + 1)
            num_seconds += convert.waveform_from_proto(request.waveform).duration_s
            yield response(notes=notes)
        models = [model("onsets", "transcriber")]
        if orchestrator_pb2.ANALYSIS_SECTION_BEATS in sections:
            models.append(model("beats", "transcriber"))
            yield response(
                beats=orchestrator_pb2.AnalyzedBeats(
                    beat_s=[0.0, 0.5, 1.0], beat_in_bar=[1, 2, 1], tempo_bpm=[120.0] * 3, time_signature_numerator=2
                )
            )
        if orchestrator_pb2.ANALYSIS_SECTION_SCORE in sections and title != "no score":
            score = orchestrator_pb2.AnalyzedScore(score=_note_at(0.0), musicxml=f"<{title}/>".encode())
            yield response(score=score)
        if orchestrator_pb2.ANALYSIS_SECTION_HARMONY in sections and title != "no score":
            models.append(model("tiny", "harmony"))
            labels = [label_of(0, 3, 1)]
            yield response(harmony=orchestrator_pb2.AnalyzedHarmony(labels=labels, musicxml=f"<{title}/>I".encode()))
        yield response(
            receipt=orchestrator_pb2.AnalysisReceipt(
                sections=sections,
                models=models,
                duration_s=num_seconds,
                input_sha256="cd" * 32,
                stretto_version="0.1.0",
                total_latency=duration_pb2.Duration(seconds=2),
            )
        )

    async def ListModels(self, request: Any, context: Any) -> Any:
        return orchestrator_pb2.ListModelsResponse(
            models=[model("musicgen", "acoustic"), model("framecodec", "codec")], unreachable_services=["embedding"]
        )


class Codec(codec_pb2_grpc.CodecServiceServicer):  # type: ignore[misc]
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def EncodeAudio(self, request: Any, context: Any) -> Any:
        waveform = convert.waveform_from_proto(request.waveform)
        num_frames = -(-waveform.num_samples // HOP_LENGTH)
        codes = np.tile(np.arange(num_frames), (request.codebook_count or 4, 1))
        tokens = TokenMatrix(codes, 50.0, "framecodec@" + "ab" * 6)
        return codec_pb2.EncodeAudioResponse(
            tokens=convert.tokens_to_proto(tokens),
            model=model("framecodec", "codec"),
            sample_count=waveform.num_samples,
        )

    async def DecodeTokens(self, requests: Any, context: Any) -> Any:
        # A cancelled call ends the requests or the handler, whichever comes first.
        self._seen.num_decoding += 1
        try:
            async for response in self._decode(requests):
                yield response
        finally:
            self._seen.num_decoding -= 1

    async def _decode(self, requests: Any) -> Any:
        first_sample_index = 0
        async for request in requests:
            if request.WhichOneof("payload") == "config":
                continue
            tokens = convert.tokens_from_proto(request.tokens)
            if tokens.codec_id.startswith("foreign"):
                raise InvalidInput("tokens.codec_id", "expected framecodec's. Decode with the codec that made them.")
            samples = np.repeat(tokens.codes[0] / 10_000, HOP_LENGTH)
            yield codec_pb2.DecodeTokensResponse(
                waveform=convert.waveform_to_proto(Waveform(samples, SAMPLE_RATE_HZ)),
                first_sample_index=first_sample_index,
            )
            first_sample_index += len(samples)


class Embedding(embedding_pb2_grpc.EmbeddingServiceServicer):  # type: ignore[misc]
    """Minilm for texts, and a joint encoder whose space is the loudness of a recording or the length of a text."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def EmbedText(self, request: Any, context: Any) -> Any:
        if request.model == "mulan":
            points = [_joint(len(text) / 10, 1) for text in request.texts]
            return embedding_pb2.EmbedTextResponse(embeddings=points, model=model("mulan", "embedding"))
        states = [
            TextStates("minilm@" + "ab" * 6, np.eye(4)[len(text) % 4], np.ones((len(text.split()), 4)))
            for text in request.texts
        ]
        return embedding_pb2.EmbedTextResponse(
            states=[convert.text_states_to_proto(state) for state in states], model=model("minilm", "embedding")
        )

    async def EmbedAudio(self, request: Any, context: Any) -> Any:
        self._seen.requests.append(request)
        peak = _peak(request.waveform)
        return embedding_pb2.EmbedAudioResponse(
            embedding=_joint(peak, 1),
            windows=[_joint(peak, 1), _joint(1, peak)],
            window_s=10.24,
            stride_s=1.024,
            model=model("mulan", "embedding"),
        )

    async def RankAudio(self, request: Any, context: Any) -> Any:
        self._seen.requests.append(request)
        if request.text in ERRORS:
            raise ERRORS[request.text]
        peaks = [_peak(each) for each in request.candidates]
        order = sorted(range(len(peaks)), key=lambda index: -peaks[index])
        return embedding_pb2.RankAudioResponse(
            ranking=[embedding_pb2.RankedAudio(candidate_index=index, similarity=peaks[index]) for index in order],
            model=model("mulan", "embedding"),
        )

    async def TagAudio(self, request: Any, context: Any) -> Any:
        self._seen.requests.append(request)
        tags = list(request.tags) or ["piano [/b]", "drums"]
        return embedding_pb2.TagAudioResponse(
            tags=[embedding_pb2.AudioTag(tag=tag, similarity=0.5, probability=1 / len(tags)) for tag in tags],
            model=model("mulan", "embedding"),
        )

    async def QuantizeEmbeddings(self, request: Any, context: Any) -> Any:
        for each in request.embeddings:
            each.codes.append(7)
        return embedding_pb2.QuantizeEmbeddingsResponse(
            embeddings=request.embeddings, model=model("mulan", "embedding")
        )

    async def EmbedMelody(self, request: Any, context: Any) -> Any:
        if request.model:
            codes = convert.tokens_to_proto(TokenMatrix(np.array([[1, 2], [3, 4]]), 1.0, "melody@" + "ab" * 6))
            return embedding_pb2.EmbedMelodyResponse(codes=codes, model=model("melody", "embedding"))
        return embedding_pb2.EmbedMelodyResponse(melody=convert.chromagram_to_proto(Chromagram(np.array([9, -1]))))


def _joint(*values: float) -> Any:
    return convert.joint_embedding_to_proto(JointEmbedding("mulan@" + "ab" * 6, np.array(values), (3, 5)))


def _peak(message: Any) -> float:
    return float(np.abs(convert.waveform_from_proto(message).samples).max())


class Semantic(semantic_pb2_grpc.SemanticServiceServicer):  # type: ignore[misc]
    """A tokenizer whose token is the number of the message, 25 a second."""

    async def TokenizeAudio(self, requests: Any, context: Any) -> Any:
        first_frame_index, num_messages = 0, 0
        async for request in requests:
            if request.WhichOneof("payload") == "config":
                if request.config.model == "missing":
                    raise NotFound("config.model", "expected 'w2vbert', got 'missing'.")
                continue
            waveform = convert.waveform_from_proto(request.waveform)
            num_frames = round(waveform.duration_s * 25)
            tokens = TokenMatrix(np.full((1, num_frames), num_messages), 25.0, "w2vbert@" + "ab" * 6)
            info = model("w2vbert", "semantic")
            info.sample_rate_hz = 16_000
            yield semantic_pb2.TokenizeAudioResponse(
                tokens=convert.tokens_to_proto(tokens),
                first_frame_index=first_frame_index,
                model=None if num_messages else info,
            )
            first_frame_index += num_frames
            num_messages += 1
        if not num_messages:
            raise InvalidInput("waveform", "expected audio, got none.")


def _note_at(onset_s: float, duration_s: float = 0.5) -> Any:
    return score_to_proto(Score([onset_s], [duration_s], [60], [90], [0], (Part("piano"),)))  # type: ignore[arg-type]


class Transcriber(transcriber_pb2_grpc.TranscriberServiceServicer):  # type: ignore[misc]
    """A note at the start of each message; three beats, or as few as the model's name says."""

    async def TranscribeAudio(self, requests: Any, context: Any) -> Any:
        num_messages, num_seconds = 0, 0.0
        async for request in requests:
            if request.WhichOneof("payload") == "config":
                if request.config.model in ERRORS:
                    raise ERRORS[request.config.model]
                by_key = request.config.ends == transcriber_pb2.NOTE_ENDS_KEY
                continue
            notes = _note_at(num_seconds, 0.25 if by_key else 0.5)
            num_seconds += convert.waveform_from_proto(request.waveform).duration_s
            info = None if num_messages else model("onsets", "transcriber")
            yield transcriber_pb2.TranscribeAudioResponse(notes=notes, complete_s=num_seconds, model=info)
            num_messages += 1

    async def TrackBeats(self, requests: Any, context: Any) -> Any:
        num_samples, num_beats = 0, 3
        async for request in requests:
            if request.config.model in ERRORS:
                raise ERRORS[request.config.model]
            num_beats = {"none": 0, "alone": 1}.get(request.config.model, num_beats)
            num_samples += len(request.waveform.samples) // 4
        return transcriber_pb2.TrackBeatsResponse(
            beat_s=[0.0, 0.5, 1.0][:num_beats],
            beat_in_bar=[1, 2, 1][:num_beats],
            tempo_bpm=[120.0] * 3 if num_beats == 3 else [0.0] * num_beats,
            time_signature_numerator=2,
            onset_s=[num_samples / SAMPLE_RATE_HZ],
            model=model("beats", "transcriber"),
        )

    async def EngraveScore(self, request: Any, context: Any) -> Any:
        if len(request.score.beat_s) < 2:
            raise InvalidInput("score.beat_s", "expected at least 2 beats.")
        return transcriber_pb2.EngraveScoreResponse(score=request.score, musicxml=f"<{request.title}/>".encode())


def _builders(seen: Seen) -> dict[str, Any]:
    async def nothing() -> None:
        return None

    @asynccontextmanager
    async def note_key(call: ServedCall) -> AsyncIterator[None]:
        if not call.is_infrastructure:  # the channel watches health by itself
            seen.keys.append(shown_key(call.metadata))
        yield

    def host(name: str, full_name: str, add: Any, servicer: Any) -> Any:
        def build(context: HostContext) -> ServiceHost:
            layers = (note_key,) if name == "orchestrator" else ()
            return ServiceHost(name, full_name, lambda server: add(servicer, server), nothing, nothing, layers=layers)

        return build

    return {
        "orchestrator": host(
            "orchestrator",
            "stretto.orchestrator.v1.OrchestratorService",
            orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server,
            Orchestrator(seen),
        ),
        "codec": host(
            "codec", "stretto.codec.v1.CodecService", codec_pb2_grpc.add_CodecServiceServicer_to_server, Codec(seen)
        ),
        "embedding": host(
            "embedding",
            "stretto.embedding.v1.EmbeddingService",
            embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server,
            Embedding(seen),
        ),
        "semantic": host(
            "semantic",
            "stretto.semantic.v1.SemanticService",
            semantic_pb2_grpc.add_SemanticServiceServicer_to_server,
            Semantic(),
        ),
        "harmony": host(
            "harmony",
            "stretto.harmony.v1.HarmonyService",
            harmony_pb2_grpc.add_HarmonyServiceServicer_to_server,
            Harmony(model("tiny", "harmony")),
        ),
        "transcriber": host(
            "transcriber",
            "stretto.transcriber.v1.TranscriberService",
            transcriber_pb2_grpc.add_TranscriberServiceServicer_to_server,
            Transcriber(),
        ),
    }


@dataclass(frozen=True)
class Door:
    address: str
    seen: Seen


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    """A server that runs beside the test's own event loop, so that blocking commands can call it."""
    seen = Seen()
    started: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        server = StrettoServer(GrpcSettings(port=0, log_level="error", max_receive_bytes=1_000_000), _builders(seen))
        await started.put(await server.start())
        await stop.wait()
        await server.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    port = asyncio.run_coroutine_threadsafe(started.get(), loop).result(timeout=GUARD_S)
    yield Door(f"127.0.0.1:{port}", seen)
    loop.call_soon_threadsafe(stop.set)
    thread.join(timeout=GUARD_S)
    assert not thread.is_alive()


@pytest.fixture
def fakes() -> dict[str, Any]:
    """The builders of the door's services."""
    return _builders(Seen())


@pytest.fixture
def run(
    door: Door, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs one command line in this process; returns its exit status, stdout and stderr."""
    monkeypatch.setenv("STRETTO_ADDRESS", door.address)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stretto", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    write_audio(tmp_path / "recording.wav", Waveform(np.sin(np.arange(30_000) / 20) / 2, 24_000))
    return tmp_path / "recording.wav"
