"""ChordGNN: chords, keys and Roman numerals of a score by convolutions over the graph of its notes.

Roman Numeral Analysis with Graph Neural Networks: Onset-wise Predictions from Note-wise Features (Karystinaios and
Widmer, 2023, https://arxiv.org/abs/2307.03544). Notes are convolved over seven relations (GraphSAGE with means), pooled
to onsets, carried along by a bidirectional GRU, and each part of the harmony has a head; a recurrent post-processing
network reads the heads' probabilities and tells the parts again.

Departures: layer norm and a skip around convolutions in the place of L2 and batch norm; message passing is `index_add`
here; an onset may also see the notes held into it, its bass, the key signature and the lowest notes of its beat and
measure (`ChordGnnConfig.sounding`, `key_signature`, `bass_spans`); the post-processing network learns beside the rest,
which its losses do not reach.

Legend: B scores, T onsets of the longest, N notes, O onsets, E edges, D features. Knows no labels and no vocabulary but
the number of classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from stretto_harmony.models.chordgnn.batch import UNKNOWN_SIGNATURE, GraphBatch
from stretto_harmony.models.chordgnn.config import ChordGnnConfig
from stretto_harmony.models.chordgnn.graph import BASS_SPANS, NUM_NOTE_FEATURES, NUM_ONSET_FEATURES, RELATIONS
from stretto_harmony.scores.pitch import MIN_FIFTHS, NUM_SPELLINGS

NUM_MESSAGES = 2 * len(RELATIONS) - 1
NUM_SIGNATURES = 2 * UNKNOWN_SIGNATURE + 1
SIGNATURE_DIM = 16


def mean_over(values: Tensor, source: Tensor, target: Tensor, size: int) -> Tensor:
    """The mean [size, D] at each target of the values [.., D] of its sources; 0 where it has none."""
    total = values.new_zeros(size, values.shape[1]).index_add_(0, target, values.index_select(0, source))
    count = values.new_zeros(size).index_add_(0, target, values.new_ones(len(target)))
    return total / count.clamp(min=1)[:, None]


class RelationalConvolution(nn.Module):
    """One GraphSAGE layer: each note's own features and the means of its neighbours by relation, [N, D] to [N, D']."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear((1 + NUM_MESSAGES) * in_dim, out_dim)
        self.norm = nn.LayerNorm(out_dim)
        self.skips = in_dim == out_dim

    def forward(self, x: Tensor, edges: tuple[Tensor, ...]) -> Tensor:
        means = [x]
        for name, (source, target) in zip(RELATIONS, edges, strict=True):
            means.append(mean_over(x, source, target, len(x)))
            if name != "onset":
                means.append(mean_over(x, target, source, len(x)))
        out: Tensor = F.relu(self.norm(self.linear(torch.cat(means, dim=1))))
        return x + out if self.skips else out


class NoteEncoder(nn.Module):
    """Notes as features [N, D]: pitch, spelling and place, then the convolutions."""

    def __init__(self, config: ChordGnnConfig) -> None:
        super().__init__()
        self.pitch = nn.Embedding(128, config.pitch_dim)
        self.spelling = nn.Embedding(NUM_SPELLINGS, config.pitch_dim)
        self.features = nn.Linear(NUM_NOTE_FEATURES, config.feature_dim)
        dims = [2 * config.pitch_dim + config.feature_dim] + [config.hidden_dim] * config.num_convolutions
        self.convolutions = nn.ModuleList(RelationalConvolution(*pair) for pair in zip(dims, dims[1:], strict=False))
        self.note_dropout = nn.Dropout1d(config.note_dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, batch: GraphBatch) -> Tensor:
        spelling = (batch.fifths - MIN_FIFTHS).clamp(0, NUM_SPELLINGS - 1)
        parts = [self.pitch(batch.midi.clamp(0, 127)), self.spelling(spelling), self.features(batch.features)]
        x: Tensor = self.note_dropout(torch.cat(parts, dim=1))
        for convolution in self.convolutions:
            x = self.dropout(convolution(x, batch.edges))
        return x


