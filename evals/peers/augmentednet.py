"""AugmentedNet v1.9.1 as a peer: Roman numerals of a score by its authors' own weights, in torch.

Nápoles López, Gotham, Fujinaga: AugmentedNet (2021), github.com/napulen/AugmentedNet (MIT). The weights are the Keras
file `AugmentedNet.hdf5`, read by h5py. Input: at each 32nd note the bass, the notes that sound, and the time since the
measure and since the last onset, in windows of 640. Of its nine outputs four voices, a pitch-class set, a numerator and
two keys are made one chord of its vocabulary, the one whose pitch classes are nearest, as its authors do.

Departures: labels are told at every 32nd and not only where its harmonic rhythm says that one begins.

Legend: T frames of a 32nd note, B windows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_harmony.scores.labels import Analysis, ChordType, HarmonyLabel, Key
from stretto_harmony.scores.numerals import figure_of, parse
from stretto_harmony.scores.pitch import MAX_FIFTHS, MIN_FIFTHS, from_name, pitch_class
from stretto_harmony.scores.score import TICKS_PER_QUARTER, Score
from torch import Tensor, nn
from torch.nn import functional as F

FRAME_TICKS = TICKS_PER_QUARTER // 8
WINDOW_FRAMES = 640
PADDING = -1.0
ENHARMONIC = 12
LETTERS = "CDEFGAB"
BRANCHES = (("X_Bass19", 0, 19), ("X_Chromagram19", 6, 19), ("X_MeasureNoteOnset14", 12, 14))
FILTERS = (32, 16, 8, 4, 2, 1)
SPELLINGS = tuple(f"{letter}{accidental}" for letter in LETTERS for accidental in ("--", "-", "", "#", "##"))
MAJOR_KEYS = tuple("B-- F- C- G- D- A- E- B- F C G D A E B F# C# G# D#".split())  # noqa: SIM905
MINOR_KEYS = tuple("g- d- a- e- b- f c g d a e b f# c# g# d# a# e# b#".split())  # noqa: SIM905
KEYS = tuple(sorted(MAJOR_KEYS + MINOR_KEYS))
IN_MAJOR = tuple("I ii iii IV V vi viio I7 ii7 iii7 IV7 V7 vi7 viiø7 V+ N It Fr7 Ger7".split())  # noqa: SIM905
IN_MINOR = tuple("i iio III+ iv V VI viio i7 iiø7 III+7 iv7 V7 VI7 viio7 N It Fr7 Ger7".split())  # noqa: SIM905
NUMERALS = ("Cad", *sorted({*IN_MAJOR, *IN_MINOR}))
FIGURES = {"Fr7": "Fr43", "Ger7": "Ger65", "It": "It6", "Cad": "Cad64", "III+7": "III+M7"}
"""As this project's parser writes what the vocabulary abbreviates."""

Ints = NDArray[np.int64]


def key_of(name: str) -> Key:
    """The key that the vocabulary names so."""
    return Key(from_name(name), name[0].islower())


@functools.cache
def chord_of(numeral: str, key: str) -> tuple[int, ChordType]:
    """Root and type of a numeral of the vocabulary in a key, however far its tones are."""
    home = Key(3, True) if key[0].islower() else Key(0)
    chord = parse(FIGURES.get(numeral, numeral), home)
    return chord.root + key_of(key).tonic - home.tonic, chord.quality


def pitch_classes(root: int, quality: ChordType) -> tuple[int, ...]:
    """Those of a chord, ascending, each once."""
    return tuple(sorted({int(pitch_class(root + interval)) for interval in quality.intervals}))


@functools.cache
def vocabulary() -> dict[tuple[int, ...], dict[str, str]]:
    """For each set of pitch classes, the keys that have a numeral for it, in order."""
    found: dict[tuple[int, ...], dict[str, str]] = {}
    for key in KEYS:
        for numeral in IN_MINOR if key[0].islower() else IN_MAJOR:
            found.setdefault(pitch_classes(*chord_of(numeral, key)), {})[key] = numeral
    return {pcset: found[pcset] for pcset in sorted(found)}


