"""What the three stages of MusicLM have learnt: held-out cross-entropy of each, and what each condition is worth.

Features are what the stages are trained on: `codes_`, `semantic_`, `style_` and `melody_` of a rendered corpus. On one
whole window of each clip of the test split: nats per token of every codebook beside a unigram and a previous-token
model fitted on the train split; then with the style, the melody or the source of another clip, and without it.

    python evals/quality/musiclm_loss.py --features corpus/features [--models musiclm_fine=file:///DIR] [--limit 16]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import MISSING_STATUS, ROOT, Outcome, Table, need, parser, publish, surely_above
from quality.musicgen_loss import another_of_each, previous_token_loss, unigram_loss
from stretto_shared import weights
from stretto_shared.metrics.bootstrap import Interval, bootstrap_mean
from stretto_shared.nn.stage_lm import StageConfig, StageLM
from stretto_shared.training.stages.dataset import StageFeatures, Windows
from stretto_shared.training.stages.recipe import Recipe, read_recipe
from stretto_shared.training.stages.start import id_of, quantizer_of

DEFAULT_CLIPS = 256
BATCH_SIZE = 8
SERVICES = {"musiclm_semantic": "semantic", "musiclm_coarse": "acoustic", "musiclm_fine": "acoustic"}
TOLD = "all told"

PROTOCOL = (
    "Nats per token, teacher forced, mean over clips; of each clip of the test split one whole window, its place "
    "chosen by seed. The style is the codes of the clip's own audio embedding, without noise. Baselines are fitted on "
    "all tokens of the train split: unigram with add-one smoothing; previous token of the same codebook, Witten-Bell "
    "interpolated with the unigram. `of another` gives each clip what belongs to another, by a seeded random order. "
    "Intervals: 95 % bootstrap over clips, paired."
)


def load_stage(name: str, source: str) -> tuple[StageLM, str]:
    """A stage in single precision, and its id."""
    folder = ROOT / "services" / SERVICES[name] / "weights"
    resolved = weights.resolve(source, name=name, default_dir=folder)
    model = StageLM(StageConfig(**resolved.config["config"]))
    model.load_state_dict({key: value.float() for key, value in weights.load_tensors(resolved).items()})
    return model.eval(), f"{name}@{resolved.digest_sha256[:12]}"


def conditions_of(config: StageConfig) -> dict[str, tuple[str, str]]:
    """What is changed of what the model is told, by name: which kind, and whether it is `other` or `none`."""
    heard = {"style": config.hears_style, "melody": config.hears_melody, "source": config.hears_source}
    found = {TOLD: ("", "")}
    for kind in (kind for kind, is_heard in heard.items() if is_heard):
        found |= {f"{kind} of another": (kind, "other"), f"no {kind}": (kind, "none")}
    return found


def told(own: Windows, other: Windows, change: tuple[str, str]) -> Windows:
    """The windows with one kind of what they are told exchanged or left out."""
    kind, whose = change
    if not kind:
        return own
    return replace(own, **{kind: getattr(other, kind) if whose == "other" else None})


@torch.inference_mode()
def losses_of(model: StageLM, windows: Windows) -> NDArray[np.float64]:
    """Mean cross-entropy [B, K] of each window."""
    num_codebooks = model.config.num_codebooks
    logits = model(windows.stream, windows.style, windows.melody, windows.source)
    loss = F.cross_entropy(logits.flatten(0, 1), windows.stream.flatten(), reduction="none")
    return loss.view(len(windows.stream), -1, num_codebooks).mean(1).double().numpy()


def measure(model: StageLM, features: StageFeatures, count: int) -> tuple[dict[str, NDArray[np.float64]], Tensor]:
    """Cross-entropy [N, K] under every condition, and the tokens [N, K, T] that were predicted."""
    config = model.config
    clips = np.unique(np.linspace(0, len(features) - 1, count).round().astype(int))  # over all shards alike
    num_frames = min(config.window_frames, features.num_clip_frames)
    firsts = np.random.default_rng(0).integers(0, features.num_clip_frames - num_frames + 1, len(clips))
    first_of = dict(zip(clips.tolist(), firsts.tolist(), strict=True))
    others = another_of_each(clips)
    conditions, streams = conditions_of(config), []
    losses: dict[str, list[NDArray[np.float64]]] = {name: [] for name in conditions}
    for at in range(0, len(clips), BATCH_SIZE):
        own, other = (
            features.windows(some.tolist(), [first_of[clip] for clip in some.tolist()], num_frames)
            for some in (clips[at : at + BATCH_SIZE], others[at : at + BATCH_SIZE])
        )
        streams.append(own.stream)
        for name, change in conditions.items():
            losses[name].append(losses_of(model, told(own, other, change)))
    tokens = torch.cat(streams).unflatten(1, (num_frames, config.num_codebooks)).transpose(1, 2)
    return {name: np.concatenate(parts) for name, parts in losses.items()}, tokens


def gaps_of(losses: Mapping[str, NDArray[np.float64]]) -> dict[str, Interval]:
    """How much more a token costs without each condition, or with another clip's; paired by clip."""
    return {
        f"{name}, minus {TOLD}": bootstrap_mean(loss.mean(1) - losses[TOLD].mean(1))
        for name, loss in losses.items()
        if name != TOLD
    }