class OnsetPooling(nn.Module):
    """Notes [N, D] to onsets [O, D']: the mean of those that begin, and what else the config lets an onset see."""

    def __init__(self, config: ChordGnnConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.hidden_dim
        self.begun = nn.Linear(dim, dim)
        in_dim = dim + NUM_ONSET_FEATURES
        if config.sounding:
            self.held = nn.Linear(dim, dim)
            in_dim += 2 * dim
        if config.key_signature:
            self.signature = nn.Embedding(NUM_SIGNATURES, SIGNATURE_DIM)
            in_dim += SIGNATURE_DIM
        self.project = nn.Sequential(
            nn.Linear(in_dim, config.onset_dim), nn.LayerNorm(config.onset_dim), nn.ReLU(), nn.Dropout(config.dropout)
        )
        if config.bass_spans:
            self.spans = nn.Linear(len(BASS_SPANS) * (dim + 1), config.onset_dim, bias=False)
            nn.init.zeros_(self.spans.weight)

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        size = len(batch.bass)
        begun = self.begun(x)
        seen = [mean_over(begun, torch.arange(len(x), device=x.device), batch.onset, size), batch.onset_features]
        if self.config.sounding:
            seen += [mean_over(self.held(x), batch.sounding[0], batch.sounding[1], size), x[batch.bass]]
        if self.config.key_signature:
            place = batch.key_signature.clamp(-UNKNOWN_SIGNATURE, UNKNOWN_SIGNATURE) + UNKNOWN_SIGNATURE
            seen.append(self.signature(place))
        first, *others = self.project
        out: Tensor = first(torch.cat(seen, dim=1))
        if self.config.bass_spans:
            out = out + self.spans(self._span_basses(x, batch))
        for layer in others:
            out = layer(out)
        return out

    @staticmethod
    def _span_basses(x: Tensor, batch: GraphBatch) -> Tensor:
        """The lowest notes of each onset's spans, and how far below its own bass they lie [O, S (D + 1)]."""
        octaves = (batch.midi[batch.bass] - batch.midi[batch.span_bass]).to(x.dtype) / 12
        return torch.cat([*x[batch.span_bass], octaves.T], dim=1)


class OverTime(nn.Module):
    """A bidirectional recurrent network over the onsets of each score, [O, D] to [O, 2 D'].

    A score's output does not depend on the others of its batch.
    """

    def __init__(self, recurrent: nn.GRU | nn.LSTM) -> None:
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if len(lengths) == 1:
            alone: Tensor = self.recurrent(x[None])[0][0]
            return alone
        padded = nn.utils.rnn.pad_sequence(list(torch.split(x, lengths.tolist())), batch_first=True)
        packed = pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        there = torch.arange(out.shape[1])[None] < lengths[:, None]
        kept: Tensor = out[there.to(out.device)]
        return kept


class Heads(nn.Module):
    """A linear head for each part, [O, D] to the logits of its classes; and a deep one where `deep_dims` says so.

    The deep one adds to the logits what one hidden layer of `deep_dims[1]` makes of `deep_dims[0]` more features.
    """

    def __init__(self, in_dim: int, heads: dict[str, int], deep_dims: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.sizes = heads
        self.linear = nn.Linear(in_dim, sum(heads.values()))
        more_dim, hidden_dim = deep_dims
        self.hidden = nn.Linear(in_dim + more_dim, hidden_dim) if hidden_dim else None
        self.deep = nn.Linear(hidden_dim, sum(heads.values()), bias=False) if hidden_dim else None
        if self.deep is not None:
            nn.init.zeros_(self.deep.weight)

    def forward(self, x: Tensor, more: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.linear(x)
        if self.hidden is not None and self.deep is not None and more is not None:
            logits = logits + self.deep(F.relu(self.hidden(torch.cat([x, more], dim=1))))
        return dict(zip(self.sizes, logits.split(list(self.sizes.values()), dim=1), strict=True))


class PostProcessing(nn.Module):
    """The parts told again by who has seen what was told before and after; its input carries no gradient."""

    def __init__(self, config: ChordGnnConfig) -> None:
        super().__init__()
        size = sum(config.heads.values())
        self.over_time = OverTime(nn.LSTM(size, config.post_dim, bidirectional=True, batch_first=True))
        self.dropout = nn.Dropout(config.dropout)
        self.heads = Heads(2 * config.post_dim, config.heads)

    def forward(self, told: dict[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        read = torch.cat([logits.detach().softmax(dim=1) for logits in told.values()], dim=1)
        out: dict[str, Tensor] = self.heads(self.dropout(self.over_time(read, lengths)))
        return out


class ChordGnn(nn.Module):
    """The network; `numerals` [V, 5] has the fields of the `RelativeNumeral`s that its numeral classes stand for."""

    numerals: Tensor

    def __init__(self, config: ChordGnnConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = NoteEncoder(config)
        self.pooling = OnsetPooling(config)
        self.over_time = OverTime(
            nn.GRU(
                config.onset_dim,
                config.recurrent_dim,
                config.num_recurrent_layers,
                bidirectional=True,
                batch_first=True,
                dropout=config.dropout if config.num_recurrent_layers > 1 else 0.0,
            )
        )
        self.norm = nn.LayerNorm(2 * config.recurrent_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.heads = Heads(2 * config.recurrent_dim, config.heads, (config.onset_dim, config.head_dim))
        self.post = PostProcessing(config) if config.post_dim else None
        self.register_buffer("numerals", torch.zeros(config.num_numerals - 1, 5, dtype=torch.int16))

    def onsets(self, batch: GraphBatch) -> Tensor:
        """Each onset as features [O, D], before the recurrent layers."""
        out: Tensor = self.pooling(self.encoder(batch), batch)
        return out

    def told(self, onsets: Tensor, over_time: Tensor, lengths: Tensor) -> list[dict[str, Tensor]]:
        """The stages' logits of onsets [O, D] and of what the recurrent layers made of them [O, 2 D']."""
        told = self.heads(self.dropout(self.norm(over_time)), onsets)
        return [told] if self.post is None else [told, self.post(told, lengths)]

    def stages(self, batch: GraphBatch) -> list[dict[str, Tensor]]:
        """The logits [O, classes] of each part: the heads', and the post-processing network's where there is one."""
        onsets = self.onsets(batch)
        return self.told(onsets, self.over_time(onsets, batch.lengths), batch.lengths)

    def forward(self, batch: GraphBatch) -> dict[str, Tensor]:
        """The logits [O, classes] of each part, by the last stage."""
        return self.stages(batch)[-1]
