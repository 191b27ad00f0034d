"""Conditions in, token frames out. Knows nothing of protobuf and grpc.

Each language model has a model thread and a token engine; requests to one never wait for another.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray
from stretto_shared.engine.meter import TokenMeter
from stretto_shared.engine.program import TokenRequest
from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.self_test import measure_step_s
from stretto_shared.engine.step_times import StepTimes
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine, TokenEngineConfig
from stretto_shared.errors import InvalidInput, NotFound, NotReady
from stretto_shared.features import Chromagram, ModelInfo, SamplingOptions, TextStates
from stretto_shared.tokens import TokenMatrix

from stretto_acoustic.loading import LoadedLM
from stretto_acoustic.models.musicgen import MusicGenCondition, MusicGenConfig, MusicGenStepper
from stretto_acoustic.models.musicgen.stepper import GuidedState

NOISE_STAGE = "acoustic"
MAX_TEXT_TOKENS = 512
MAX_PRIORITY = 9
_ROWS_PER_PIECE = 2  # conditional and null
_ROUNDING_FRAMES = 1e-6  # 0.3 s at 50 Hz is 15 frames, though 0.3 * 50 is a little more in binary
_log = structlog.get_logger(__name__)


class StageMeter(Protocol):
    """Who counts what this stage does."""

    def watch_waiting(self, count_waiting: Callable[[], int]) -> None:
        """Tell whom to ask how many requests wait for a slot; asked from any thread."""

    def observe_queue_wait(self, wait_s: float) -> None:
        """Tell how long one request waited for its slot."""

    def observe_rtf(self, real_time_factor: float) -> None:
        """Tell how much time in its slot one second of music took."""


@dataclass(frozen=True, eq=False)
class GenerateRequest:
    """One piece to generate; the fields are those of `stretto.acoustic.v1.GenerateTokensRequest`."""

    model: str
    duration_s: float
    seed: int
    sampling: SamplingOptions
    text: TextStates | None = None
    melody: Chromagram | None = None
    prompt: TokenMatrix | None = None
    resume_from: TokenMatrix | None = None
    is_realtime: bool = False
    priority: int = 0


@dataclass(frozen=True, eq=False)
class GeneratedFrames:
    """Consecutive new frames; `model` and `sampling` come with the first of a stream only."""

    tokens: TokenMatrix
    first_frame: int
    num_total_frames: int
    model: ModelInfo | None
    sampling: SamplingOptions | None


@dataclass(frozen=True, eq=False)
class _Served:
    loaded: LoadedLM
    tokens: TokenEngine[MusicGenCondition, GuidedState]


class AcousticEngine:
    """Serves language models of codec tokens by name.

    Invariant: before `start` returns and after `stop` every call fails with NotReady; torch runs on model threads only.

    Args:
        loaders: Name to a function that loads the model; the first is the default one.
        config: Limits of each model's token engine.
        meter: Who counts; None for nobody.
        token_meter: Gives, by model name, who counts what its token engine does; None for nobody.
        joins: Whether pieces share passes where the model's own layers allow it; False for one pass each.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], LoadedLM]],
        *,
        config: TokenEngineConfig | None = None,
        meter: StageMeter | None = None,
        token_meter: Callable[[str], TokenMeter] | None = None,
        joins: bool = True,
    ) -> None:
        self._loaders = dict(loaders)
        self._config = config or TokenEngineConfig()
        self._meter = meter
        self._token_meter = token_meter
        self._joins = joins
        self._threads = {name: ModelThread(name) for name in loaders}
        self._served: dict[str, _Served] = {}
        if meter is not None:
            meter.watch_waiting(self._count_waiting)

    async def start(self) -> None:
        """Load every model on its own thread, and try there how it may be stepped."""
        names = list(self._loaders)
        served = await asyncio.gather(*(self._threads[name].run(functools.partial(self._load, name)) for name in names))
        for name, (loaded, stepper, step_times) in zip(names, served, strict=True):
            tokens = TokenEngine(
                self._threads[name],
                stepper,
                stage=NOISE_STAGE,
                config=self._config,
                frame_rate_hz=loaded.config.frame_rate_hz,
                step_times=step_times,
                meter=None if self._token_meter is None else self._token_meter(name),
            )
            self._served[name] = _Served(loaded, tokens)

    def _load(self, name: str) -> tuple[LoadedLM, MusicGenStepper, StepTimes]:
        """On the model thread: load, try which rows may share a pass, and time a few passes."""
        loaded, config = self._loaders[name](), self._config
        max_rows = _ROWS_PER_PIECE * (config.max_slots + config.prefill_columns)
        stepper = (
            MusicGenStepper.tried(loaded.module, max_rows=max_rows) if self._joins else MusicGenStepper(loaded.module)
        )
        measured_s: dict[int, float] = {}
        for trial in stepper.trials()[:2]:
            measured_s |= measure_step_s(
                stepper, trial, max_states=config.max_slots, max_columns=config.prefill_columns
            )
        _log.info(
            "token_engine_tried",
            model=name,
            joins=stepper.is_row_invariant,
            min_rows=stepper.min_rows,
            step_ms={rows: round(1000 * taken_s, 2) for rows, taken_s in sorted(measured_s.items())},
        )
        return loaded, stepper, StepTimes(measured_s)

    async def stop(self) -> None:
        """Fail what runs and waits, and end the threads."""
        served, self._served = self._served, {}
        for each in served.values():
            await each.tokens.close()
        for thread in self._threads.values():
            await thread.close()

    def list_models(self) -> list[ModelInfo]:
        """Return the models, sorted by name."""
        self._check_ready()
        return [self._served[name].loaded.info for name in sorted(self._served)]

    def num_running(self, model: str = "") -> int:
        """Count the pieces that a model generates now."""
        return self._find(model).tokens.num_running

    def num_waiting(self, model: str = "") -> int:
        """Count the pieces that wait for a slot of a model."""
        return self._find(model).tokens.num_waiting

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GeneratedFrames, None]:
        """Stream the new frames of a piece; closing the stream frees its slot before the next step.

        Raises:
            InvalidInput: If the request does not fit the model.
            NotFound: If there is no such model.
            Overloaded: If too many pieces wait already, or a real-time one would make those that play run dry.
        """
        served = self._find(request.model)
        config = served.loaded.config
        tokens = _token_request(request, config)
        codec_id = _codec_id(request, config)
        arrived_s = started_s = time.perf_counter()

        def start() -> None:
            nonlocal started_s
            started_s = time.perf_counter()
            if self._meter is not None:
                self._meter.observe_queue_wait(started_s - arrived_s)

        num_new = 0
        async with aclosing(served.tokens.generate(tokens, on_start=start)) as blocks:
            async for block in blocks:
                is_first = num_new == 0
                num_new += block.codes.shape[1]
                yield GeneratedFrames(
                    TokenMatrix(block.codes, config.frame_rate_hz, codec_id),
                    block.first_frame,
                    tokens.num_frames,
                    served.loaded.info if is_first else None,
                    tokens.sampling.as_options() if is_first else None,
                )
        if self._meter is not None:
            self._meter.observe_rtf((time.perf_counter() - started_s) * config.frame_rate_hz / num_new)

    def _count_waiting(self) -> int:
        return sum(served.tokens.num_waiting for served in list(self._served.values()))

    def _find(self, model: str) -> _Served:
        self._check_ready()
        name = model or next(iter(self._loaders))
        if name not in self._served:
            raise NotFound("model", f"expected one of {', '.join(sorted(self._served))}, got {model!r}. Choose one.")
        return self._served[name]

    def _check_ready(self) -> None:
        if not self._served:
            raise NotReady("The acoustic service has not loaded its models, or is stopping. Retry shortly.")


