"""Captions as bags of attributes: which attributes of a `ClipRecord` a text names, by the words of the corpus alone.

`stated` reads a text; `fits` asks a record, and so is an oracle that knows the truth. `BagOfAttributes` does not: it
hears a spectrogram's mean and spread per mel band, which ridge regression turns into attributes.

Legend: N clips, M mel bands, A attributes. Knows nothing of MuLan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from stretto_shared.training.corpus import vocabulary
from stretto_shared.training.corpus.instruments import DRUM_KITS, INSTRUMENTS, names_of
from stretto_shared.training.corpus.records import ClipRecord

_FIELDS: Mapping[str, vocabulary.Words] = {
    "mood": vocabulary.MOODS,
    "tempo_word": vocabulary.TEMPOS,
    "dynamics": vocabulary.DYNAMICS,
    "texture": vocabulary.TEXTURES,
    "register": vocabulary.REGISTERS,
    "room": vocabulary.ROOMS,
}
_BPM = re.compile(r"(\d{2,3}) bpm")
_MODE = re.compile(r"\b(major|minor)\b")
_RIDGE = 10.0


@dataclass(frozen=True)
class Attribute:
    """One thing that a text says: `kind` is a field of `ClipRecord`, `name` for an instrument, or `bpm`."""

    kind: str
    word: str

    def fits(self, record: ClipRecord) -> bool:
        """Whether it is true of a clip; what a record does not know is not."""
        if self.kind == "name":
            return self.word in _names(record)
        if self.kind == "bpm":
            bpm = float(self.word)
            return record.tempo_bpm is not None and abs(record.tempo_bpm - bpm) <= 0.04 * bpm
        value = getattr(record, self.kind)
        if self.kind == "key_mode":
            return bool(value == self.word)
        return value is not None and self.word in _FIELDS[self.kind].get(value, ())


def stated(text: str) -> frozenset[Attribute]:
    """The attributes that a text names, by whole words; of two words that overlap, the longer one."""
    left = text.lower()
    found = {Attribute("bpm", number) for number in _BPM.findall(left)}
    for kind, word in _lexicon():
        pattern = rf"(?<![\w-]){re.escape(word.lower())}(?![\w-])"
        left, count = re.subn(pattern, "\n", left)
        if count:
            found.add(Attribute(kind, word))
    found |= {Attribute("key_mode", mode) for mode in _MODE.findall(left)}
    return frozenset(found)


def agreement(said: Iterable[Attribute], record: ClipRecord) -> int:
    """How many of the attributes are true of a clip."""
    return sum(attribute.fits(record) for attribute in said)


@lru_cache(maxsize=1)
def _lexicon() -> tuple[tuple[str, str], ...]:
    names = {name for instrument in INSTRUMENTS for name in instrument.names}
    names |= {name for kit in DRUM_KITS.values() for name in kit}
    names |= {name for family in vocabulary.FAMILY_NAMES.values() for name in family}
    words = {("name", name) for name in names}
    words |= {(kind, word) for kind, values in _FIELDS.items() for value in values.values() for word in value}
    return tuple(sorted(words, key=lambda each: (-len(each[1]), each)))


@lru_cache(maxsize=1 << 16)
def _names(record: ClipRecord) -> frozenset[str]:
    names: set[str] = set()
    for use in record.instruments:
        names |= {*names_of(use.program, use.family), *vocabulary.FAMILY_NAMES.get(use.family, ())}
    return frozenset(names)


class BagOfAttributes:
    """Attributes heard by ridge regression from a clip's mean and standard deviation in each mel band.

    Fitted on training clips; a text and a clip fit as well as the product of what is heard for the attributes stated.
    """

    def __init__(self, summaries: NDArray[np.float64], records: Sequence[ClipRecord]) -> None:
        """`summaries` [N, 2 M] of `summary_of`, of the clips of `records`."""
        self._attributes = [Attribute(kind, word) for kind, word in _lexicon()]
        self._attributes += [Attribute("key_mode", mode) for mode in ("major", "minor")]
        self._place = {attribute: place for place, attribute in enumerate(self._attributes)}
        true = np.array([[attribute.fits(record) for attribute in self._attributes] for record in records], float)
        tempos = np.array([np.log(record.tempo_bpm) if record.tempo_bpm else np.nan for record in records])
        self._mean, self._scale = summaries.mean(0), summaries.std(0) + 1e-6
        known = ~np.isnan(tempos)
        self._weights = self._ridge(summaries, true)
        self._tempo = self._ridge(summaries[known], tempos[known, None])
        residual = tempos[known] - self._inputs(summaries[known]) @ self._tempo[:, 0]
        self._tempo_spread = max(0.02, float(np.std(residual)))

    def scores(self, texts: Sequence[frozenset[Attribute]], summaries: NDArray[np.float64]) -> NDArray[np.float64]:
        """How well each text fits each clip, [texts, N]."""
        inputs = self._inputs(summaries)
        heard = np.log(np.clip(inputs @ self._weights, 1e-3, 1.0))  # [N, A]
        tempos = inputs @ self._tempo[:, 0]  # [N]
        rows = []
        for said in texts:
            row = np.zeros(len(summaries))
            for attribute in said:
                if attribute.kind == "bpm":
                    row -= 0.5 * ((np.log(float(attribute.word)) - tempos) / self._tempo_spread) ** 2
                else:
                    row += heard[:, self._place[attribute]]
            rows.append(row)
        return np.stack(rows)

    def heard(self, attribute: Attribute, summaries: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is heard for one attribute, [N]."""
        row: NDArray[np.float64] = self._inputs(summaries) @ self._weights[:, self._place[attribute]]
        return row

    def _inputs(self, summaries: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = (summaries - self._mean) / self._scale
        return np.concatenate([scaled, np.ones((len(scaled), 1))], axis=1)

    def _ridge(self, summaries: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
        inputs = self._inputs(summaries)
        penalty = _RIDGE * np.eye(inputs.shape[1])
        penalty[-1, -1] = 0.0  # of the constant
        return np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ targets)


def summary_of(mels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean and standard deviation over time in each band: [N, T, M] -> [N, 2 M]."""
    wide = mels.astype(np.float32)
    return np.concatenate([wide.mean(1), wide.std(1)], axis=1).astype(np.float64)


def hit_rates(scores: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """For each text [N] the chance that its own clip is among the `most` best of [N, N], equals in random order."""
    own = scores.diagonal()[:, None]
    better, equal = (scores > own).sum(1), (scores == own).sum(1)
    return np.clip((most - better) / equal, 0.0, 1.0)


def roc_auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive scores above a negative, equals counting half.

    Raises:
        ValueError: If there is no positive or no negative.
    """
    if positive.all() or not positive.any():
        raise ValueError("expected both positives and negatives.")
    values, places = np.unique(scores, return_inverse=True)
    counts = np.bincount(places, minlength=len(values))
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # equals share their mean rank
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))
