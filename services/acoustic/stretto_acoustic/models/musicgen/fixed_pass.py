"""`FixedPass`: one column for every row of some slots, always in the same shapes, so that a GPU can replay it.

All that differs from pass to pass lies in buffers: the columns, their places, what each row may look at. So a pass is
one list of kernels, which a CUDA graph records once and starts by one call; without a GPU it is computed each time.

Departure from `joined`: attention has all entries of a slot before it, whatever their number, and rows without a
column in this pass are computed too, and thrown away. So no kernel's shape, and no order of its sums, follows the
length of a neighbour or the number of pieces. `slot_attention` skips what nobody hears; where it does not run, a mask
hides it, and the whole cache is read in every pass.

Legend: R rows, K codebooks, D width, H heads, S entries of a slot, L text tokens, E width of a head, V cardinality.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from stretto_shared.engine.sampling import guide
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stretto_acoustic.models.musicgen.lm import MusicGenLM
from stretto_acoustic.models.musicgen.slot_cache import ROWS_PER_SLOT, SlotCache

Kernels = Callable[[], None]
Hear = Callable[[Tensor, Tensor, Tensor], Tensor]  # query, keys, values
AddAndHear = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # query, key, value, keys, values
Record = Callable[[Kernels], Kernels]  # runs what it is given, and returns what repeats it

_NUM_WARM_UPS = 3
_SPLIT_WIDTHS = (16, 32, 64, 128)  # of a head, that `slot_attention` takes
_BACKENDS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # those that take any mask and sum in a fixed order
_CAPTURING = threading.Lock()  # a capture synchronises the device, which would break another model thread's


@dataclass(frozen=True, eq=False)
class RowInput:
    """What one row reads in a pass.

    Args:
        row: Which, counted from the first of all slots.
        column: The column [K].
        position: Of the column in the piece.
        write_at: The entry of its slot that it becomes.
        first_entry: Where the steps within reach begin; they end with its own entry.
        num_prefix: Entries of the prefix that it hears.
        num_text: Text tokens that it hears.
    """

    row: int
    column: NDArray[np.int64]
    position: int
    write_at: int
    first_entry: int
    num_prefix: int
    num_text: int

    @property
    def places(self) -> tuple[int, ...]:
        """All but the column, in the order of a pass's inputs."""
        return self.position, self.write_at, self.first_entry, self.num_prefix, self.num_text