def key_distance(first: str, second: str) -> float:
    """Between two keys on Weber's chart, where relatives and parallels are neighbours."""
    places = sorted(
        (2 * (key_of(name).tonic + 8) if name[0].isupper() else 2 * key_of(name).tonic + 13) for name in (first, second)
    )
    steps = np.arange(18)[:, None] * np.array([2, 3])
    return float(np.linalg.norm(places[1] - places[0] - steps, axis=1).min())


@functools.cache
def nearest_key(key: str, candidates: tuple[str, ...]) -> str:
    """The candidate in which a chord is heard that the key itself does not have."""
    best, best_distance = "", np.inf
    for candidate in candidates:
        interval, is_major = key_of(candidate).tonic - key_of(key).tonic, candidate[0].isupper()
        third = is_major and interval == (-3 if key[0].islower() else 4)
        distance = key_distance(key, candidate)
        if not third and not (interval == 0 and not is_major):
            distance *= 1.05
        if not third and interval not in (-1, 0, 1):
            distance *= 1.05
        if distance < best_distance:
            best, best_distance = candidate, distance
    return best


@dataclass(frozen=True)
class Outputs:
    """The likeliest class of each output at each frame [T]."""

    voices: Ints  # [4, T]: bass, tenor, alto, soprano
    pcset: Ints
    numeral: Ints
    key: Ints
    tonicised: Ints


@functools.cache
def resolve(voices: tuple[int, ...], pcset: int, numeral: int, key: int, tonicised: int) -> tuple[str, str, str, int]:
    """Key, tonicised key, numeral of the vocabulary and inversion that the outputs of one frame are taken for."""
    sets = list(vocabulary())
    votes = np.zeros(12)
    for voice in voices:
        votes[pitch_class(from_name(SPELLINGS[voice]))] += 1
    for each in (sets[pcset], pitch_classes(*chord_of(NUMERALS[numeral], KEYS[tonicised]))):
        votes[list(each)] += 1
    near = [votes[list(each)].sum() / np.sqrt(len(each)) for each in sets]
    entries = vocabulary()[sets[int(np.argmax(near))]]
    heard_in = KEYS[tonicised] if KEYS[tonicised] in entries else nearest_key(KEYS[key], tuple(entries))
    root, quality = chord_of(entries[heard_in], heard_in)
    tones = [root + interval for interval in quality.intervals]
    bass = from_name(SPELLINGS[voices[0]])
    return KEYS[key], heard_in, entries[heard_in], tones.index(bass) if bass in tones else 0


