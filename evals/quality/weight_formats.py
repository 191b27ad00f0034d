"""What a language model loses when its matrices are held in fewer bits: KL of the next-token distribution to float32.

Features are those that `services/acoustic/recipes/prepare_features.py` writes for a rendered corpus. On clips of the
test split, each with one caption of a held-out template, teacher forced: the mean KL from the distribution of the
float32 model to that of each format, under guidance as the cascade draws and without it, the change of the
cross-entropy, and how often the likeliest token is the same one.

    python evals/quality/weight_formats.py --features corpus/features [--model musicgen=file:///DIR] [--limit 16]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from musicgen_loss import Split, captions_of, read_split
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, need, parser, publish
from stretto_acoustic import loading
from stretto_acoustic.models.musicgen import MusicGenLM
from stretto_acoustic.settings import AcousticSettings
from stretto_shared.engine.delay import apply_delay, target_mask
from stretto_shared.metrics.bootstrap import bootstrap_mean
from stretto_shared.weights import parse_model_list

DEFAULT_CLIPS = 48
BATCH_SIZE = 4
REFERENCE = "fp32"
FORMATS = ("bf16", "int8", "int4")

PROTOCOL = (
    "Teacher forced on clips of the test split, each with one caption of a held-out template, chosen by seed. KL in "
    "nats a token, from the float32 model's distribution to the format's, mean over tokens and codebooks, without "
    "top-k; `guided` is of the logits after classifier-free guidance at the model's own scale. Cross-entropy "
    "is the format's minus float32's, without guidance. Intervals: 95 % bootstrap over clips, paired."
)


@dataclass(frozen=True, eq=False)
class Reading:
    """Log-probabilities [B, K, T, V] of a batch, without and with guidance; targets [B, K, T], -100 for none."""

    plain: Tensor
    guided: Tensor
    targets: Tensor


def read(model: MusicGenLM, split: Split, indices: NDArray[np.int64]) -> Reading:
    """Run a batch of clips through a model, with their captions and with none."""
    config = model.config
    codes = torch.from_numpy(split.codes[indices].astype(np.int64))
    states, mask = captions_of(split, indices, config.text_dim)
    delayed = apply_delay(codes, config.delays, config.special_token)
    told = model(delayed[..., :-1], states, mask).float()
    untold = model(delayed[..., :-1], states, torch.zeros_like(mask)).float()
    targets = delayed[..., 1:].masked_fill(~target_mask(codes.shape[-1], config.delays), -100)
    guided = untold + config.guidance_scale * (told - untold)
    return Reading(told.log_softmax(-1), guided.log_softmax(-1), targets)


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


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--features", type=Path, default=Path("corpus/features"), help="from prepare_features.py")
    options.add_argument("--model", default="musicgen", help="name, or name=file:///DIR, of the language model")
    options.add_argument("--note", default="", help="a sentence on the weights, for the report")
    args = options.parse_args()
    ((name, source),) = parse_model_list(args.model).items()
    settings = AcousticSettings()

    def load(weight_format: str) -> loading.LoadedLM:
        return loading.load(
            name,
            source,
            weights_dir=settings.weights_dir,
            weight_format=weight_format,
            native_kernel_dir=settings.native_kernel_dir,
            num_threads=args.threads,
        )

    reference = load(REFERENCE)
    others = {weight_format: load(weight_format) for weight_format in FORMATS}
    split = read_split(need(args.features, "The features"), "test", reference.config.num_codebooks)
    count = min(args.limit or DEFAULT_CLIPS, len(split.codes))
    indices = np.unique(np.linspace(0, len(split.codes) - 1, count).round().astype(int))
    found: dict[str, dict[str, list[NDArray[np.float64]]]] = {each: {} for each in FORMATS}
    with torch.inference_mode():
        for start in range(0, len(indices), BATCH_SIZE):
            some = indices[start : start + BATCH_SIZE]
            exact = read(reference.module, split, some)
            for weight_format, loaded in others.items():
                for measure, values in compare(exact, read(loaded.module, split, some)).items():
                    found[weight_format].setdefault(measure, []).append(values)
    rows: list[tuple[object, ...]] = [
        ("format", "KL, nats a token", "KL guided", "cross-entropy minus fp32's", "same likeliest token")
    ]
    numbers: dict[str, Any] = {}
    for weight_format, measures in found.items():
        intervals = {measure: bootstrap_mean(np.concatenate(parts)) for measure, parts in measures.items()}
        rows.append((weight_format, *(f"{i.mean:+.5f} [{i.low:+.5f}, {i.high:+.5f}]" for i in intervals.values())))
        numbers[weight_format] = {m: {"mean": i.mean, "low": i.low, "high": i.high} for m, i in intervals.items()}
    publish(
        Outcome(
            "weight_formats",
            PROTOCOL,
            f"{len(indices)} clips of the rendered corpus' test split; model {reference.info.model_id}. "
            f"{args.note}".strip(),
            [Table("What fewer bits cost", rows)],
            {"model_id": reference.info.model_id, "formats": numbers},
        ),
        args,
    )


if __name__ == "__main__":
    main()