def _token_request(request: GenerateRequest, config: MusicGenConfig) -> TokenRequest[MusicGenCondition]:
    """Check a request against the model, and put it as the token engine takes it."""
    if not (math.isfinite(request.duration_s) and 0 < request.duration_s <= config.max_duration_s):
        raise InvalidInput(
            "duration_s",
            f"expected more than 0 and at most {config.max_duration_s:g} s, got {request.duration_s:g}. "
            "Ask for a shorter piece, and continue it from its end.",
        )
    if not 0 <= request.priority <= MAX_PRIORITY:
        raise InvalidInput("priority", f"expected 0 to {MAX_PRIORITY}, got {request.priority}. 0 is the usual one.")
    num_frames = max(1, math.ceil(request.duration_s * config.frame_rate_hz - _ROUNDING_FRAMES))
    prompt = _known_codes(request.prompt, "prompt", config)
    resume_from = _known_codes(request.resume_from, "resume_from", config)
    if prompt.shape[1] >= num_frames:
        raise InvalidInput(
            "prompt",
            f"expected fewer than the {num_frames} frames of the whole piece, got {prompt.shape[1]}. "
            "Ask for a longer duration_s, which counts the prompt, or send a shorter prompt.",
        )
    if prompt.shape[1] + resume_from.shape[1] >= num_frames:
        raise InvalidInput(
            "resume_from",
            f"expected fewer than the {num_frames - prompt.shape[1]} frames after the prompt, got "
            f"{resume_from.shape[1]}. A piece that is complete needs no resume.",
        )
    return TokenRequest(
        condition=MusicGenCondition(
            _text_states(request.text, config), _pitch_classes(request.melody, config, num_frames)
        ),
        num_frames=num_frames,
        prompt=prompt,
        resume_from=resume_from,
        sampling=_sampling(request.sampling, config),
        seed=request.seed,
        is_realtime=request.is_realtime,
        priority=request.priority,
    )