class Branch(nn.Module):
    """Six convolutions over time, each fed with all before it, [B, C, T] to [B, C + 63, T]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = [channels + sum(FILTERS[:n]) for n in range(len(FILTERS))]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(size, filters, 2**n) for n, (size, filters) in enumerate(zip(sizes, FILTERS))
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(filters, eps=1e-3) for filters in FILTERS)

    def forward(self, x: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms):
            reach = convolution.kernel_size[0] - 1
            padded = F.pad(x, (reach // 2, reach - reach // 2))
            x = torch.cat([x, F.relu(norm(convolution(padded)))], dim=1)
        return x


class AugmentedNet(nn.Module):
    """The network; 105,084 parameters with those of its norms that are not trained."""

    def __init__(self, outputs: dict[str, int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Branch(channels) for _, _, channels in BRANCHES)
        self.dense = nn.ModuleList([nn.Linear(sum(c + 63 for _, _, c in BRANCHES), 64), nn.Linear(64, 32)])
        self.norms = nn.ModuleList(nn.BatchNorm1d(size, eps=1e-3) for size in (64, 32, 60, 60))
        self.recurrent = nn.ModuleList(nn.GRU(size, 30, bidirectional=True, batch_first=True) for size in (32, 60))
        self.outputs = nn.ModuleDict({name: nn.Linear(60, size) for name, size in outputs.items()})

    def forward(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """Inputs [B, T, C] of each branch to the logits [B, T, classes] of each output."""
        x = torch.cat([branch(each.transpose(1, 2)) for branch, each in zip(self.branches, inputs)], dim=1)
        for dense, norm in zip(self.dense, self.norms):
            x = F.relu(norm(dense(x.transpose(1, 2)).transpose(1, 2)))
        for recurrent, norm in zip(self.recurrent, list(self.norms)[2:]):
            x = norm(recurrent(x.transpose(1, 2))[0].transpose(1, 2))
        return {name: output(x.transpose(1, 2)) for name, output in self.outputs.items()}


def load(path: Path) -> AugmentedNet:
    """The network with the weights of its Keras file."""
    import h5py

    with h5py.File(path) as file:
        tensors: dict[str, Tensor] = {}
        file["model_weights"].visititems(
            lambda name, node: (
                tensors.update({name.removesuffix(":0"): torch.from_numpy(node[()])})
                if hasattr(node, "shape")
                else None
            )
        )
    outputs = {
        name.split("/")[0]: len(value) for name, value in tensors.items() if name[0].isupper() and name.endswith("bias")
    }
    network = AugmentedNet(outputs)
    state: dict[str, Tensor] = {}

    def put(ours: str, theirs: str, parameters: tuple[tuple[str, str], ...]) -> None:
        for mine, their in parameters:
            value = tensors[f"{theirs}/{theirs}/{their}"]
            state[f"{ours}.{mine}"] = value.permute(*reversed(range(value.ndim))) if their == "kernel" else value

    linear = (("weight", "kernel"), ("bias", "bias"))
    norm = (("weight", "gamma"), ("bias", "beta"), ("running_mean", "moving_mean"), ("running_var", "moving_variance"))
    for place, (_, first, _) in enumerate(BRANCHES):
        for n in range(len(FILTERS)):
            suffix = f"_{first + n}" if first + n else ""
            put(f"branches.{place}.convolutions.{n}", f"conv1d{suffix}", linear)
            put(f"branches.{place}.norms.{n}", f"batch_normalization{suffix}", norm)
    for n, name in enumerate(("dense", "dense_1")):
        put(f"dense.{n}", name, linear)
    for n in range(4):
        put(f"norms.{n}", f"batch_normalization_{18 + n}", norm)
    for name in outputs:
        put(f"outputs.{name}", name, linear)
    state |= _recurrent_state(tensors)
    missing, unexpected = network.load_state_dict(state, strict=False)
    if unexpected or any("num_batches" not in name for name in missing):
        raise ValueError(f"{path} does not hold AugmentedNet: lacks {missing}, has {unexpected}.")
    return network.eval().requires_grad_(False)


def _recurrent_state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keras' gates are update, reset, new; torch's reset, update, new."""
    state = {}
    for layer, (name, cells) in enumerate((("bidirectional", (1, 2)), ("bidirectional_1", (4, 5)))):
        suffix = f"_{layer}" if layer else ""
        for direction, cell, ending in (("forward", cells[0], ""), ("backward", cells[1], "_reverse")):
            base = f"{name}/{name}/{direction}_gru{suffix}/gru_cell_{cell}"
            input_bias, hidden_bias = tensors[f"{base}/bias"]
            for mine, value in (
                ("weight_ih", tensors[f"{base}/kernel"].T),
                ("weight_hh", tensors[f"{base}/recurrent_kernel"].T),
                ("bias_ih", input_bias),
                ("bias_hh", hidden_bias),
            ):
                update, reset, new = value.chunk(3)
                state[f"recurrent.{layer}.{mine}_l0{ending}"] = torch.cat([reset, update, new])
    return state


