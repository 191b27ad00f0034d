"""The six modules of McLeod and Rohrmeier (2021), each a small network with one well-defined question.

Paper: A Modular System for the Harmonic Analysis of Musical Scores using a Large Vocabulary (ISMIR 2021).

| module | sees | says |
|---|---|---|
| `ChordTransition` (CTM) | all notes | of each note the probability that a chord begins there |
| `ChordClassifier` (CCM) | the notes of a span and two on either side | the probability of each of 1,540 chords |
| `ChordSequence` (CSM) | the chords so far, in their keys | the probability of each next chord in the same key |
| `KeyTransition` (KTM) | the chords so far, the last in the key before it | the probability that it changes there |
| `KeySequence` (KSM) | the same | the probability of each of 58 changes of key |
| `InitialChord` (ICM) | the mode of the first key | the probability of each first chord in it |

Departures: sizes are configurable, and smaller by default; the classifier reads the last state of each direction
through a packed LSTM or, in `classify_equal`, the same numbers without padding; the three causal modules also take
one step at a time from states that the caller holds, which the search needs. Knows no scores, no keys by name and no
search.

Legend: B batch, T notes or chords, D features, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.config import ModularConfig
from stretto_harmony.scores.labels import NUM_CHORDS


@dataclass
class CausalState:
    """Hidden and cell state [B, H] of a causal module after the chords so far."""

    hidden: Tensor
    cell: Tensor

    def rows(self, index: Tensor) -> CausalState:
        """The states of these rows."""
        return CausalState(self.hidden[index], self.cell[index])


class Head(nn.Module):
    """ReLU, linear, ReLU, dropout, linear: what follows every LSTM here."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden_dim, out_dim)

    def forward(self, states: Tensor) -> Tensor:
        """[.., H] to logits."""
        logits: Tensor = self.fc2(self.dropout(F.relu(self.fc1(F.relu(states)))))
        return logits


class ChordTransition(nn.Module):
    """CTM: where chords begin."""

    def __init__(self, config: ModularConfig) -> None:
        super().__init__()
        self.embed = nn.Linear(vectors.NOTE_DIM, config.transition_embed_dim)
        self.lstm = nn.LSTM(
            config.transition_embed_dim, config.transition_lstm_dim, bidirectional=True, batch_first=True
        )
        self.head = Head(2 * config.transition_lstm_dim, config.transition_hidden_dim, 1, config.dropout)

    def forward(self, notes: Tensor) -> Tensor:
        """Notes [B, T, 71] of whole pieces to the logits [B, T] of a change at each."""
        states, _ = self.lstm(F.relu(self.embed(notes)))
        logits: Tensor = self.head(states).squeeze(-1)
        return logits


class ChordClassifier(nn.Module):
    """CCM: which chord the notes of a span make."""

    def __init__(self, config: ModularConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(vectors.NOTE_DIM, config.classifier_lstm_dim, bidirectional=True, batch_first=True)
        self.head = Head(2 * config.classifier_lstm_dim, config.classifier_hidden_dim, NUM_CHORDS, config.dropout)

    def forward(self, notes: Tensor, lengths: Tensor) -> Tensor:
        """Notes [B, T, 71], of which the first `lengths` [B] count, to logits [B, 1540]."""
        packed = pack_padded_sequence(notes, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(packed)
        logits: Tensor = self.head(torch.cat([hidden[0], hidden[1]], -1))
        return logits

    def classify_equal(self, notes: Tensor) -> Tensor:
        """Spans of one length [B, T, 71] to log-probabilities [B, 1540]."""
        _, (hidden, _) = self.lstm(notes)
        return F.log_softmax(self.head(torch.cat([hidden[0], hidden[1]], -1)), -1)


class CausalModule(nn.Module):
    """Linear, ReLU, LSTM, head, over the chords so far; whole sequences, or a step at a time."""

    def __init__(self, dim: int, embed_dim: int, lstm_dim: int, hidden_dim: int, out_dim: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, embed_dim)
        self.lstm = nn.LSTM(embed_dim, lstm_dim, batch_first=True)
        self.head = Head(lstm_dim, hidden_dim, out_dim, dropout)

    def states(self, chords: Tensor) -> CausalState:
        """Chords [B, T, D] to the states [B, T, H] after each of them.

        The LSTM gives the hidden ones; from them all gates are known at once, and the cells follow one after another.
        """
        inputs = F.relu(self.embed(chords))
        hidden, _ = self.lstm(inputs)
        before = torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], 1)
        enter, forget, content, _ = (self._from_chords(inputs) + self._from_hidden(before)).chunk(4, -1)
        added = (torch.sigmoid(enter) * torch.tanh(content)).unbind(1)
        cells = [added[0]]
        for new, kept in zip(added[1:], torch.sigmoid(forget).unbind(1)[1:]):
            cells.append(torch.addcmul(new, kept, cells[-1]))
        return CausalState(hidden, torch.stack(cells, 1))

    def states_asked(self, chords: Tensor, asked: Tensor) -> CausalState:
        """The states [B, T, H] after each of `asked` [B, T, D], before which those of `chords` [B, T, D] were heard.

        As `step` on `asked` from the states before, with each product of matrices made once; for training.
        """
        own = self._from_chords(F.relu(self.embed(chords))).unbind(1)
        state = self.initial_state(len(chords))
        from_hidden, cells = [], []
        for gates in own:
            from_hidden.append(self._from_hidden(state.hidden))
            cells.append(state.cell)
            state = _cell(gates + from_hidden[-1], state.cell)
        gates = self._from_chords(F.relu(self.embed(asked))) + torch.stack(from_hidden, 1)
        return _cell(gates, torch.stack(cells, 1))

    def forward(self, chords: Tensor) -> Tensor:
        """Chords [B, T, D] to logits [B, T, out] after each."""
        states, _ = self.lstm(F.relu(self.embed(chords)))
        logits: Tensor = self.head(states)
        return logits

    def initial_state(self, batch_size: int) -> CausalState:
        """The state before the first chord."""
        zeros = self.embed.weight.new_zeros(batch_size, self.lstm.hidden_size)
        return CausalState(zeros, zeros)

    def step(self, chords: Tensor, state: CausalState) -> CausalState:
        """The states [B, H] after one more chord each [B, D]."""
        return self._step(F.relu(self.embed(chords)), state)

    def branch(self, chords: Tensor, which: Tensor, state: CausalState, rows: Tensor) -> CausalState:
        """The states [C, H] after chord `which[c]` of few [U, D] from row `rows[c]` of few states [B, H].

        As `step` on both gathered, with each product of matrices made once for each chord and once for each state.
        """
        from_chords = self._from_chords(F.relu(self.embed(chords)))
        return _cell(from_chords[which] + self._from_hidden(state.hidden)[rows], state.cell[rows])

    def _step(self, inputs: Tensor, state: CausalState) -> CausalState:
        return _cell(self._from_chords(inputs) + self._from_hidden(state.hidden), state.cell)

    def _from_chords(self, inputs: Tensor) -> Tensor:
        weights, _, bias, _ = self._weights()
        return F.linear(inputs, weights, bias)

    def _from_hidden(self, hidden: Tensor) -> Tensor:
        _, weights, _, bias = self._weights()
        return F.linear(hidden, weights, bias)

    def _weights(self) -> Sequence[Tensor]:
        return self.lstm.all_weights[0]


