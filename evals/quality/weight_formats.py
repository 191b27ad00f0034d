"""What a language model loses when its matrices are held in fewer bits: KL of the next-token distribution to float32.

Features are those that `services/acoustic/recipes/prepare_features.py` writes for a rendered corpus. On clips of the
test split, each with one caption of a held-out template, teacher forced: the mean KL from the distribution of the
float32 model to that of each format, under guidance as the cascade draws and without it, the change of the
cross-entropy, and how often the likeliest token is the same one.

Twice: by the forward pass over whole clips, and column by column through the stepper that the service makes of the
model, float32's included, so that what a served step rounds beside the matrices counts too.

    python evals/quality/weight_formats.py --features corpus/features [--model musicgen=file:///DIR] [--limit 16]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, need, parser, publish
from quality.musicgen_loss import Split, caption_of, captions_of, read_split
from served import load_lm, step_through, stepper_of
from stretto_acoustic.engine import Stepper
from stretto_acoustic.models.musicgen import MusicGenCondition, MusicGenConfig, MusicGenLM
from stretto_shared.engine.delay import apply_delay, target_mask
from stretto_shared.metrics.bootstrap import bootstrap_mean

DEFAULT_CLIPS = 48
BATCH_SIZE = 4
REFERENCE = "fp32"
FORMATS = ("bf16", "int8", "int4", "int4_kv4")

PROTOCOL = (
    "Teacher forced on clips of the test split, each with one caption of a held-out template, chosen by seed. KL in "
    "nats a token, from the float32 model's distribution to the format's, mean over tokens and codebooks, without "
    "top-k; `guided` is of the logits after classifier-free guidance at the model's own scale. Cross-entropy "
    "is the format's minus float32's, without guidance. All at once: the forward pass over whole clips, with the "
    "attention of float32. As served: column by column through the service's stepper of each format, beside that of "
    "float32: all that a format changes. Intervals: 95 % bootstrap over clips, paired."
)


@dataclass(frozen=True, eq=False)
class Reading:
    """Log-probabilities [B, K, T, V] of a batch, without and with guidance; targets [B, K, T], -100 for none."""

    plain: Tensor
    guided: Tensor
    targets: Tensor


def columns_and_targets(split: Split, indices: NDArray[np.int64], config: MusicGenConfig) -> tuple[Tensor, Tensor]:
    """Columns [B, K, T] that are read, and the tokens after each, -100 for none."""
    codes = torch.from_numpy(split.codes[indices].astype(np.int64))
    delayed = apply_delay(codes, config.delays, config.special_token)
    return delayed[..., :-1], delayed[..., 1:].masked_fill(~target_mask(codes.shape[-1], config.delays), -100)


def read(model: MusicGenLM, split: Split, indices: NDArray[np.int64]) -> Reading:
    """Run a batch of clips through a model, with their captions and with none."""
    config = model.config
    columns, targets = columns_and_targets(split, indices, config)
    states, mask = captions_of(split, indices, config.text_dim)
    told = model(columns, states, mask).float()
    untold = model(columns, states, torch.zeros_like(mask)).float()
    guided = untold + config.guidance_scale * (told - untold)
    return Reading(told.log_softmax(-1), guided.log_softmax(-1), targets)


def read_served(stepper: Stepper, config: MusicGenConfig, split: Split, indices: NDArray[np.int64]) -> Reading:
    """Step through a batch of clips, column by column, as the service does with guidance and without."""
    columns, targets = columns_and_targets(split, indices, config)
    told = [MusicGenCondition(caption_of(split, index).astype(np.float32)) for index in indices]
    plain, guided = (
        step_through(stepper, told, columns, guidance_scale=scale).log_softmax(-1)
        for scale in (1.0, config.guidance_scale)
    )
    return Reading(plain, guided, targets)


def per_clip(values: Tensor, targets: Tensor) -> NDArray[np.float64]:
    """Mean of [B, K, T] over the tokens of each clip [B]."""
    counts = targets != -100
    means = values.masked_fill(~counts, 0).sum((1, 2)) / counts.sum((1, 2))
    result: NDArray[np.float64] = means.double().numpy()
    return result


def compare(reference: Reading, other: Reading) -> dict[str, NDArray[np.float64]]:
    """The measures of one format on a batch, each [B]."""

    def divergence(first: Tensor, second: Tensor) -> NDArray[np.float64]:
        return per_clip((first.exp() * (first - second)).sum(-1), reference.targets)

    def loss(log_probabilities: Tensor) -> Tensor:
        flat = F.nll_loss(
            log_probabilities.flatten(0, 2), reference.targets.flatten(), reduction="none", ignore_index=-100
        )
        return flat.view(reference.targets.shape)

    same = (reference.plain.argmax(-1) == other.plain.argmax(-1)).float()
    return {
        "kl": divergence(reference.plain, other.plain),
        "kl_guided": divergence(reference.guided, other.guided),
        "loss_gap": per_clip(loss(other.plain) - loss(reference.plain), reference.targets),
        "same_top_token": per_clip(same, reference.targets),
    }


Reader = Callable[[NDArray[np.int64]], Reading]


@torch.inference_mode()
def cost_of_each(
    readers: Mapping[str, Reader], num_clips: int, num_of_split: int
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """The measures [clips] of each reader but the reference's, on clips spread evenly over the split."""
    indices = np.unique(np.linspace(0, num_of_split - 1, min(num_clips, num_of_split)).round().astype(int))
    found: dict[str, dict[str, list[NDArray[np.float64]]]] = {name: {} for name in readers if name != REFERENCE}
    for start in range(0, len(indices), BATCH_SIZE):
        some = indices[start : start + BATCH_SIZE]
        exact = readers[REFERENCE](some)
        for name, measures in found.items():
            for measure, values in compare(exact, readers[name](some)).items():
                measures.setdefault(measure, []).append(values)
    return {
        name: {measure: np.concatenate(parts) for measure, parts in measures.items()}
        for name, measures in found.items()
    }