def inputs_of(score: Score) -> list[NDArray[np.float32]]:
    """The inputs [T, C] of the three branches, a frame each 32nd note."""
    num_frames = max(1, -(-score.num_ticks // FRAME_TICKS))
    times = FRAME_TICKS * np.arange(num_frames)
    chroma, bass = np.zeros((num_frames, 19), np.float32), np.zeros((num_frames, 19), np.float32)
    lowest = np.full(num_frames, 999)
    for begin, end, midi, fifths in zip(score.onset, score.offset, score.midi, score.fifths):
        letter = LETTERS.index("FCGDAEB"[(fifths + 1) % 7])
        frames = slice(-(-begin // FRAME_TICKS), -(-end // FRAME_TICKS))
        chroma[frames, letter] = chroma[frames, 7 + midi % 12] = 1
        at = np.arange(num_frames)[frames]
        at = at[midi < lowest[at]]
        lowest[at] = midi
        bass[at] = 0
        bass[at, letter] = bass[at, 7 + midi % 12] = 1
    heard = np.flatnonzero(lowest < 999)
    if len(heard):  # through rests the notes before are still told, and before the first those to come
        last = heard[np.maximum(np.searchsorted(heard, np.arange(num_frames), side="right") - 1, 0)]
        chroma, bass = chroma[last], bass[last]
    numbers = np.array(score.measure_number)[score.measure_of(times)]
    new_measure = np.append(True, numbers[1:] != numbers[:-1])
    since = np.concatenate([_since(new_measure), _since(np.isin(times, score.onset))], axis=1)
    return [bass, chroma, since]


def _since(begins: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Frames [T, 7] since one began: a flag on it, then the bits of how many."""
    place = np.arange(len(begins))
    last = np.maximum.accumulate(np.where(begins, place, 0))
    elapsed = np.minimum(place - last, 63)
    bits = elapsed[:, None] >> np.arange(6) & 1
    return np.concatenate([(elapsed == 0)[:, None], bits], axis=1).astype(np.float32)


@torch.inference_mode()
def outputs_of(network: AugmentedNet, score: Score) -> Outputs:
    """What the network tells of each frame of a score."""
    windows = []
    for each in inputs_of(score):
        num_frames = len(each)
        padded = np.full((-(-num_frames // WINDOW_FRAMES) * WINDOW_FRAMES, each.shape[1]), PADDING, np.float32)
        padded[:num_frames] = each
        windows.append(torch.from_numpy(padded).view(-1, WINDOW_FRAMES, each.shape[1]))
    told = {name: logits.argmax(dim=2).flatten()[:num_frames].numpy() for name, logits in network(windows).items()}
    voices = np.stack([told[name] for name in ("Bass35", "Tenor35", "Alto35", "Soprano35")])
    keys = told["LocalKey38"], told["TonicizedKey38"]
    return Outputs(voices, told["PitchClassSet121"], told["RomanNumeral31"], *keys)


def analyze(network: AugmentedNet, score: Score) -> Analysis:
    """The labels of a score, each as long as the frames agree."""
    out = outputs_of(network, score)
    columns: tuple[Any, ...] = (out.pcset, out.numeral, out.key, out.tonicised)
    found = [
        resolve(tuple(voices.tolist()), *(int(value) for value in rest))
        for voices, *rest in zip(out.voices.T, *columns)
    ]
    begins = [n for n in range(len(found)) if n == 0 or found[n] != found[n - 1]]
    labels = []
    for first, last in zip(begins, [*begins[1:], len(found)]):
        key, tonicised, numeral, inversion = found[first]
        root, quality = chord_of(numeral, tonicised)
        move = ENHARMONIC * ((root < MIN_FIFTHS) - (root > MAX_FIFTHS))  # what leaves the 35 spellings is respelled
        local, applied = (
            Key(key_of(key).tonic + move, key[0].islower()),
            Key(key_of(tonicised).tonic + move, tonicised[0].islower()),
        )
        chord = (applied, root + move, quality, inversion)
        labels.append(HarmonyLabel(first * FRAME_TICKS, last * FRAME_TICKS, local, figure_of(local, *chord), *chord))
    return Analysis(tuple(labels))
