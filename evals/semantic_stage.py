"""What the semantic stage of a served MusicLM cascade is good for over many seconds, and whether it recites.

Structure: the coarse stage cannot work without semantic tokens, so "off" has to say what it hears instead. Two ways:
the piece's own tokens in random order, which have its inventory and no time; and tokens made in blocks of five seconds
that know nothing of each other, which have order within a block and none beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from findings import Findings
from harness import Table, mono
from memorisation import Recital, gap, not_surely_more, recital, shares
from repetition import hold, recurrence, segments, similarity
from stages import GREEDY, Stages
from stretto_shared.audio import Waveform
from stretto_shared.features import JointEmbedding
from stretto_shared.metrics.bootstrap import bootstrap_mean
from stretto_shared.tokens import TokenMatrix, concatenate

BLOCK_S = 5.12
PROMPT_S, CONTINUATION_S = 3.0, 5.0
ON, SHUFFLED, BLOCKS, MUSICGEN = "on", "off: its tokens shuffled", "off: blocks apart", "musicgen"
OTHER_SEED = 1_000


def shuffled(tokens: TokenMatrix, seed: int) -> TokenMatrix:
    """The same tokens in random order."""
    order = np.random.default_rng(seed).permutation(tokens.num_frames)
    return TokenMatrix(tokens.codes[:, order], tokens.frame_rate_hz, tokens.codec_id)


async def blocks_apart(stages: Stages, style: JointEmbedding, duration_s: float, seed: int) -> TokenMatrix:
    """Tokens of blocks that are each the beginning of a piece of its own seed."""
    parts, left_s, number = [], duration_s, 0
    while left_s > 1e-6:
        length_s = min(BLOCK_S, left_s)
        parts.append(await stages.semantic(style, duration_s=length_s, seed=seed + OTHER_SEED * number))
        left_s, number = left_s - length_s, number + 1
    return concatenate(parts)


async def measure_structure(
    stages: Stages, prompts: Sequence[str], found: Findings, *, duration_s: float, with_musicgen: bool
) -> None:
    """Recurrence and hold of pieces with the semantic stage on and off."""
    pieces: dict[str, list[Waveform]] = {ON: [], SHUFFLED: [], BLOCKS: []}
    for seed, prompt in enumerate(prompts):
        style = await stages.style_of_text(prompt)
        tokens = await stages.semantic(style, duration_s=duration_s, seed=seed)
        sources = {
            ON: tokens,
            SHUFFLED: shuffled(tokens, seed),
            BLOCKS: await blocks_apart(stages, style, duration_s, seed),
        }
        for label, source in sources.items():
            pieces[label].append(await stages.sound_of(source, style, seed=seed))
        if with_musicgen:
            piece = await stages.music(prompt, duration_s=duration_s, seed=seed, cascade="musicgen")
            pieces.setdefault(MUSICGEN, []).append(piece)
    heard = {label: [segments(mono(piece), piece.sample_rate_hz) for piece in own] for label, own in pieces.items()}
    measures = {
        "recurrence": {k: np.array([recurrence(similarity(*each)) for each in own]) for k, own in heard.items()},
        "hold": {k: hold([chroma for chroma, _ in own]) for k, own in heard.items()},
    }
    for name, values in measures.items():
        gaps = {f"{ON} minus {k}": values[ON] - own for k, own in values.items() if k != ON}
        intervals = {label: bootstrap_mean(own) for label, own in (values | gaps).items()}
        found.add_intervals(name, f"{name.capitalize()}, {len(prompts)} pieces of {duration_s:g} s", intervals)
        for label in (SHUFFLED, BLOCKS):
            found.claim_above(f"structure: {name} above {label}", intervals[f"{ON} minus {label}"])


async def recitals(stages: Stages, clips: Sequence[Waveform]) -> list[Recital]:
    """How much of each clip's own continuation comes out after its beginning and in its own style."""
    made = []
    for clip in clips:
        tokens = await stages.tokenize(clip)
        first, more = (round(seconds * tokens.frame_rate_hz) for seconds in (PROMPT_S, CONTINUATION_S))
        prompt = TokenMatrix(tokens.codes[:, :first], tokens.frame_rate_hz, tokens.codec_id)
        said = await stages.semantic(
            await stages.style_of_audio(clip),
            duration_s=(first + more) / tokens.frame_rate_hz,
            seed=0,
            prompt=prompt,
            sampling=GREEDY,
        )
        made.append(recital(said.codes[0], tokens.codes[0, first : first + more]))
    return made


async def measure_memorisation(
    stages: Stages, trained: Sequence[Waveform], held_out: Sequence[Waveform], found: Findings
) -> None:
    """Recitals of training clips beside those of held-out ones."""
    own, control = await recitals(stages, trained), await recitals(stages, held_out)
    of_own, of_control = shares(own), shares(control)
    rows = [(name, of_own[name], of_control[name]) for name in of_own]
    title = f"After {PROMPT_S:g} s of a clip, its next {CONTINUATION_S:g} s: share of clips, and means"
    found.tables.append(Table(title, [("", f"{len(own)} training", f"{len(control)} held out"), *rows]))
    found.numbers["memorisation"] = {"train": dict(of_own), "held_out": dict(of_control)}
    gaps = {name: gap(own, control, name) for name in ("equal", "overlap")}
    found.add_intervals("memorisation_gap", "Training minus held out", gaps)
    for name, interval in gaps.items():
        claim = f"memorisation: training clips are not surely recited more than held-out ones, {name}"
        found.passed[claim] = not_surely_more(interval)