def as_table(title: str, found: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> tuple[Table, dict[str, Any]]:
    """The same for people and for programs."""
    rows: list[Sequence[object]] = [
        ("format", "KL, nats a token", "KL guided", "cross-entropy minus fp32's", "same likeliest token")
    ]
    numbers: dict[str, Any] = {}
    for name, measures in found.items():
        intervals = {measure: bootstrap_mean(values) for measure, values in measures.items()}
        rows.append((name, *(f"{i.mean:+.5f} [{i.low:+.5f}, {i.high:+.5f}]" for i in intervals.values())))
        numbers[name] = {m: {"mean": i.mean, "low": i.low, "high": i.high} for m, i in intervals.items()}
    num_clips = max(len(values) for measures in found.values() for values in measures.values())
    return Table(f"{title}, {num_clips} clips", rows), numbers


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--features", type=Path, default=Path("corpus/features"), help="from prepare_features.py")
    options.add_argument("--model", default="", help="name, or name=file:///DIR, of the language model")
    options.add_argument("--formats", default=",".join(FORMATS), help="comma list of formats beside float32")
    options.add_argument("--note", default="", help="a sentence on the weights, for the report")
    args = options.parse_args()
    names = [REFERENCE, *args.formats.split(",")]
    models = {name: load_lm(args.model, weight_format=name, num_threads=args.threads) for name in names}
    steppers = {name: stepper_of(loaded) for name, loaded in models.items()}
    reference = models[REFERENCE]
    split = read_split(need(args.features, "The features"), "test", reference.config.num_codebooks)
    at_once, served = (
        cost_of_each(readers, args.limit or DEFAULT_CLIPS, len(split.codes))
        for readers in (
            {name: partial(read, loaded.module, split) for name, loaded in models.items()},
            {name: partial(read_served, stepper, reference.config, split) for name, stepper in steppers.items()},
        )
    )
    (first, numbers), (second, served_numbers) = (
        as_table("What fewer bits cost, all columns at once", at_once),
        as_table("What fewer bits cost as served, column by column", served),
    )
    publish(
        Outcome(
            "weight_formats",
            PROTOCOL,
            f"clips of the rendered corpus' test split; model {reference.info.model_id}. {args.note}".strip(),
            [first, second],
            {"model_id": reference.info.model_id, "formats": numbers, "served": served_numbers},
        ),
        args,
    )


if __name__ == "__main__":
    main()
