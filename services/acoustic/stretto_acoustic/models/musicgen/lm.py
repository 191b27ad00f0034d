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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretto_acoustic.models.musicgen.conditions import (
    MAX_PREFIX_TEXT_TOKENS,
    Conditioner,
    Conditions,
    sinusoidal_positions,
)
from stretto_acoustic.models.musicgen.config import MusicGenConfig
from stretto_acoustic.models.musicgen.state import Memory, MusicGenState


class MusicGenBlock(nn.Module):
    """One pre-norm block: self-attention, cross-attention where the model has it, feed-forward."""

    def __init__(self, config: MusicGenConfig) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.norm_self = nn.LayerNorm(dim)
        self.self_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.self_out = nn.Linear(dim, dim, bias=False)
        self.has_cross_attention = config.has_cross_attention
        if self.has_cross_attention:
            self.norm_cross = nn.LayerNorm(dim)
            self.cross_q = nn.Linear(dim, dim, bias=False)
            self.cross_kv = nn.Linear(dim, 2 * dim, bias=False)
            self.cross_out = nn.Linear(dim, dim, bias=False)
        self.norm_ffn = nn.LayerNorm(dim)
        self.ffn_in = nn.Linear(dim, config.ffn_dim, bias=False)
        self.ffn_out = nn.Linear(config.ffn_dim, dim, bias=False)

    def split_heads(self, x: Tensor, num_parts: int) -> tuple[Tensor, ...]:
        """Split [B, T, num_parts * D] into tensors [B, H, T, E]."""
        batch, steps, width = x.shape
        parts = x.view(batch, steps, num_parts, self.num_heads, width // num_parts // self.num_heads)
        return parts.permute(2, 0, 3, 1, 4).unbind(0)

    def memory(self, text: Tensor) -> Memory:
        """Keys and values [B, H, L, E] of the projected text [B, L, D]."""
        keys, values = self.split_heads(self.cross_kv(text), 2)
        return keys, values

    def qkv(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values [B, H, T, E] of the hidden states [B, T, D]."""
        return self.split_heads(self.self_qkv(self.norm_self(x)), 3)

    def finish(self, x: Tensor, attended: Tensor, memory: Memory | None, bias: Tensor | None) -> Tensor:
        """Everything after self-attention: `attended` [B, H, T, E] onto the hidden states [B, T, D]."""
        x = x + self._drop(self.self_out(_join_heads(attended)))
        if memory is not None:
            (query,) = self.split_heads(self.cross_q(self.norm_cross(x)), 1)
            heard = F.scaled_dot_product_attention(query, memory[0], memory[1], attn_mask=bias)
            x = x + self._drop(self.cross_out(_join_heads(heard)))
        return x + self._drop(self.ffn_out(F.gelu(self.ffn_in(self.norm_ffn(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


def _join_heads(x: Tensor) -> Tensor:
    batch, heads, steps, width = x.shape
    return x.transpose(1, 2).reshape(batch, steps, heads * width)


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
        if state.num_steps >= state.max_steps:
            raise ValueError(f"the state holds {state.max_steps} steps and all are used; allocate more.")
        at = state.prefix_length + state.num_steps
        start = self._first_in_reach(state)
        x = self._embed(codes[:, :, None]) + self._positions(state.first_position + state.num_steps, 1)
        bias = None if state.prefix_bias is None else _in_reach(state.prefix_bias, state, start, at + 1, dim=3)
        for index, block in enumerate(self.blocks()):
            query, key, value = block.qkv(x)
            keys, values = state.caches[index]
            keys.narrow(2, at, 1).copy_(key)
            values.narrow(2, at, 1).copy_(value)
            keys, values = _in_reach(keys, state, start, at + 1), _in_reach(values, state, start, at + 1)
            attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias)
            x = block.finish(x, attended, state.memories[index] if state.memories else None, state.cross_bias)
        state.num_steps += 1
        return self._logits(self.norm(x))[:, :, 0] if with_logits else None

    def _first_in_reach(self, state: MusicGenState) -> int:
        """Cache index of the earliest step that the next one attends to; a prefix comes before it."""
        reach = self.config.attention_frames or state.num_steps + 1
        return state.prefix_length + max(0, state.num_steps + 1 - reach)

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
        room = config.max_frames + max(config.delays) + 1
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


def _in_reach(cache: Tensor, state: MusicGenState, start: int, stop: int, dim: int = 2) -> Tensor:
    """The prefix and the steps [start, stop) of `cache`, without a copy where they touch."""
    if start == state.prefix_length:
        return cache.narrow(dim, 0, stop)
    steps = cache.narrow(dim, start, stop - start)
    return steps if not state.prefix_length else torch.cat([cache.narrow(dim, 0, state.prefix_length), steps], dim)


def _draw(weight: Tensor, std: float) -> None:
    nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std)
