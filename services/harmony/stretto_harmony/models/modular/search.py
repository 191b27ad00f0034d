"""The joint beam search over chords and keys of McLeod and Rohrmeier (2021), onset by onset.

A hypothesis at an onset is extended by every candidate span that begins there and the likeliest chords of each:

    score += log P(span) + n (log P(chord | span) + log P(key stays or changes) + log P(sequence))

with n the notes of the span, so that chords cut in two have no advantage, P(span) from the chord transition module
(`spans.py`), and P(sequence) from the chord sequence module in the same key (the initial chord module at the first
chord), or from the key sequence module to the power `key_sequence_exponent` where the key changes. A key may change
where the key transition module says so at the chord that is the first in the new key; it must where that chord is out
of the old key's reach. A chord that comes again right after itself goes on instead ("rejoins"): the two spans are
scored as one. So chords follow each other without repetition, and an applied chord is a change of key and back.

Departures: hypotheses and spans of one onset are one batch; modules with a memory are stepped for those hypotheses
only that are kept; the log-probability of staying in a key belongs to the hypothesis that stays (the published code
adds it to its twin); the two other terms have exponents too, 1 as published. Knows no files and no notation.

Legend: B hypotheses kept at an onset, C candidates, S spans, O onsets, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.beam import NO_CHORD, Beam, Hypotheses, extended_history, joined
from stretto_harmony.models.modular.config import SearchConfig
from stretto_harmony.models.modular.networks import CausalModule, CausalState, Modules
from stretto_harmony.models.modular.spans import SpanTable
from stretto_harmony.models.modular.vectors import ChordColumns
from stretto_harmony.scores import pitch
from stretto_harmony.scores.labels import NUM_CHORDS, NUM_KEYS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_TINY = 1e-9


@dataclass(frozen=True, eq=False)
class Timeline:
    """The onsets of a piece and its end, all [O + 1].

    Args:
        time: Whole notes.
        level: Metrical levels.
        note: The first note of each, and the number of notes at the end.
    """

    time: Floats
    level: Ints
    note: Ints

    @property
    def num_onsets(self) -> int:
        return len(self.time) - 1


@dataclass(frozen=True, eq=False)
class Reading:
    """Chords and keys that fill the piece, all [K].

    Args:
        begin, end: Onsets.
        chord, key: Places among the 1,540 and the 70.
        score: Log-probability of the whole.
    """

    begin: Ints
    end: Ints
    chord: Ints
    key: Ints
    score: float


@dataclass(frozen=True, eq=False)
class _Block:
    """Hypotheses at an onset with what the modules have in mind.

    Rows 0 to B - 1 are after their own chords, B to 2B - 1 after the chords before these.
    """

    kept: Hypotheses
    csm: CausalState
    ktm: CausalState
    ksm: CausalState
    prior: NDArray[np.float32]


class JointSearch:
    """One search over one piece.

    Args:
        modules: All but the chord transition and classification modules are asked.
        config: Parameters.
        timeline: The onsets.
        spans: Candidate spans.
        chord_log_probs: [S, 1540], of the chord classifier.
    """

    def __init__(
        self,
        modules: Modules,
        config: SearchConfig,
        timeline: Timeline,
        spans: SpanTable,
        chord_log_probs: NDArray[np.float32],
    ) -> None:
        self._modules, self._config, self._timeline, self._spans = modules, config, timeline, spans
        self._log_probs = chord_log_probs
        self._tried, self._num_tried = _likeliest(chord_log_probs, config.chord_branches, config.chord_branch_mass)
        self._icm = modules.icm.log_prior.numpy()
        self._beams = [Beam(config.beam_size) for _ in range(timeline.num_onsets + 1)]
        self._blocks: dict[int, _Block] = {}
        self._trail: dict[int, Hypotheses] = {}
        self._first_span = np.searchsorted(spans.begin, np.arange(timeline.num_onsets + 1))
        self._reach = np.zeros(timeline.num_onsets, np.int64)  # the last onset to which a span leads
        np.maximum.at(self._reach, spans.begin, spans.end)

    @torch.inference_mode()
    def run(self) -> Reading:
        """The best reading of the whole piece."""
        for onset in range(self._timeline.num_onsets):
            block = self._initial_block() if onset == 0 else self._block(onset)
            if block is None:
                continue
            self._blocks[onset] = block
            self._trail[onset] = block.kept
            self._extend(onset, block)
            self._forget(onset)
        last = self._beams[-1].kept
        if last is None:
            raise RuntimeError("no reading reaches the end; the candidate spans do not lead there")
        self._trail[self._timeline.num_onsets] = last
        return self._trace(last)

    def _initial_block(self) -> _Block:
        """Every key, before any chord."""
        keys, none = np.arange(NUM_KEYS), np.full(NUM_KEYS, -1)
        zeros = np.zeros(NUM_KEYS)
        history = np.zeros((NUM_KEYS, self._config.hash_length), np.int64)
        start = Hypotheses(zeros, zeros, none, keys, none, keys, none, none, none, none, history)
        modules = self._modules
        csm, ktm, ksm = (module.initial_state(2 * NUM_KEYS) for module in (modules.csm, modules.ktm, modules.ksm))
        return _Block(start, csm, ktm, ksm, np.zeros((2 * NUM_KEYS, 1), np.float32))

    def _block(self, onset: int) -> _Block | None:
        """What the modules have in mind after the hypotheses that end at `onset`."""
        kept = self._beams[onset].kept
        if kept is None:
            return None
        kept = kept.rows(np.argsort(kept.source_onset, kind="stable"))
        tonic, is_minor = _key_parts(kept.key)
        old_tonic, _ = _key_parts(kept.parent_key)
        columns = self._columns(kept.chord, tonic, is_minor, kept.begin, np.full(len(kept), onset))
        is_change = kept.key != kept.parent_key
        columns = ChordColumns(**{**vars(columns), "old_tonic": old_tonic, "is_change": is_change})
        own = torch.from_numpy(vectors.chord_vectors(columns))
        wide = torch.from_numpy(vectors.chord_vectors(columns, reach=vectors.WIDE_REACH))
        modules = self._modules
        csm = _both(modules.csm, own, self._gathered(kept, "csm"))
        ktm = _both(modules.ktm, wide, self._gathered(kept, "ktm"))
        ksm = _both(modules.ksm, wide, self._gathered(kept, "ksm"))
        return _Block(kept, csm, ktm, ksm, modules.csm.log_prior(csm).numpy())

    def _gathered(self, kept: Hypotheses, name: str) -> CausalState:
        """The states [B, H] of a module that the last chords are heard after; `kept` is in order of source."""
        parts = []
        for source in np.unique(kept.source_onset):
            rows = torch.from_numpy(kept.source_row[kept.source_onset == source])
            parts.append(getattr(self._blocks[int(source)], name).rows(rows))
        return CausalState(torch.cat([p.hidden for p in parts]), torch.cat([p.cell for p in parts]))

    def _columns(self, chord: Ints, tonic: Ints, is_minor: Ints, begin: Ints, end: Ints) -> ChordColumns:
        line = self._timeline
        return ChordColumns(
            root=chord // vectors.NUM_INVERTED + pitch.MIN_FIFTHS,
            inverted=chord % vectors.NUM_INVERTED,
            tonic=tonic,
            is_minor=is_minor,
            onset_level=line.level[begin],
            offset_level=line.level[end],
            duration=line.time[end] - line.time[begin],
            old_tonic=tonic,
            is_change=np.zeros(len(chord), bool),
        )

    def _extend(self, onset: int, block: _Block) -> None:
        """All candidates from `onset`, into the beams where they end."""
        spans = range(self._first_span[onset], self._first_span[onset + 1])
        parts = [part for part in (self._candidates(onset, block, span) for span in spans) if part is not None]
        if not parts:
            return
        candidates = joined([part for part, _ in parts])
        end = np.concatenate([np.full(len(part), self._spans.end[span]) for part, span in parts])
        tonic, is_minor = _key_parts(candidates.key)
        columns = self._columns(candidates.chord, tonic, is_minor, candidates.begin, end)
        must_change = ~vectors.within_reach(columns.root, columns.inverted, tonic)
        is_first = candidates.parent_onset == 0
        notes = self._timeline.note[end] - self._timeline.note[candidates.begin]
        change, after = self._key_changes(candidates, columns, block, end)
        change = np.where(is_first, 0.0, change)
        stays = (change <= self._config.max_no_key_change) & ~must_change
        self._add(self._staying(candidates, columns, block, change, notes, is_first), end, stays)
        changes = (change >= self._config.min_key_change) & ~is_first
        said = np.log(np.clip(change, _TINY, 1.0)) * self._config.key_transition_exponent
        score = candidates.score + said * notes
        changes &= score > self._thresholds(end)
        self._changing(candidates, columns, block, score, notes, end, np.flatnonzero(changes), after)

    def _thresholds(self, end: Ints) -> Floats:
        unique, inverse = np.unique(end, return_inverse=True)
        return np.array([self._beams[int(place)].threshold for place in unique])[inverse]

    def _candidates(self, onset: int, block: _Block, span: int) -> tuple[Hypotheses, int] | None:
        """The likeliest chords of a span after every hypothesis, before the key modules: [C]."""
        kept, spans = block.kept, self._spans
        tried = self._tried[span]
        count = np.full(len(kept), self._num_tried[span])
        count[(count == 1) & (kept.chord == tried[0])] = 2  # one of them at least is another chord
        row, column = np.nonzero(np.arange(len(tried)) < count[:, None])
        chord = tried[column]
        goes_on = chord == kept.chord[row]
        end = int(spans.end[span])
        notes = self._timeline.note[end] - self._timeline.note[onset]
        score = kept.score[row] + spans.log_prob[span] + self._log_probs[span, chord] * notes
        score = score + np.where(goes_on, spans.rejoin[span] - kept.recent[row], 0.0)
        key = np.where(goes_on, kept.parent_key[row], kept.key[row])
        tonic, _ = _key_parts(key)
        root, inverted = chord // vectors.NUM_INVERTED + pitch.MIN_FIFTHS, chord % vectors.NUM_INVERTED
        fits = vectors.within_reach(root, inverted, tonic, vectors.WIDE_REACH)
        fits &= score > self._beams[end].threshold
        if onset == 0:
            fits &= vectors.within_reach(root, inverted, tonic)
        chosen = np.flatnonzero(fits)
        if not len(chosen):
            return None
        row, chord, goes_on, key = row[chosen], chord[chosen], goes_on[chosen], key[chosen]
        history = np.where(goes_on[:, None], np.roll(kept.history[row], 1, 1), kept.history[row])
        made = Hypotheses(
            score=score[chosen],
            recent=np.zeros(len(chosen)),
            chord=chord,
            key=key,
            begin=np.where(goes_on, kept.begin[row], onset),
            parent_key=key,
            parent_onset=np.where(goes_on, kept.parent_onset[row], onset),
            parent_slot=np.where(goes_on, kept.parent_slot[row], row),
            source_onset=np.full(len(chosen), onset),
            source_row=row + len(kept) * goes_on,
            history=history,
        )
        return made, span

    def _key_changes(
        self, candidates: Hypotheses, columns: ChordColumns, block: _Block, end: Ints
    ) -> tuple[Floats, tuple[Tensor, Tensor]]:
        """The probability [C] that the key changes at each candidate; distinct chord vectors, and whose is which."""
        code = ((end * NUM_CHORDS + candidates.chord) * NUM_KEYS + candidates.key) * (end.max() + 2) + candidates.begin
        _, distinct, which = np.unique(code, return_index=True, return_inverse=True)
        taken = ChordColumns(**{name: value[distinct] for name, value in vars(columns).items()})
        wide = torch.from_numpy(vectors.chord_vectors(taken, reach=vectors.WIDE_REACH))
        after = (wide, torch.from_numpy(which))
        rows = torch.from_numpy(candidates.source_row)
        state = self._modules.ktm.branch(wide, after[1], block.ktm, rows)
        return torch.sigmoid(self._modules.ktm.logit(state)).numpy().astype(np.float64), after

    def _staying(
        self,
        candidates: Hypotheses,
        columns: ChordColumns,
        block: _Block,
        change: Floats,
        notes: Ints,
        is_first: Bools,
    ) -> Hypotheses:
        """The candidates in the keys that they are in, with what the modules say of that."""
        csm = self._modules.csm
        in_reach = np.clip(columns.root, columns.tonic - vectors.REACH, columns.tonic + vectors.REACH)
        prior = np.zeros(len(candidates))
        first, later = np.flatnonzero(is_first), np.flatnonzero(~is_first)
        place = vectors.relative_chord(in_reach, columns.inverted, columns.tonic)
        prior[first] = self._icm[columns.is_minor[first], place[first]]
        reduced = vectors.relative_chord(in_reach, columns.inverted, columns.tonic, csm.reduction)
        prior[later] = block.prior[candidates.source_row[later], reduced[later]]
        stay = np.log(np.clip(1.0 - change, _TINY, 1.0))
        config = self._config
        said = (prior * config.chord_sequence_exponent + stay * config.key_transition_exponent) * notes
        history = extended_history(candidates.history, candidates.key, candidates.chord)
        return _changed(candidates, score=candidates.score + said, recent=said, history=history)

    def _changing(
        self,
        candidates: Hypotheses,
        columns: ChordColumns,
        block: _Block,
        score: Floats,
        notes: Ints,
        end: Ints,
        changes: Ints,
        after: tuple[Tensor, Tensor],
    ) -> None:
        """Add the candidates `changes` in the likeliest other keys, whose `score` holds that the key changes."""
        if not len(changes):
            return
        wide, which = after
        rows = torch.from_numpy(candidates.source_row[changes])
        ksm = self._modules.ksm
        prior = ksm.log_prior(ksm.branch(wide, which[torch.from_numpy(changes)], block.ksm, rows)).numpy()
        tonic = columns.tonic[changes, None] + np.arange(vectors.NUM_KEY_CHANGES) % vectors.NUM_RELATIVE - vectors.REACH
        is_minor = np.arange(vectors.NUM_KEY_CHANGES) // vectors.NUM_RELATIVE
        key = is_minor * pitch.NUM_SPELLINGS + tonic - pitch.MIN_FIFTHS
        root, inverted = columns.root[changes, None], columns.inverted[changes, None]
        fits = vectors.within_reach(root, inverted, tonic) & (np.abs(tonic - 2) <= 17)
        fits &= key != candidates.key[changes, None]
        row, place = _likeliest_of(prior, fits, self._config.key_branches, self._config.key_branch_mass)
        chosen = changes[row]
        added = prior[row, place] * self._config.key_sequence_exponent * notes[chosen]
        new_key = key[row, place]
        before = candidates.rows(chosen)
        made = _changed(
            before,
            score=score[chosen] + added,
            recent=score[chosen] - before.score + added,
            key=new_key,
            history=extended_history(before.history, new_key, before.chord),
        )
        self._add(made, end[chosen], np.ones(len(chosen), bool))

    def _add(self, hypotheses: Hypotheses, end: Ints, which: Bools) -> None:
        """Give those of `which` to the beams where they end."""
        for place in np.unique(end[which]):
            beam = self._beams[int(place)]
            better = which & (end == place) & (hypotheses.score > beam.threshold)
            beam.add(hypotheses.rows(np.flatnonzero(better)))

    def _forget(self, onset: int) -> None:
        """Drop the beam that is done, and the blocks from which no span reaches further."""
        self._beams[onset].kept = None
        for source in [place for place in self._blocks if self._reach[place] <= onset]:
            del self._blocks[source]

    def _trace(self, last: Hypotheses) -> Reading:
        """The chords on the way to the best of `last`, in order."""
        slot, end = int(np.argmax(last.score)), self._timeline.num_onsets
        score = float(last.score[slot])
        rows = []
        while end > 0:
            at = self._trail[end]
            rows.append((int(at.begin[slot]), end, int(at.chord[slot]), int(at.key[slot])))
            end, slot = int(at.parent_onset[slot]), int(at.parent_slot[slot])
        begin, ends, chord, key = np.array(rows[::-1], np.int64).reshape(-1, 4).T
        return Reading(begin, ends, chord, key, score)


def _changed(hypotheses: Hypotheses, **changes: NDArray[np.generic]) -> Hypotheses:
    return Hypotheses(**{**vars(hypotheses), **changes})


def _key_parts(key: Ints) -> tuple[Ints, Ints]:
    """Tonics on the line of fifths, and whether the keys are minor."""
    return key % pitch.NUM_SPELLINGS + pitch.MIN_FIFTHS, key // pitch.NUM_SPELLINGS


def _both(module: CausalModule, chords: Tensor, before: CausalState) -> CausalState:
    """The states after the chords, and under them those before: [2B, H]."""
    after = module.step(chords, before)
    return CausalState(torch.cat([after.hidden, before.hidden]), torch.cat([after.cell, before.cell]))


def _likeliest(log_probs: NDArray[np.float32], most: int, mass: float) -> tuple[Ints, Ints]:
    """The likeliest classes [S, most + 1] of each row, and how many of them [S] make up `mass`, 1 to `most`."""
    kept = min(most + 1, log_probs.shape[1])
    best = np.argpartition(-log_probs, kept - 1, axis=1)[:, :kept]
    order = np.argsort(-np.take_along_axis(log_probs, best, 1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, 1)
    shares = np.cumsum(np.exp(np.take_along_axis(log_probs, best, 1)), 1)
    count = np.where(shares[:, -1] >= mass, np.argmax(shares >= mass, 1) + 1, most)
    return best, np.clip(count, 1, most)


def _likeliest_of(log_probs: NDArray[np.float32], fits: Bools, most: int, mass: float) -> tuple[Ints, Ints]:
    """Rows and columns of the likeliest classes that fit: of each row as many as make up `mass`, up to `most`."""
    order = np.argsort(-log_probs, axis=1, kind="stable")
    shares = np.cumsum(np.exp(np.take_along_axis(log_probs, order, 1)), 1)
    count = np.clip((shares < mass).sum(1) + 1, 1, most)
    fits_in_order = np.take_along_axis(fits, order, 1)
    chosen = fits_in_order & (np.cumsum(fits_in_order, 1) <= count[:, None])
    row, place = np.nonzero(chosen)
    return row, order[row, place]


__all__ = ["JointSearch", "NO_CHORD", "Reading", "Timeline"]