def _cell(gates: Tensor, cell: Tensor) -> CausalState:
    """A step of an LSTM from its gates [B, 4H], in torch's order."""
    enter, forget, content, leave = gates.chunk(4, -1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(content)
    return CausalState(torch.sigmoid(leave) * torch.tanh(cell), cell)


class ChordSequence(CausalModule):
    """CSM: the next chord in the same key, reduced as `config.sequence_reduction` says."""

    def __init__(self, config: ModularConfig) -> None:
        super().__init__(
            vectors.CHORD_DIM,
            config.sequence_embed_dim,
            config.sequence_lstm_dim,
            config.sequence_hidden_dim,
            vectors.NUM_RELATIVE * vectors.num_reduced(config.sequence_reduction),
            config.dropout,
        )
        self.reduction = config.sequence_reduction

    def log_prior(self, state: CausalState) -> Tensor:
        """States [B, H] to the log-probabilities [B, 29 * reduced] of the next chord."""
        return F.log_softmax(self.head(state.hidden), -1)


class KeyTransition(CausalModule):
    """KTM: whether the key changes at the last chord."""

    def __init__(self, config: ModularConfig) -> None:
        super().__init__(
            vectors.WIDE_CHORD_DIM,
            config.key_transition_embed_dim,
            config.key_transition_lstm_dim,
            config.key_transition_hidden_dim,
            1,
            config.dropout,
        )

    def logit(self, state: CausalState) -> Tensor:
        """States [B, H] to the logits [B] of a change at their last chord."""
        logits: Tensor = self.head(state.hidden).squeeze(-1)
        return logits


class KeySequence(CausalModule):
    """KSM: to which key, where it changes at the last chord."""

    def __init__(self, config: ModularConfig) -> None:
        super().__init__(
            vectors.WIDE_CHORD_DIM,
            config.key_sequence_embed_dim,
            config.key_sequence_lstm_dim,
            config.key_sequence_hidden_dim,
            vectors.NUM_KEY_CHANGES,
            config.dropout,
        )

    def log_prior(self, state: CausalState) -> Tensor:
        """States [B, H] to the log-probabilities [B, 58] of the changes."""
        return F.log_softmax(self.head(state.hidden), -1)


class InitialChord(nn.Module):
    """ICM: smoothed counts of first chords, for major and minor keys."""

    log_prior: Tensor

    def __init__(self) -> None:
        super().__init__()
        count = vectors.NUM_RELATIVE * vectors.NUM_INVERTED
        self.register_buffer("log_prior", torch.full((2, count), 1.0 / count).log())

    def fit(self, chords: Tensor, is_minor: Tensor) -> None:
        """Count first chords [B], places among the 1,276; each of those counts 1/1276 once more than it was seen."""
        count = self.log_prior.shape[1]
        for mode in range(2):
            seen = torch.bincount(chords[is_minor == mode], minlength=count).to(self.log_prior)
            self.log_prior[mode] = torch.log((seen + 1.0 / count) / (seen.sum() + 1.0))


class Modules(nn.Module):
    """All six; the key of each in a state dict is its short name in the paper."""

    def __init__(self, config: ModularConfig) -> None:
        super().__init__()
        self.config = config
        self.ctm = ChordTransition(config)
        self.ccm = ChordClassifier(config)
        self.csm = ChordSequence(config)
        self.ktm = KeyTransition(config)
        self.ksm = KeySequence(config)
        self.icm = InitialChord()
