"""MusicGen's language model: a transformer decoder over the delayed streams of a codec's tokens.

Paper: Copet et al., "Simple and Controllable Music Generation", 2023, https://arxiv.org/abs/2306.05284; the geometry
and the arithmetic are those of the released checkpoints: K embedding tables summed, sinusoidal positions (cosines
first), pre-norm blocks of causal self-attention, cross-attention to the projected text states and a GELU feed-forward
layer, none with biases, a final norm, and K heads. Held to `transformers`' implementation by
`tests/services/acoustic/test_musicgen_parity.py`.

Conditions and their absence, the same in training and in inference:

- Text: states are projected, then multiplied by their mask. A row whose mask is all 0 attends over zeros, and since
  nothing has a bias its cross-attention adds exactly zero. That is the null text of classifier-free guidance.
- Melody, "prefix": one-hot pitch classes (-1, silence, is the zero vector) are projected and prepended. A row whose
  classes are all -1 hides its prefix from attention, which is the same as no prefix: that is the null melody.
- Melody, "prefix_only" (published melody checkpoints): projected chroma, then projected text, are prepended; positions
  run on; null is zeroed text and the class C throughout, as in `transformers`.

Departures: (0) `attention_frames` may bound how far back self-attention reaches; 0, as published, does not. (1) q, k
and v are one matrix, the K tables one table, the K heads one matrix: the same arithmetic, fewer kernels. (2) With
"prefix", which no published checkpoint has together with cross-attention, prefix frame j stands at the position of the
token frame that sounds at the same moment, and token positions start at 0, so that the null melody equals an absent
one. (3) Embeddings start with the energy of the positions, which helps a small budget.

Legend: B batch, K codebooks, T steps (columns of the delay pattern), P prefix, L text tokens, D width, H heads,
E width of a head, V cardinality. Refuses to know: files, threads, sampling, requests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretto_acoustic.models.musicgen.block import MusicGenBlock
from stretto_acoustic.models.musicgen.conditions import (
    MAX_PREFIX_TEXT_TOKENS,
    Conditioner,
    Conditions,
    sinusoidal_positions,
)
from stretto_acoustic.models.musicgen.config import MusicGenConfig
from stretto_acoustic.models.musicgen.joined import Feed, Span, run_blocks, spans_of
from stretto_acoustic.models.musicgen.state import MusicGenState


class MusicGenLM(nn.Module):
    """MusicGen's language model; see the module's docstring for what it computes.

    Invariant: `step` after `init_state` gives the logits of `forward` up to rounding, and a change of column t
    changes no logits before t (`tests/services/acoustic/test_musicgen_model.py`).
    """

    position_table: Tensor
    code_offsets: Tensor

    def __init__(self, config: MusicGenConfig) -> None:
        super().__init__()
        self.config = config
        rows = config.num_codebooks * (config.cardinality + 1)
        self.embeddings = nn.Embedding(rows, config.dim)
        self.conditioner = Conditioner(config)
        self.layers = nn.ModuleList(MusicGenBlock(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim)
        self.heads = nn.Linear(config.dim, config.num_codebooks * config.cardinality, bias=False)
        self.register_buffer("position_table", self._make_position_table(), persistent=False)
        self.register_buffer("code_offsets", self._make_code_offsets(), persistent=False)
        self.reset_parameters()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.embeddings.weight.device

    def reset_parameters(self) -> None:
        """Draw the weights anew: truncated normals of variance 1 / fan-in, less in deeper blocks as in audiocraft."""
        for index, block in enumerate(self.blocks()):
            for module in block.modules():
                if isinstance(module, nn.Linear):
                    _draw(module.weight, 1 / math.sqrt(module.in_features * 2 * (index + 1)))
        text_proj = self.conditioner.text_proj
        for linear in (text_proj, self.heads):
            _draw(linear.weight, 1 / math.sqrt(linear.in_features))
        nn.init.zeros_(text_proj.bias)
        if self.config.melody_conditioning != "none":
            _draw(self.conditioner.chroma_proj.weight, math.sqrt(0.5))
            nn.init.zeros_(self.conditioner.chroma_proj.bias)
        _draw(self.embeddings.weight, math.sqrt(0.5 / self.config.num_codebooks))

    def forward(
        self,
        codes: Tensor,
        text_states: Tensor | None = None,
        text_mask: Tensor | None = None,
        chroma: Tensor | None = None,
        first_frame: int = 0,
    ) -> Tensor:
        """Predict every next column at once.

        Args:
            codes: Delayed columns [B, K, T] with special tokens; column 0 is special.
            text_states: [B, L, text_dim], or None for no text at all.
            text_mask: [B, L], 1 for a token, 0 for padding; all 0 is the null text. None: every token counts.
            chroma: Pitch classes [B, P] with -1 for silence; all -1 is the null melody. None: no melody.
            first_frame: Where in a longer piece these columns stand, for training on crops. Not with "prefix_only".

        Returns:
            Logits [B, K, T, V]; those of step t are of column t + 1.
        """
        x = self._embed(codes)  # [B, T, D]
        conditions: Conditions = self.conditioner(text_states, text_mask, chroma, first_frame)
        x = x + self._positions(conditions.first_position, x.shape[1]).to(x.dtype)
        if conditions.prefix is not None:
            x = torch.cat([conditions.prefix.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)
        reach = self.config.attention_frames if self.config.attention_frames < codes.shape[-1] else 0
        self_mask = _self_mask(conditions.is_prefix_heard, conditions.prefix_length, x.shape[1], reach, x.device)
        x = F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x
        for block in self.blocks():
            query, key, value = block.qkv(x)
            attended = F.scaled_dot_product_attention(
                query, key, value, attn_mask=self_mask, is_causal=self_mask is None
            )
            memory = None if conditions.text is None else block.memory(conditions.text)
            x = block.finish(x, attended, memory, conditions.cross_bias)
        return self._logits(self.norm(x[:, conditions.prefix_length :]))

    def init_state(
        self,
        batch_size: int,
        max_steps: int,
        text_states: Tensor | None = None,
        text_mask: Tensor | None = None,
        chroma: Tensor | None = None,
    ) -> MusicGenState:
        """Allocate caches of `max_steps` steps and fill in what the conditions decide; arguments as in `forward`."""
        config, weight = self.config, self.embeddings.weight
        conditions: Conditions = self.conditioner(text_states, text_mask, chroma)
        length = conditions.prefix_length
        shape = (batch_size, config.num_heads, length + max_steps, config.head_dim)
        memories = [] if conditions.text is None else [block.memory(conditions.text) for block in self.blocks()]
        state = MusicGenState(
            caches=[(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in range(config.num_layers)],
            memories=[(key.contiguous(), value.contiguous()) for key, value in memories],
            cross_bias=conditions.cross_bias,
            prefix_bias=None,
            prefix_length=length,
            first_position=conditions.first_position,
        )
        if conditions.prefix is not None:
            self._fill_prefix(state, conditions.prefix.expand(batch_size, -1, -1), conditions.is_prefix_heard)
        return state

    def step(self, codes: Tensor, state: MusicGenState, *, with_logits: bool = True) -> Tensor | None:
        """Read one column [B, K] and advance the state in place.

        Returns:
            Logits [B, K, V] of the next column; None without `with_logits`, for columns whose successor is known.

        Raises:
            ValueError: If the state's `max_steps` are used up.
        """
        return self.read([Feed(state, codes[:, :, None], with_logits)])[0]

    def read(self, feeds: Sequence[Feed], *, min_rows: int = 1) -> list[Tensor | None]:
        """Read the columns of several states in one pass of the linear layers, and advance the states in place.

        A row's result depends on its neighbours only as far as the linear layers make it: `row_invariance` tells.

        Args:
            feeds: States, each with one or more columns.
            min_rows: Least number of rows in any product; rows of zeros fill up.

        Returns:
            For each feed the logits [B, K, V] after its last column, or None where it wants none.

        Raises:
            ValueError: If a state's `max_steps` are used up. Whatever is raised, no state has advanced.
        """
        spans = spans_of(feeds)
        x = torch.cat([self._embed_columns(feed) for feed in feeds])  # [N, 1, D]
        x = run_blocks(self.blocks(), _padded(x, min_rows), spans, self.config.attention_frames)
        logits = self._last_logits(x, [span for feed, span in zip(feeds, spans) if feed.with_logits], min_rows)
        for feed in feeds:
            feed.state.num_steps += feed.num_columns
        return [next(logits) if feed.with_logits else None for feed in feeds]

    def embed_rows(self, codes: Tensor, positions: Tensor) -> Tensor:
        """Embed one column [N, K] a row, each at a position [N] of its own, as [N, 1, D]."""
        embedded = self._embed(codes[:, :, None])
        return embedded + self.position_table[positions][:, None].to(embedded.dtype)

    def row_logits(self, x: Tensor) -> Tensor:
        """Logits [N, K, V] of rows [N, 1, D] that come from the last block."""
        return self._logits(self.norm(x))[:, :, 0]

    def embed_columns(self, codes: Tensor, first_position: int) -> Tensor:
        """Embed consecutive columns [K, C] of one piece, positions added, as [C, D]; a column's bytes are its own."""
        entries = self.embeddings(codes + self.code_offsets)  # [K, C, D]
        embedded: Tensor = entries[0]
        for of_codebook in entries[1:]:
            embedded = embedded + of_codebook
        return embedded + self._positions(first_position, codes.shape[1])

    def reset_buffers(self) -> None:
        """Compute what no checkpoint holds; needed after building on the meta device."""
        self.position_table = self._make_position_table()
        self.code_offsets = self._make_code_offsets()

    def blocks(self) -> list[MusicGenBlock]:
        """The blocks of the transformer, in order."""
        return [block for block in self.layers if isinstance(block, MusicGenBlock)]

    def num_parameters(self) -> int:
        """Count the parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def kv_bytes_per_step(self, batch_size: int = 1) -> int:
        """Bytes that one step adds to the caches of a state of `batch_size` rows."""
        return 2 * self.config.num_layers * batch_size * self.config.dim * self.embeddings.weight.element_size()

    def flops_per_step(self, batch_size: int = 1) -> int:
        """Multiply-adds, times 2, of one step's matrix products without attention over the caches."""
        config = self.config
        block = config.dim * ((6 if config.has_cross_attention else 4) * config.dim + 2 * config.ffn_dim)
        heads = config.dim * config.num_codebooks * config.cardinality
        return 2 * batch_size * (config.num_layers * block + heads)

    def _embed(self, codes: Tensor) -> Tensor:
        embedded: Tensor = self.embeddings(codes + self.code_offsets).sum(dim=1)  # [B, K, T] -> [B, T, D]
        return embedded

    def _embed_columns(self, feed: Feed) -> Tensor:
        """The columns of a feed [B, K, C] as rows [C * B, 1, D], positions added, column by column."""
        state = feed.state
        positions = self._positions(state.first_position + state.num_steps, feed.num_columns)
        columns = feed.codes.permute(2, 0, 1)  # [C, B, K]
        embedded = self._embed(columns.flatten(0, 1)[:, :, None])  # [C * B, 1, D]
        return embedded + positions.repeat_interleave(state.batch_size, dim=0)[:, None].to(embedded.dtype)

    def _last_logits(self, x: Tensor, spans: Sequence[Span], min_rows: int) -> Iterator[Tensor]:
        """Logits [B, K, V] after the last column of each span, from the rows [N, 1, D] of the last block."""
        if not spans:
            return iter(())
        sizes = [span.batch_size for span in spans]
        if sum(sizes) < x.shape[0]:
            x = torch.cat([x[span.last_rows] for span in spans])
        return iter(torch.split(self._logits(self.norm(_padded(x, min_rows)))[: sum(sizes), :, 0], sizes))

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.heads(x)  # [B, T, K * V]
        return logits.view(*x.shape[:2], self.config.num_codebooks, self.config.cardinality).transpose(1, 2)

    def _positions(self, start: int, count: int) -> Tensor:
        if start + count > self.position_table.shape[0]:
            raise ValueError(f"expected at most {self.position_table.shape[0]} positions, got {start + count}.")
        return self.position_table[start : start + count]

    def _make_code_offsets(self) -> Tensor:
        """Where each codebook's rows begin in the one table [K, 1]."""
        return torch.arange(self.config.num_codebooks)[:, None] * (self.config.cardinality + 1)

    def _make_position_table(self) -> Tensor:
        config = self.config
        room = config.max_steps + 1
        if not config.has_cross_attention:
            room += config.chroma_frames + MAX_PREFIX_TEXT_TOKENS
        return sinusoidal_positions(torch.arange(room), config.dim)

    def _fill_prefix(self, state: MusicGenState, prefix: Tensor, is_heard: Tensor | None) -> None:
        """Run the prefix through the blocks and keep its keys and values."""
        length = state.prefix_length
        x = prefix.to(self.embeddings.weight.dtype)
        for index, block in enumerate(self.blocks()):
            query, key, value = block.qkv(x)
            keys, values = state.caches[index]
            keys[:, :, :length] = key
            values[:, :, :length] = value
            attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = block.finish(x, attended, state.memories[index] if state.memories else None, state.cross_bias)
        if is_heard is not None:
            bias = x.new_zeros((x.shape[0], 1, 1, length + state.max_steps))
            bias[..., :length].masked_fill_(~is_heard[:, None, None], -math.inf)
            state.prefix_bias = bias


def _self_mask(is_heard: Tensor | None, prefix: int, length: int, reach: int, device: torch.device) -> Tensor | None:
    """Mask [B or 1, 1, P + T, P + T], True where attention may look; None where that is the whole past.

    An unheard prefix is seen by itself only; with `reach`, a step sees that many steps, and the prefix.
    """
    if is_heard is None and not reach:
        return None
    mask = torch.ones((1, length, length), dtype=torch.bool, device=device).tril()
    if reach:
        mask[:, prefix:, prefix:] &= torch.ones_like(mask[0, prefix:, prefix:]).triu(1 - reach)
    if is_heard is not None:
        mask = mask.repeat(is_heard.shape[0], 1, 1)
        mask[:, prefix:, :prefix] &= is_heard[:, None]
    return mask[:, None]


def _padded(x: Tensor, min_rows: int) -> Tensor:
    """Rows [N, 1, D] with zeros after them up to `min_rows`."""
    return x if x.shape[0] >= min_rows else F.pad(x, (0, 0, 0, 0, 0, min_rows - x.shape[0]))


def _draw(weight: Tensor, std: float) -> None:
    nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std)
