"""`StageLM`: the decoder-only transformer of one stage of a cascade, as AudioLM and MusicLM have three.

Sources: Borsos et al., "AudioLM: a Language Modeling Approach to Audio Generation" (2022),
https://arxiv.org/abs/2209.03143, and Agostinelli et al., "MusicLM: Generating Music From Text" (2023),
https://arxiv.org/abs/2301.11325: one causal stack over conditioning tokens and a flattened stream, T5's relative
positions (`positions`, with a departure), pre-norm, feed-forward with GELU.

Departures: layer norm without a bias, which is T5's root-mean-square norm for what has no mean; narrow tables of tokens
with one matrix from them to the width of the model, and one back for the predictions, which are made with the stream's
own table and a bias of their own; a code that is not told is a learned vector, for classifier-free guidance.

Legend: B batch, S columns of the stream, P positions of the prefix, L = P + S, D width, H heads, E width of a head, V
cardinality; K, Q, N, U, J, W as in `config`. Knows token ids alone: neither audio, nor text, nor requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretto_shared.nn.stage_lm.config import StageConfig
from stretto_shared.nn.stage_lm.positions import Layout, bias_rows

UNTOLD = -1  # in the place of a code that the model is not told


class TokenTable(nn.Module):
    """The vectors of one kind of segment: an own table for every codebook, and a start."""

    def __init__(self, num_codebooks: int, cardinality: int, table_dim: int, dim: int, *, may_be_untold: bool) -> None:
        super().__init__()
        self.num_codebooks = num_codebooks
        self.cardinality = cardinality
        self.weight = nn.Parameter(torch.randn(num_codebooks * cardinality, table_dim))
        self.widen = nn.Linear(table_dim, dim, bias=False)
        self.slots = nn.Parameter(torch.randn(num_codebooks, dim) * 0.3)
        self.start = nn.Parameter(torch.randn(dim))
        self.null = nn.Parameter(torch.randn(dim)) if may_be_untold else None
        nn.init.normal_(self.widen.weight, std=table_dim**-0.5)

    def forward(self, codes: Tensor) -> Tensor:
        """Vectors [B, 1 + T * n, D] of codes [B, n, T], frame by frame after the start; `UNTOLD` where not told."""
        tokens = codes.transpose(1, 2).flatten(1)  # [B, T * n]
        start = self.start.expand(tokens.shape[0], 1, -1)
        return torch.cat([start, self.embed(tokens, 0)], 1)

    def embed(self, tokens: Tensor, first: int) -> Tensor:
        """Vectors [B, n, D] of the tokens [B, n] of a flattened segment from its token `first` on."""
        codebooks = torch.arange(first, first + tokens.shape[1]) % self.num_codebooks
        vectors: Tensor = self.widen(F.embedding(tokens.clamp(min=0) + codebooks * self.cardinality, self.weight))
        if self.null is not None:
            vectors = torch.where((tokens == UNTOLD)[..., None], self.null, vectors)
        return vectors + self.slots[codebooks]

    def of_codebook(self, index: int) -> Tensor:
        """The table [V, e] of one codebook."""
        return self.weight[index * self.cardinality : (index + 1) * self.cardinality]


class StageBlock(nn.Module):
    """One pre-norm block, whole for the parallel pass and in its parts for steps."""

    def __init__(self, config: StageConfig) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.norm_self = nn.LayerNorm(dim, bias=False)
        self.self_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.self_out = nn.Linear(dim, dim, bias=False)
        self.norm_ffn = nn.LayerNorm(dim, bias=False)
        self.ffn_in = nn.Linear(dim, config.feed_forward_dim, bias=False)
        self.ffn_out = nn.Linear(config.feed_forward_dim, dim, bias=False)
        shrink = (2 * config.num_layers) ** -0.5
        for linear, factor in (
            (self.self_qkv, 0.7),
            (self.self_out, shrink),
            (self.ffn_in, 0.7),
            (self.ffn_out, shrink),
        ):
            nn.init.normal_(linear.weight, std=factor * linear.in_features**-0.5)

    def qkv(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values [B, H, S, E] of the hidden states [B, S, D]."""
        batch, steps, dim = x.shape
        parts: Tensor = self.self_qkv(self.norm_self(x))
        return parts.view(batch, steps, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4).unbind(0)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Everything after attention: its outcome [B, H, S, E] onto the hidden states [B, S, D]."""
        x = x + self.self_out(attended.transpose(1, 2).reshape(x.shape))
        wide: Tensor = self.ffn_in(self.norm_ffn(x))
        added: Tensor = self.ffn_out(F.gelu(wide, approximate="tanh"))
        return x + added


class StageLM(nn.Module):
    """The language model of one stage.

    Invariant: logits at column i depend on the prefix and the columns up to i alone, and reading column by column
    (`incremental`) gives those of the parallel pass (`tests/shared/nn/test_stage_lm.py`).
    """

    def __init__(self, config: StageConfig) -> None:
        super().__init__()
        if config.dim % config.num_heads:
            raise ValueError(f"num_heads: expected a divisor of dim {config.dim}, got {config.num_heads}.")
        self.config = config
        self.style = _told(config, config.num_style_codes, config.style_cardinality)
        self.melody = _told(config, config.num_melody_codebooks, config.melody_cardinality)
        self.source = _told(config, config.num_source_codebooks, config.source_cardinality)
        self.stream = TokenTable(
            config.num_codebooks, config.cardinality, config.table_dim, config.dim, may_be_untold=False
        )
        num_tables = 1 + sum(table is not None for table in (self.style, self.melody, self.source))
        self.bias = nn.Parameter(torch.zeros(num_tables * config.num_buckets, config.num_heads))
        self.layers = nn.ModuleList(StageBlock(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim, bias=False)
        self.narrow = nn.Linear(config.dim, config.table_dim, bias=False)
        nn.init.normal_(self.narrow.weight, std=config.dim**-0.5)
        self.token_bias = nn.Parameter(torch.zeros(config.num_codebooks, config.cardinality))

    def blocks(self) -> Sequence[StageBlock]:
        """The layers, by their type."""
        return cast(Sequence[StageBlock], self.layers)

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(
        self,
        stream: Tensor,
        style: Tensor | None = None,
        melody: Tensor | None = None,
        source: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, S, V] of the tokens [B, S] of a stream, each from the prefix and those before it.

        Args:
            stream: Token i is of codebook i % K.
            style: Codes [B, Q].
            melody: Codes [B, N, U].
            source: Tokens [B, J, W]. A code that is `UNTOLD` is not told; None is all of them.
        """
        return self.predict(self.hidden(stream, style, melody, source))

    def hidden(self, stream: Tensor, style: Tensor | None, melody: Tensor | None, source: Tensor | None) -> Tensor:
        """Hidden states [B, S, D] of a stream's columns; arguments as those of `forward`."""
        batch, num_steps = stream.shape
        prefix, layout = self.prefix(batch, num_steps, style, melody, source)
        start = self.stream.start.expand(batch, 1, -1)
        x = torch.cat([prefix, start, self.stream.embed(stream[:, :-1], 0)], 1)
        bias = self.relative_bias(layout)[None]
        for block in self.blocks():
            query, key, value = block.qkv(x)
            x = block.finish(x, F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype)))
        return x[:, prefix.shape[1] :]

    def prefix(
        self, batch: int, num_steps: int, style: Tensor | None, melody: Tensor | None, source: Tensor | None
    ) -> tuple[Tensor, Layout]:
        """What the model is told of a window of so many columns, as vectors [B, P, D]; None is not told.

        Raises:
            ValueError: If it is told something that it does not hear, or in another shape.
        """
        config = self.config
        num_frames = -(-num_steps // config.num_codebooks)
        told = (
            _codes("style", None if style is None else style[..., None], self.style, batch, 1),
            _codes("melody", melody, self.melody, batch, config.melody_frames(num_frames)),
            _codes("source", source, self.source, batch, config.source_frames(num_frames)),
        )
        tables = (self.style, self.melody, self.source)
        vectors = [table(codes) for table, codes in zip(tables, told) if table is not None]
        layout = Layout(told[1].shape[2], told[2].shape[2], num_steps)
        return torch.cat(vectors, 1) if vectors else self.stream.start.new_zeros(batch, 0, config.dim), layout

    def relative_bias(self, layout: Layout) -> Tensor:
        """What is added to the attention of each pair of positions, [H, L, L]; -inf for what lies ahead."""
        bias = F.embedding(bias_rows(self.config, layout), self.bias).permute(2, 0, 1)
        ahead = torch.ones(bias.shape[1:], dtype=torch.bool).triu(1)
        return bias.masked_fill(ahead, float("-inf"))

    def predict(self, x: Tensor) -> Tensor:
        """Logits [B, S, V] of hidden states [B, S, D] whose first column is that of codebook 0."""
        batch, num_steps, _ = x.shape
        missing = -num_steps % self.config.num_codebooks
        logits = self.predict_by_codebook(F.pad(x, (0, 0, 0, missing)))
        return logits.transpose(0, 1).reshape(batch, num_steps + missing, -1)[:, :num_steps]

    def predict_by_codebook(self, x: Tensor) -> Tensor:
        """Logits [K, B * T, V] of the hidden states [B, T * K, D] of whole frames."""
        num_codebooks = self.config.num_codebooks
        narrow: Tensor = self.narrow(self.norm(x))
        by_codebook = narrow.view(-1, num_codebooks, narrow.shape[-1]).transpose(0, 1)  # [K, B * T, e]
        tables = self.stream.weight.view(num_codebooks, self.config.cardinality, -1).to(narrow.dtype)
        return torch.bmm(by_codebook, tables.transpose(1, 2)) * self.logit_scale + self.token_bias[:, None]

    def predict_one(self, x: Tensor, codebook: int) -> Tensor:
        """Logits [B, V] of hidden states [B, 1, D] before a token of one codebook."""
        narrow: Tensor = self.narrow(self.norm(x))[:, 0]
        return F.linear(narrow, self.stream.of_codebook(codebook)) * self.logit_scale + self.token_bias[codebook]

    @property
    def logit_scale(self) -> float:
        return float(self.config.table_dim**-0.5)


def _told(config: StageConfig, num_codebooks: int, cardinality: int) -> TokenTable | None:
    """The table of one kind of prefix; None for a model that has no such."""
    if not num_codebooks:
        return None
    return TokenTable(num_codebooks, cardinality, config.table_dim, config.dim, may_be_untold=True)


def _codes(name: str, codes: Tensor | None, table: TokenTable | None, batch: int, num_frames: int) -> Tensor:
    """The codes [B, n, T] of one kind of prefix: those that are told, or as many that are not."""
    if table is None:
        if codes is not None:
            raise ValueError(f"{name}: expected none, since this stage hears none, got {tuple(codes.shape)}.")
        return torch.zeros(batch, 0, 0, dtype=torch.int64)
    if codes is None:
        return torch.full((batch, table.num_codebooks, num_frames), UNTOLD)
    if codes.ndim != 3 or codes.shape[:2] != (batch, table.num_codebooks) or not codes.shape[2]:
        raise ValueError(f"{name}: expected {batch} x {table.num_codebooks} codes a frame, got {tuple(codes.shape)}.")
    if int(codes.max()) >= table.cardinality or int(codes.min()) < UNTOLD:
        raise ValueError(f"{name}: expected codes below {table.cardinality}, got {int(codes.max())}.")
    return codes