def _text_states(text: TextStates | None, config: MusicGenConfig) -> NDArray[np.float32] | None:
    if text is None:
        return None
    if not _is_same(text.encoder_id, config.text_encoder_id):
        raise InvalidInput(
            "text.encoder_id",
            f"expected states of the text encoder {config.text_encoder_id!r}, got {text.encoder_id!r}. "
            "Embed the text with that encoder.",
            reason="ENCODER_MISMATCH",
        )
    if text.dimension != config.text_dim:
        raise InvalidInput("text.dimension", f"expected {config.text_dim}, got {text.dimension}. Use that encoder.")
    if text.states.shape[0] > MAX_TEXT_TOKENS:
        raise InvalidInput(
            "text.token_states",
            f"expected at most {MAX_TEXT_TOKENS} tokens, got {text.states.shape[0]}. Shorten the text.",
        )
    return text.states


def _pitch_classes(melody: Chromagram | None, config: MusicGenConfig, num_frames: int) -> NDArray[np.int32] | None:
    """Bring a melody to the model's rate and the piece's length: cut, or repeated from its start as MusicGen does."""
    if melody is None:
        return None
    if config.melody_conditioning == "none":
        raise InvalidInput(
            "melody", "expected none: this model has no melody conditioning. Leave it out, or choose a model with it."
        )
    wanted = math.ceil(num_frames / config.frame_rate_hz * config.chroma_frame_rate_hz)
    wanted = min(max(1, wanted), config.chroma_frames)
    sources = (np.arange(wanted) * (melody.frame_rate_hz / config.chroma_frame_rate_hz)).astype(np.int64)
    return melody.pitch_classes[sources % melody.pitch_classes.size]


def _known_codes(tokens: TokenMatrix | None, field: str, config: MusicGenConfig) -> NDArray[np.int32]:
    if tokens is None:
        return np.zeros((config.num_codebooks, 0), dtype=np.int32)
    if not _is_same(tokens.codec_id, config.codec_id):
        raise InvalidInput(
            f"{field}.codec_id",
            f"expected tokens of the codec {config.codec_id!r}, got {tokens.codec_id!r}. "
            "Encode the audio with that codec.",
            reason="CODEC_MISMATCH",
        )
    if tokens.num_codebooks != config.num_codebooks:
        raise InvalidInput(f"{field}.codebook_count", f"expected {config.num_codebooks}, got {tokens.num_codebooks}.")
    if tokens.frame_rate_hz != config.frame_rate_hz:
        raise InvalidInput(
            f"{field}.frame_rate_hz", f"expected {config.frame_rate_hz:g}, got {tokens.frame_rate_hz:g}."
        )
    if tokens.codes.size and int(tokens.codes.max()) >= config.cardinality:
        raise InvalidInput(
            f"{field}.codes", f"expected codes below {config.cardinality}, got {int(tokens.codes.max())}."
        )
    return tokens.codes


def _sampling(options: SamplingOptions, config: MusicGenConfig) -> Sampling:
    if options.top_k is not None and options.top_k > config.cardinality:
        raise InvalidInput(
            "sampling.top_k",
            f"expected 0 (all) to {config.cardinality}, the codes of one codebook, got {options.top_k}.",
        )
    defaults = Sampling(config.temperature, min(config.top_k, config.cardinality), config.top_p, config.guidance_scale)
    return defaults.filled_from(options)


def _codec_id(request: GenerateRequest, config: MusicGenConfig) -> str:
    """Name the codec as the caller's own tokens do, digest included, so that the parts of a piece go together."""
    for tokens in (request.prompt, request.resume_from):
        if tokens is not None:
            return tokens.codec_id
    return config.codec_id


def _is_same(given: str, expected: str) -> bool:
    """Compare `{name}@{digest}` of what a caller sends with the model's own; where one has no digest, names decide."""
    given_name, _, given_digest = given.partition("@")
    name, _, digest = expected.partition("@")
    return given_name == name and (given_digest == digest or not given_digest or not digest)