class FixedPass:
    """The pass of `num_slots` slots from `first_slot` on.

    Invariant: what is recorded once gives what the model computes, whatever the rows read then
    (`tests/services/acoustic/test_pooled_stepper.py`).

    Args:
        model: In eval mode, on the device that the cache is on.
        cache: Of all slots.
        guidance: A scale for each slot of the cache [slots]; NaN where a piece has no null row.
        first_slot: The first slot of this pass.
        num_slots: How many it has.
        record: Makes the kernels of a pass repeatable.
    """

    def __init__(
        self,
        model: MusicGenLM,
        cache: SlotCache,
        guidance: Tensor,
        *,
        first_slot: int,
        num_slots: int,
        record: Record,
    ) -> None:
        device = model.device
        self.first_slot = first_slot
        self._model = model
        self._cache = cache
        self._guidance = guidance.narrow(0, first_slot, num_slots)
        self._num_rows = ROWS_PER_SLOT * num_slots
        config = model.config
        self._num_codebooks = config.num_codebooks
        self._idle = _idle_rows(self._num_rows, cache, config.num_codebooks)
        self._inputs = torch.from_numpy(self._idle.copy()).to(device)  # [R, K + 5]
        self._rows = torch.arange(self._num_rows, device=device)
        self._entries = torch.arange(cache.num_entries, device=device)
        self._tokens = torch.arange(cache.text_room, device=device)
        self._logits = torch.zeros((num_slots, config.num_codebooks, config.cardinality), device=device)
        self._is_split = _splits(device, cache.steps.dtype, config.head_dim)
        self._run = record(self.compute)

    def __call__(self, inputs: Iterable[RowInput]) -> None:
        """Read a column in each of the rows given; the others rest."""
        table = self._idle.copy()
        reading = list(inputs)
        rows = [each.row - ROWS_PER_SLOT * self.first_slot for each in reading]
        table[rows, : self._num_codebooks] = [each.column for each in reading]
        table[rows, self._num_codebooks :] = [each.places for each in reading]
        self._inputs.copy_(torch.from_numpy(table))
        self._run()

    def logits(self) -> Tensor:
        """A copy of the last pass's guided float32 logits [slots, K, V], on the device, which may compute them yet."""
        return self._logits.clone()

    @torch.inference_mode()
    def compute(self) -> None:
        """The kernels of a pass: from the inputs and the cache to the logits."""
        model, cache = self._model, self._cache
        codes = self._inputs[:, : self._num_codebooks]
        position, *places = self._inputs[:, self._num_codebooks :].t().contiguous().unbind(0)  # [R] each
        x = model.embed_rows(codes, position)  # [R, 1, D]
        hear_steps, hear_text = self._split(*places) if self._is_split else self._masked(*places)
        first_row = ROWS_PER_SLOT * self.first_slot
        for index, block in enumerate(model.blocks()):
            keys, values = cache.steps[index].narrow(1, first_row, self._num_rows)  # [R, H, S, E] each
            query, key, value = block.qkv(x)
            x = block.add_self(x, hear_steps(query, key, value, keys, values))
            if block.has_cross_attention:
                keys, values = cache.texts[index].narrow(1, first_row, self._num_rows)  # [R, H, L, E] each
                x = block.add_cross(x, hear_text(block.cross_query(x), keys, values))
            x = block.add_feed_forward(x)
        logits = model.row_logits(x).float()  # [R, K, V]
        conditional, null = logits[::ROWS_PER_SLOT], logits[1::ROWS_PER_SLOT]
        scale = self._guidance[:, None, None]
        self._logits.copy_(torch.where(scale.isnan(), conditional, guide(conditional, null, scale)))

    def _split(
        self, write_at: Tensor, first_entry: Tensor, num_prefix: Tensor, num_text: Tensor
    ) -> tuple[AddAndHear, Hear]:
        """Attention by the kernels that read what is heard; they write the new entries, too."""
        from stretto_acoustic.models.musicgen.slot_attention import attend

        zero = torch.zeros_like(num_text)
        text = (zero, num_text - 1, zero)

        def hear_steps(query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            return attend(query, keys, values, first_entry, write_at, num_prefix, (key, value))

        return hear_steps, lambda query, keys, values: attend(query, keys, values, *text)

    def _masked(
        self, write_at: Tensor, first_entry: Tensor, num_prefix: Tensor, num_text: Tensor
    ) -> tuple[AddAndHear, Hear]:
        """Attention to everything, under a mask."""
        dtype = self._cache.steps.dtype
        bias = self._bias(write_at, first_entry, num_prefix, dtype)
        text_bias = _bias_of(self._tokens < num_text[:, None], dtype)

        def hear_steps(query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            keys[self._rows, :, write_at] = key[:, :, 0]
            values[self._rows, :, write_at] = value[:, :, 0]
            return _attend(query, keys, values, bias)

        return hear_steps, lambda query, keys, values: _attend(query, keys, values, text_bias)

    def _bias(self, write_at: Tensor, first_entry: Tensor, num_prefix: Tensor, dtype: torch.dtype) -> Tensor:
        entries = self._entries
        is_step = (entries >= first_entry[:, None]) & (entries <= write_at[:, None])
        return _bias_of(is_step | (entries < num_prefix[:, None]), dtype)


def recorder_for(device: torch.device) -> Record:
    """What makes passes on a device repeatable: CUDA graphs on a GPU; elsewhere they are computed each time."""
    return _cuda_graphs() if device.type == "cuda" else _as_they_are


def _cuda_graphs() -> Record:
    """Graphs that share one memory: none runs beside another, and what comes out is copied to a buffer outside."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    pool = torch.cuda.graph_pool_handle()

    def record(kernels: Kernels) -> Kernels:
        with _CAPTURING:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):  # until every library has its workspace
                for _ in range(_NUM_WARM_UPS):
                    kernels()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # other models' threads may allocate meanwhile
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                kernels()
        replay: Kernels = graph.replay
        return replay

    return record


def _as_they_are(kernels: Kernels) -> Kernels:
    return kernels


def _idle_rows(num_rows: int, cache: SlotCache, num_codebooks: int) -> NDArray[np.int64]:
    """Inputs of rows that rest: code 0 at position 0, written to the spare entry, which alone is looked at."""
    spare = cache.spare_entry
    return np.tile(np.array([*[0] * num_codebooks, 0, spare, spare, 0, 1], dtype=np.int64), (num_rows, 1))


def _splits(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether `slot_attention` runs here."""
    if device.type != "cuda" or width not in _SPLIT_WIDTHS or find_spec("triton") is None:
        return False
    from stretto_acoustic.models.musicgen.slot_attention import runs_on

    return runs_on(device, dtype, width)


def _attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    with sdpa_kernel(_BACKENDS):
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=bias)


def _bias_of(is_heard: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn what rows may look at [R, N] into a bias [R, 1, 1, N] of 0 and -inf."""
    zeros = torch.zeros(is_heard.shape, dtype=dtype, device=is_heard.device)
    return zeros.masked_fill(~is_heard, -torch.inf)[:, None, None]
