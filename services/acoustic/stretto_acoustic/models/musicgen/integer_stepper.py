"""`IntegerStepper`: MusicGen's language model over integers, as the token engine drives it, guidance included.

For a `MusicGenLM` whose matrices are `LowBitLinear`. What it knows of MusicGen is what goes into the decoder and comes
out: embeddings and positions, which rows a request has, what each of them hears. The null row of guidance has no text
and no melody, so it hears no memory and no prefix, which gives what MusicGen's null text and null melody give: nothing.

Caches are of eight bits or four, a quarter or an eighth of float32's. Rows never depend on each other, so any requests
and any number of columns share a pass.

Legend: N rows of a pass, K codebooks, C columns of a request, D width, P prefix frames, L text tokens, V cardinality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_shared.engine.program import StateCost
from stretto_shared.engine.self_test import joins_exactly
from stretto_shared.nn.lowbit import (
    ColumnEmbedding,
    DecoderBlock,
    DecoderLayers,
    DecoderRow,
    IntegerDecoder,
    LowBitLinear,
    NativeDecoder,
    NativeKernel,
    ReferenceDecoder,
    cache_bytes,
    guided_rows,
)
from torch import Tensor

from stretto_acoustic.models.musicgen.block import MusicGenBlock
from stretto_acoustic.models.musicgen.conditions import Conditions
from stretto_acoustic.models.musicgen.lm import MusicGenLM
from stretto_acoustic.models.musicgen.stepper import (
    MusicGenCondition,
    OfMusicGen,
    condition_tensors,
    num_rows_of,
)

_PREFIX_ROWS_AT_ONCE = 64


@dataclass(eq=False)
class IntegerState:
    """One request: a row, or a conditional and a null one."""

    cache: Any
    heard_prefix: tuple[int, ...]  # for each row, how much of the prefix it hears
    guidance_scale: float
    max_steps: int
    memory: Any | None = None  # of the conditional row alone
    memory_length: int = 0
    prefix_length: int = 0
    first_position: int = 0
    num_steps: int = 0

    @property
    def num_rows(self) -> int:
        return len(self.heard_prefix)


@dataclass(eq=False)
class _Plan:
    """The rows of a pass, the position and the codes of each, and which of them are wanted."""

    rows: list[DecoderRow[Any]] = field(default_factory=list)
    columns: list[list[int]] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)


class IntegerStepper(OfMusicGen):
    """Drives a `MusicGenLM` of integer matrices; implements `StepModel`.

    Invariant: a request's logits depend on nothing but the request
    (`tests/services/acoustic/test_integer_stepper.py`).

    Args:
        model: In eval mode, on its thread; embeddings, norms and conditioner in float32.
        joins: Whether requests share passes; the bytes are the same.
        kv_budget_bytes: Caches of pieces that have ended stay for new ones, as long as all take no more than this.
    """

    def __init__(self, model: MusicGenLM, *, joins: bool = True, kv_budget_bytes: int = 0) -> None:
        self._model = model
        self._joins = joins
        layers, self._kernel = _decoder_layers(model), _integers(model.heads).kernel
        self._decoder: IntegerDecoder[Any] = (
            ReferenceDecoder(layers)
            if self._kernel is None
            else NativeDecoder(layers, self._kernel, kept_bytes=kv_budget_bytes)
        )
        self._columns = ColumnEmbedding(
            model.embeddings.weight, model.position_table, model.config.num_codebooks, self._kernel
        )

    @classmethod
    def tried(cls, model: MusicGenLM, *, kv_budget_bytes: int = 0) -> IntegerStepper:
        """Let requests share passes, after a trial that no bit changes; each alone if one did."""
        joined = cls(model, kv_budget_bytes=kv_budget_bytes)
        if joins_exactly(joined, joined.trials()):
            return joined
        return cls(model, joins=False, kv_budget_bytes=kv_budget_bytes)

    @property
    def is_row_invariant(self) -> bool:
        return self._joins

    @property
    def min_rows(self) -> int:
        return 1

    @property
    def kernel(self) -> NativeKernel | None:
        """What draws the tokens as well."""
        return self._kernel

    def cost(self, condition: MusicGenCondition, *, num_steps: int, guidance_scale: float) -> StateCost:
        """Rows of a request, and bytes of its caches: its steps, its prefix and its text."""
        config = self._model.config
        num_rows = num_rows_of(condition, guidance_scale)
        if guidance_scale == 0:
            condition = MusicGenCondition()
        num_text = 0 if condition.text_states is None else condition.text_states.shape[0]
        num_prefix = 0 if condition.pitch_classes is None else condition.pitch_classes.size
        if config.melody_conditioning == "prefix_only":
            num_prefix, num_text = config.chroma_frames + num_text, 0
        num_bytes = self._cache_bytes(num_rows, num_prefix + num_steps) + self._cache_bytes(1, num_text)
        return StateCost(num_rows, num_bytes)

    @torch.inference_mode()
    def open(self, condition: MusicGenCondition, *, num_steps: int, guidance_scale: float) -> IntegerState:
        """Allocate the caches of a request, project its conditions, and read its prefix."""
        if guidance_scale == 0:
            condition = MusicGenCondition()
        num_rows = num_rows_of(condition, guidance_scale)
        conditions: Conditions = self._model.conditioner(*condition_tensors(self._model, condition, num_rows))
        length = conditions.prefix_length
        heard = [length] * num_rows
        if conditions.is_prefix_heard is not None:
            heard = [length if is_heard else 0 for is_heard in conditions.is_prefix_heard.any(dim=1).tolist()]
        state = IntegerState(
            self._decoder.new_cache(num_rows, length + num_steps),
            tuple(heard),
            guidance_scale,
            num_steps,
            prefix_length=length,
            first_position=conditions.first_position,
        )
        if conditions.text is not None:
            self._fill_memory(state, conditions.text[0])
        if conditions.prefix is not None:
            self._fill_prefix(state, conditions.prefix.expand(num_rows, -1, -1))
        return state

    @torch.inference_mode()
    def step(
        self, states: Sequence[IntegerState], columns: Sequence[NDArray[np.int64]], wants_logits: Sequence[bool]
    ) -> list[Tensor | None]:
        """Read columns [K, c] for each state in one pass; return guided float32 logits [K, V] where they are wanted."""
        plan = _Plan()
        for state, codes, wants in zip(states, columns, wants_logits, strict=True):
            num_columns = codes.shape[1]
            if state.num_steps + num_columns > state.max_steps:
                raise ValueError(f"the state holds {state.max_steps} steps and all are used; allocate more.")
            position = state.first_position + state.num_steps
            for column, numbers in enumerate(codes.T.tolist()):
                plan.rows += self._rows_of(state, state.num_steps + column)
                plan.columns += [[position + column, *numbers]] * state.num_rows
            if wants:
                plan.wanted += range(len(plan.rows) - state.num_rows, len(plan.rows))
        logits = self._decoder.read(self._columns.rows(plan.columns), plan.rows, plan.wanted)
        for state, codes in zip(states, columns):
            state.num_steps += codes.shape[1]
        return self._guided(states, wants_logits, logits)

    def _rows_of(self, state: IntegerState, step: int) -> list[DecoderRow[Any]]:
        """The rows of one column of a request."""
        reach = self._model.config.attention_frames
        start = max(0, step + 1 - reach) if reach else 0
        at = state.prefix_length + step
        return [
            DecoderRow(
                state.cache,
                row,
                at,
                heard,
                state.prefix_length + start,
                state.memory if row == 0 else None,
                state.memory_length if row == 0 else 0,
            )
            for row, heard in enumerate(state.heard_prefix)
        ]

    def _guided(
        self, states: Sequence[IntegerState], wants_logits: Sequence[bool], logits: Tensor
    ) -> list[Tensor | None]:
        wanting = [state for state, wants in zip(states, wants_logits) if wants]
        scales = [state.guidance_scale if state.num_rows == 2 else None for state in wanting]
        shape = self._model.config.num_codebooks, self.cardinality
        rows = iter([row.view(shape) for row in guided_rows(logits, scales, self._kernel)])
        return [next(rows) if wants else None for wants in wants_logits]

    def _fill_memory(self, state: IntegerState, text: Tensor) -> None:
        """Keys and values of the projected text [L, D] in every block."""
        state.memory, state.memory_length = self._decoder.new_cache(1, text.shape[0]), text.shape[0]
        for index, block in enumerate(self._model.blocks()):
            keys, values = _integers(block.cross_kv)(text).chunk(2, dim=1)
            self._decoder.remember(state.memory, index, keys, values)

    def _fill_prefix(self, state: IntegerState, prefix: Tensor) -> None:
        """Run the prefix [B, P, D] through the blocks, for the rows that hear it, and keep its keys and values."""
        rows, vectors = [], []
        for frame in range(state.prefix_length):
            for row, heard in enumerate(state.heard_prefix):
                if heard:
                    memory, length = (state.memory, state.memory_length) if row == 0 else (None, 0)
                    rows.append(DecoderRow(state.cache, row, frame, 0, 0, memory, length))
                    vectors.append(prefix[row, frame])
        for first in range(0, len(rows), _PREFIX_ROWS_AT_ONCE):
            some = slice(first, first + _PREFIX_ROWS_AT_ONCE)
            self._decoder.read(torch.stack(vectors[some]), rows[some], [])

    def _cache_bytes(self, num_rows: int, num_steps: int) -> int:
        config = self._model.config
        return cache_bytes(
            config.num_layers,
            num_rows,
            num_steps,
            num_heads=config.num_heads,
            head_dim=config.head_dim,
            cache_bits=_integers(self._model.heads).cache_bits,
        )


def is_integer(model: MusicGenLM) -> bool:
    """Whether the model's matrices are integers, which this stepper wants."""
    return isinstance(model.heads, LowBitLinear)


def _decoder_layers(model: MusicGenLM) -> DecoderLayers:
    """The layers of a MusicGen model as the integer decoder takes them."""
    return DecoderLayers(
        [_decoder_block(block) for block in model.blocks()],
        model.norm,
        _integers(model.heads),
        model.config.num_heads,
        _integers(model.heads).cache_bits,
    )


def _decoder_block(block: MusicGenBlock) -> DecoderBlock:
    hears = block.has_cross_attention
    return DecoderBlock(
        block.norm_self,
        _integers(block.self_qkv),
        _integers(block.self_out),
        block.norm_ffn,
        _integers(block.ffn_in),
        _integers(block.ffn_out),
        block.norm_cross if hears else None,
        _integers(block.cross_q) if hears else None,
        _integers(block.cross_out) if hears else None,
    )


def _integers(layer: object) -> LowBitLinear:
    if not isinstance(layer, LowBitLinear):
        raise ValueError(f"expected a layer of integers, got {layer}. Load the model in int8 or int4.")
    return layer
