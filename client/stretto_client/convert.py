"""The orchestrator's messages and the client's values: the place where the two meet."""

from __future__ import annotations

from collections.abc import Sequence

from stretto.common.v1 import model_pb2
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto_shared.errors import InvalidInput
from stretto_shared.grpc import convert

from stretto_client.errors import ServerFailure
from stretto_client.values import AudioChunk, MusicEvent, Pace, Progress, PromptSpan, Receipt

MAX_SEED = 2**64 - 1
MAX_PRIORITY = 9
MAX_CANDIDATES = 8
_PACES = {Pace.BEST_EFFORT: model_pb2.PACE_BEST_EFFORT, Pace.REALTIME: model_pb2.PACE_REALTIME}


def event_from_proto(
    message: orchestrator_pb2.GenerateMusicResponse | orchestrator_pb2.ContinueMusicResponse,
) -> MusicEvent:
    """The one thing that a message of a music stream brings."""
    match message.WhichOneof("payload"):
        case "progress":
            progress = message.progress
            return Progress(progress.stage, progress.done_frame_count, progress.total_frame_count)
        case "chunk":
            return AudioChunk(convert.waveform_from_proto(message.chunk.waveform), message.chunk.first_sample_index)
        case "receipt":
            return receipt_from_proto(message.receipt)
        case unknown:
            raise ServerFailure(f"The server sent a message that this client does not know ({unknown}). Update it.")


def receipt_from_proto(message: orchestrator_pb2.Receipt) -> Receipt:
    """A receipt with times in seconds."""
    return Receipt(
        cascade=message.cascade,
        prompt=message.prompt,
        seed=message.seed,
        duration_s=message.duration_s,
        sampling=convert.sampling_from_proto(message.sampling),
        models=tuple(convert.model_info_from_proto(model) for model in message.models),
        stretto_version=message.stretto_version,
        input_sha256=message.input_sha256,
        output_sha256=message.output_sha256,
        first_audio_latency_s=message.first_audio_latency.ToTimedelta().total_seconds(),
        total_latency_s=message.total_latency.ToTimedelta().total_seconds(),
        resume_count=message.resume_count,
        story=tuple(_span_from_proto(span) for span in message.story),
        candidate_count=message.candidate_count or 1,
        similarity=message.similarity,
    )


def story_to_proto(story: Sequence[PromptSpan]) -> list[orchestrator_pb2.PromptSpan]:
    """The story of the wire."""
    return [
        orchestrator_pb2.PromptSpan(start_s=span.start_s, prompt=span.prompt, blend_s=span.blend_s) for span in story
    ]


def _span_from_proto(message: orchestrator_pb2.PromptSpan) -> PromptSpan:
    return PromptSpan(message.start_s, message.prompt, message.blend_s if message.HasField("blend_s") else None)


def check_seed(seed: int) -> int:
    """A seed that fits the wire.

    Raises:
        InvalidInput: If it does not.
    """
    if not 0 <= seed <= MAX_SEED:
        raise InvalidInput("seed", f"expected 0 to 2^64 - 1, got {seed}.")
    return seed


def check_candidates(num_candidates: int) -> int:
    """A number of candidates of the wire.

    Raises:
        InvalidInput: If it is none.
    """
    if not 1 <= num_candidates <= MAX_CANDIDATES:
        raise InvalidInput("candidates", f"expected 1 to {MAX_CANDIDATES}, got {num_candidates}.")
    return num_candidates


def check_priority(priority: int) -> int:
    """A priority of the wire.

    Raises:
        InvalidInput: If it is none.
    """
    if not 0 <= priority <= MAX_PRIORITY:
        raise InvalidInput("priority", f"expected 0 to {MAX_PRIORITY}, got {priority}.")
    return priority


def pace_to_proto(pace: Pace) -> model_pb2.Pace:
    """The pace of the wire.

    Raises:
        InvalidInput: If it is none.
    """
    if pace not in _PACES:
        raise InvalidInput("pace", f"expected one of {', '.join(Pace)}, got {pace!r}.")
    return _PACES[pace]
