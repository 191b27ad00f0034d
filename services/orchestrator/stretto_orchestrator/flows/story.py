"""Story mode: prompts over time, and the styles on the way from one to the next.

MusicLM's story mode (Agostinelli et al. 2023, https://arxiv.org/abs/2301.11325) changes the text embedding over time.
Here a change takes as long as the caller wants: the style goes along the great circle between both embeddings in even
steps of at most `STEP_S`, each with the style of its middle. Knows the geometry, and whom to ask for embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from stretto_shared.errors import InvalidInput
from stretto_shared.features import JointEmbedding, ModelInfo, StyleSpan

from stretto_orchestrator.clients import EmbeddingClient

STEP_S = 1.0
DEFAULT_BLEND_S = 5.0
MAX_BLEND_S = 60.0
MAX_SPANS = 63  # with the first prompt, as many as are embedded in one call


@dataclass(frozen=True)
class PromptSpan:
    """What the music should become, from when on, and how long the change takes."""

    start_s: float
    prompt: str
    blend_s: float = DEFAULT_BLEND_S


@dataclass(frozen=True)
class StylePoint:
    """From `start_s` on, the style at `weight` (0 to 1) of the way from the prompt before number `goal` to that one."""

    start_s: float
    goal: int
    weight: float


def check_story(story: Sequence[PromptSpan], duration_s: float) -> None:
    """Raise InvalidInput unless the starts rise within the piece and every blend is in range; prompts may be any."""
    if len(story) > MAX_SPANS:
        raise InvalidInput("story", f"expected at most {MAX_SPANS} prompts, got {len(story)}. Tell a shorter story.")
    before_s = 0.0
    for index, span in enumerate(story):
        if not before_s < span.start_s < duration_s:
            raise InvalidInput(
                f"story[{index}].start_s",
                f"expected more than {before_s:g} s and less than the {duration_s:g} s of the piece, got "
                f"{span.start_s:g} s. Put the prompts in order.",
            )
        if not 0 <= span.blend_s <= MAX_BLEND_S:
            raise InvalidInput(
                f"story[{index}].blend_s",
                f"expected 0 to {MAX_BLEND_S:g} s, got {span.blend_s:g} s. 0 changes at once.",
            )
        before_s = span.start_s


def plan(story: Sequence[PromptSpan], duration_s: float) -> list[StylePoint]:
    """The styles of a piece in order of time, the first at 0; prompt 0 is that of the beginning.

    Invariant: starts rise; on a change weights rise by even steps, symmetric about its middle; a change is over when
    the next one begins.
    """
    points = [StylePoint(0.0, 0, 1.0)]
    for index, span in enumerate(story):
        next_s = story[index + 1].start_s if index + 1 < len(story) else math.inf
        blend_s = min(span.blend_s, next_s - span.start_s)
        num_steps = math.ceil(blend_s / STEP_S)
        on_the_way = [
            StylePoint(span.start_s + step * blend_s / num_steps, index + 1, (step + 0.5) / num_steps)
            for step in range(num_steps)
        ]
        points += [
            point
            for point in [*on_the_way, StylePoint(span.start_s + blend_s, index + 1, 1.0)]
            if point.start_s < min(next_s, duration_s)
        ]
    return points


def between(origin: NDArray[np.float32], goal: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """The point at `weight` of the way on the great circle from one unit vector [D] to another.

    Between opposite ones there is no shortest way: then the nearer end.
    """
    angle = math.acos(float(np.clip(np.dot(origin, goal), -1.0, 1.0)))
    if math.pi - angle < 1e-3:
        return origin if weight < 0.5 else goal
    if angle < 1e-6:  # the same point; the formula would divide by 0
        return goal
    parts = math.sin((1 - weight) * angle) * origin + math.sin(weight * angle) * goal
    return np.asarray(parts / math.sin(angle), dtype=np.float32)


async def told_styles(
    embedding: EmbeddingClient, model: str, prompt: str, story: Sequence[PromptSpan], duration_s: float
) -> tuple[tuple[StyleSpan, ...], ModelInfo]:
    """The styles of a prompt and of the story after it, and the joint encoder that heard them.

    Raises:
        InvalidInput: If the encoder is no joint one with a quantiser.
    """
    texts = [prompt, *(span.prompt for span in story)]
    fields = ["prompt", *(f"story[{index}].prompt" for index in range(len(story)))]
    embedded, encoder = await embedding.embed_jointly(model, texts, fields=fields)
    points = plan(story, duration_s)
    if story:
        on_the_way = [JointEmbedding(embedded[0].encoder_id, _point(embedded, point)) for point in points]
        quantized = await embedding.quantize(model, on_the_way)
    else:
        quantized = embedded
    return tuple(
        as_style(place, start_s=point.start_s) for point, place in zip(points, quantized, strict=True)
    ), encoder


def as_style(embedded: JointEmbedding, *, start_s: float = 0.0) -> StyleSpan:
    """A point of the joint space as the language models read it.

    Raises:
        InvalidInput: If its encoder has no quantiser.
    """
    if not embedded.codes:
        raise InvalidInput(
            "cascade",
            f"its joint encoder {embedded.encoder_id} gives no codes for language models. Choose another cascade.",
        )
    return StyleSpan(start_s, embedded.encoder_id, embedded.codes)


def _point(embedded: Sequence[JointEmbedding], point: StylePoint) -> NDArray[np.float32]:
    goal = embedded[point.goal].values
    return goal if point.weight == 1 else between(embedded[point.goal - 1].values, goal, point.weight)
