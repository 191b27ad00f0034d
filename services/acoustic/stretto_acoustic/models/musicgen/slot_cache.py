"""`SlotCache`: the memory of every slot of a pool, allocated once, where a pass of fixed shape finds it.

A slot has two rows, the conditional one and the null one beside it. Along S lie the prefix, then the steps, then what
fills up to a multiple of 16; the last entry is a spare one, which rows that do not take part in a pass write to and
nobody reads.

Legend: R rows, H heads, S entries, L text tokens, E width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from stretto_acoustic.models.musicgen.conditions import MAX_PREFIX_TEXT_TOKENS
from stretto_acoustic.models.musicgen.config import MusicGenConfig
from stretto_acoustic.models.musicgen.lm import MusicGenLM
from stretto_acoustic.models.musicgen.state import MusicGenState

ROWS_PER_SLOT = 2
_ALIGNMENT = 16  # of masks, in entries: the attention kernels of a GPU would copy others


class SlotCache:
    """Keys and values of `num_slots` slots, and of the texts that they hear.

    Invariant: `fill` leaves nothing of what a slot held before (`tests/services/acoustic/test_pooled_stepper.py`).
    """

    def __init__(self, model: MusicGenLM, num_slots: int) -> None:
        config, weight = model.config, model.embeddings.weight
        self.num_slots = num_slots
        self.prefix_room, self.num_entries, self.text_room = _rooms(config)
        rows = (config.num_layers, 2, ROWS_PER_SLOT * num_slots, config.num_heads)
        self.steps: Tensor = weight.new_zeros((*rows, self.num_entries, config.head_dim))  # [layers, 2, R, H, S, E]
        self.texts: Tensor = weight.new_zeros((*rows, self.text_room, config.head_dim))  # [layers, 2, R, H, L, E]

    @staticmethod
    def slot_bytes(config: MusicGenConfig, element_size: int) -> int:
        """Bytes that one slot takes, however much of it is used."""
        _, num_entries, text_room = _rooms(config)
        return 2 * config.num_layers * ROWS_PER_SLOT * config.dim * (num_entries + text_room) * element_size

    @property
    def num_bytes(self) -> int:
        return sum(each.numel() * each.element_size() for each in (self.steps, self.texts))

    @property
    def spare_entry(self) -> int:
        return self.num_entries - 1

    def fill(self, slot: int, state: MusicGenState) -> None:
        """Forget what `slot` held, and take over the prefix and the text of `state`.

        Raises:
            ValueError: If they are longer than a slot has room for.
        """
        length = state.prefix_length
        text_length = state.memories[0][0].shape[2] if state.memories else 0
        if length > self.prefix_room or text_length > self.text_room:
            raise ValueError(
                f"expected a prefix of at most {self.prefix_room} entries and a text of at most {self.text_room} "
                f"tokens, got {length} and {text_length}. Shorten them."
            )
        rows = slice(ROWS_PER_SLOT * slot, ROWS_PER_SLOT * slot + state.batch_size)
        for buffer in (self.steps, self.texts):  # masked entries count as 0 times what is there, which must be finite
            buffer.narrow(2, ROWS_PER_SLOT * slot, ROWS_PER_SLOT).zero_()
        # one copy for all layers: on a GPU, starting a copy for each would take longer than all else here
        if length:
            self.steps[:, :, rows, :, :length] = _stacked(
                [each[:, :, :length] for each in parts] for parts in state.caches
            )
        if text_length:
            self.texts[:, :, rows, :, :text_length] = _stacked(state.memories)


def _stacked(layers: Iterable[Sequence[Tensor]]) -> Tensor:
    """Keys and values of all layers as [layers, 2, R, H, L, E]."""
    stacked = torch.stack([each for parts in layers for each in parts])
    return stacked.view(-1, 2, *stacked.shape[1:])


def _rooms(config: MusicGenConfig) -> tuple[int, int, int]:
    """Entries of the prefix, entries in all, and text tokens of a row."""
    prefix_room = 0 if config.melody_conditioning == "none" else config.chroma_frames
    prefix_room += 0 if config.has_cross_attention else MAX_PREFIX_TEXT_TOKENS
    num_used = prefix_room + config.max_steps + 1
    num_entries = -(-num_used // _ALIGNMENT) * _ALIGNMENT
    return prefix_room, num_entries, MAX_PREFIX_TEXT_TOKENS if config.has_cross_attention else 0