def claims_of(
    name: str,
    losses: Mapping[str, NDArray[np.float64]],
    baselines: Mapping[str, NDArray[np.float64]],
    gaps: Mapping[str, Interval],
) -> dict[str, bool]:
    """What must hold of a stage: it beats both baselines in every codebook, and every condition is worth something."""
    own = losses[TOLD].mean(0)
    claims = {f"{name}: gap_above_zero: {label}": surely_above(gap) for label, gap in gaps.items()}
    better = all(bool((own < loss.mean(0)).all()) for loss in baselines.values())
    return {f"{name}: better_than_both_baselines_in_every_codebook": better, **claims}


def features_of(folder: Path, split: str, recipe: Recipe, config: StageConfig, joint: Path) -> StageFeatures:
    """The clips of a split, styles quantised by the joint encoder that the stage names.

    Raises:
        SystemExit: If another joint encoder is there, or something is missing.
    """
    quantizer = None
    if config.hears_style:
        if id_of(need(joint, "The joint encoder")) != config.style_encoder:
            print(f"missing: styles of {config.style_encoder}, {joint} is {id_of(joint)}.", file=sys.stderr)
            raise SystemExit(MISSING_STATUS)
        quantizer = quantizer_of(joint, config.num_style_codes)
    return StageFeatures(folder, split, recipe, config, quantizer)


def evaluate(
    name: str, source: str, folder: Path, joint: Path, count: int
) -> tuple[str, list[Table], dict[str, object], dict[str, bool]]:
    """The id, tables, numbers and claims of one stage."""
    recipe = read_recipe(ROOT / "services" / SERVICES[name] / "recipes" / f"{name}.toml")
    model, model_id = load_stage(name, source)
    config = model.config
    train, test = (features_of(folder, split, recipe, config, joint) for split in ("train", "test"))
    losses, tokens = measure(model, test, min(count, len(test)))
    own = tokens.numpy().astype(np.int16)
    baselines = {
        "unigram": unigram_loss(train.own, own, config.cardinality),
        "previous token": previous_token_loss(train.own, own, config.cardinality),
    }
    gaps = gaps_of(losses)
    head = ("", "mean", *(f"codebook {recipe.first_codebook + k}" for k in range(config.num_codebooks)))
    both = {**baselines, **losses}
    rows = [(label, float(loss.mean()), *map(float, loss.mean(0))) for label, loss in both.items()]
    gap_rows = [(label, f"{g.mean:+.4f}", f"[{g.low:+.4f}, {g.high:+.4f}]") for label, g in gaps.items()]
    tables = [
        Table(f"{model_id}: cross-entropy, nats per token, {len(own)} windows", [head, *rows]),
        Table(f"{name}: gaps, nats per token", [("", "mean", "95 %"), *gap_rows]),
    ]
    numbers: dict[str, object] = {
        "model_id": model_id,
        "cross_entropy": {label: loss.mean(0) for label, loss in both.items()},
        "gaps": {label: {"mean": g.mean, "low": g.low, "high": g.high} for label, g in gaps.items()},
    }
    return model_id, tables, numbers, claims_of(name, losses, baselines, gaps)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--features", type=Path, default=Path("corpus/features"), help="codes_, semantic_, style_ ...")
    options.add_argument("--models", default=",".join(SERVICES), help="stages, as name or name=file:///DIR")
    options.add_argument("--joint", type=Path, default=ROOT / "services/embedding/weights/mulan", help="joint encoder")
    args = options.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    need(args.features, "The features")
    ids, tables, stages, passed = [], [], {}, {}
    for name, source in weights.parse_model_list(args.models).items():
        found = evaluate(name, source, args.features, args.joint, args.limit or DEFAULT_CLIPS)
        ids.append(found[0])
        tables += found[1]
        stages[name] = found[2]
        passed |= found[3]
    data = f"test split of the rendered corpus (held-out pieces); models {', '.join(ids)}"
    publish(Outcome("musiclm_loss", PROTOCOL, data, tables, {"stages": stages}, passed), args)


if __name__ == "__main__":
    main()
