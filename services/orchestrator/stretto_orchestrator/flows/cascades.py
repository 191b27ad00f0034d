"""The cascades: which model of each stage works under one name, and how they work together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stretto_shared.errors import NotFound

MUSICGEN = "musicgen"
MUSICLM = "musiclm"
MUSICLM_FINE = "musiclm-fine"


@dataclass(frozen=True)
class Cascade:
    """Models by stage; an empty name is the stage's own default, of those that have one. Tokens name their codec.

    Args:
        name: What requests call it.
        kind: `musicgen`: text states, one language model. `musiclm`: a joint embedding, then semantic, coarse and, if
            they are wanted, fine tokens, each by a language model of its own.
        streams: Whether every stage works on what the one before has made so far; False has it wait until that one has
            made all, for comparison.
        codec_model: Encodes recordings.
        joint_model: Judges candidates; with `musiclm` also hears the prompts.
        text_model: Hears the prompt of `musicgen`.
        acoustic_model: Composes for `musicgen`.
        semantic_model: The first language model of `musiclm`.
        coarse_model: The second one.
        fine_model: The third one; empty ends the cascade with the coarse tokens, which the codec decodes without the
            rest. The default: the fine stage of the house brings the sound no nearer to recordings (its card).
        melody_model: Hears melodies for `musiclm`.
        tokenizer_model: Hears recordings for the first language model of `musiclm`.
    """

    name: str
    kind: str = MUSICGEN
    streams: bool = True
    codec_model: str = ""
    joint_model: str = "mulan"
    text_model: str = ""
    acoustic_model: str = ""
    semantic_model: str = "musiclm_semantic"
    coarse_model: str = "musiclm_coarse"
    fine_model: str = ""
    melody_model: str = "melody"
    tokenizer_model: str = ""


def cascades_with(extra: Mapping[str, Mapping[str, Any]]) -> dict[str, Cascade]:
    """`musicgen`, `musiclm`, the same with its fine stage, and the operator's own.

    Raises:
        TypeError: If one names another field than those of `Cascade`; the settings let none through.
    """
    own = {
        MUSICGEN: Cascade(MUSICGEN),
        MUSICLM: Cascade(MUSICLM, MUSICLM),
        MUSICLM_FINE: Cascade(MUSICLM_FINE, MUSICLM, fine_model="musiclm_fine"),
    }
    return own | {name: Cascade(name=name, **models) for name, models in extra.items()}


def find_cascade(cascades: Mapping[str, Cascade], name: str) -> Cascade:
    """The cascade of that name; empty is `musicgen`.

    Raises:
        NotFound: If there is none.
    """
    if (name or MUSICGEN) not in cascades:
        raise NotFound("cascade", f"expected one of {', '.join(sorted(cascades))}, got {name!r}. Choose one.")
    return cascades[name or MUSICGEN]
