"""At which temperature and guidance the stages of MusicLM draw what is as surprising to them as music is.

On the VALIDATION split (it is a choice), each stage alone, told the truth of one whole window: what it draws at each
setting beside the window itself. A setting that is too cold draws what the model finds likelier than any music, and
holds its tokens for too long; one too hot the opposite. The papers' temperatures, 1.0, .95 and .4, are among those
tried.

    python evals/quality/musiclm_temperatures.py --features corpus/features [--guidances 1,3] [--limit 8]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import ROOT, Outcome, Table, need, parser, publish
from quality.musiclm_loss import SERVICES, features_of, load_stage, losses_of
from stretto_shared import weights
from stretto_shared.engine.sampling import Sampling, sample, stage_key
from stretto_shared.engine.stage_stepper import StageStepper
from stretto_shared.nn.packed_linear import pack_linears
from stretto_shared.nn.stage_lm import StageCondition, StageLM
from stretto_shared.training.stages.dataset import Windows
from stretto_shared.training.stages.recipe import read_recipe

DEFAULT_WINDOWS = 16
PUBLISHED = {"musiclm_semantic": 1.0, "musiclm_coarse": 0.95, "musiclm_fine": 0.4}

PROTOCOL = (
    "Windows of clips of the validation split, their places and all noise chosen by seed; each stage is told the true "
    "style and source (no melody) and draws the whole window without top-k. Surprise: nats per token of the drawn "
    "tokens under the stage's own conditional distribution at temperature 1. Held: frames that a token of the stage's "
    "first codebook stays. Variety: perplexity of the counts of those tokens within a window."
)


@torch.inference_mode()
def draw(model: StageLM, conditions: Sequence[StageCondition], num_steps: int, how: Sampling) -> NDArray[np.int64]:
    """The tokens [N, S] of a window for each condition, all stepped together."""
    stepper = StageStepper(model, min_rows=1)
    num_windows = len(conditions)
    states = [stepper.open(each, num_steps=num_steps, guidance_scale=how.guidance_scale) for each in conditions]
    tokens = np.full((num_windows, 1 + num_steps), stepper.special_token, dtype=np.int64)
    for step in range(num_steps):
        rows = stepper.step(states, list(tokens[:, None, step : step + 1]), [True] * num_windows)
        logits = torch.cat([row for row in rows if row is not None])
        windows, here = np.arange(num_windows), np.full(num_windows, step)
        tokens[:, 1 + step] = sample(logits, how, seed=0, stage=stage_key("eval"), frames=here, codebooks=windows)
    return tokens[:, 1:]


def conditions_of(windows: Windows) -> list[StageCondition]:
    """What each of the windows is told, without a melody."""
    return [
        StageCondition(
            style=None if windows.style is None else windows.style[row].numpy(),
            source=None if windows.source is None else windows.source[row].numpy(),
        )
        for row in range(len(windows.stream))
    ]


def mean_held(tokens: NDArray[np.int64]) -> float:
    """Frames that a token stays, the mean over tokens [N, T]."""
    num_changes = (np.diff(tokens, axis=1) != 0).sum(axis=1)
    return float(tokens.shape[1] / (1 + num_changes).mean())


def variety(tokens: NDArray[np.int64]) -> float:
    """Perplexity of the counts within a window, the mean over windows [N, T]."""
    found = []
    for each in tokens:
        shares = np.unique(each, return_counts=True)[1] / len(each)
        found.append(float(np.exp(-(shares * np.log(shares)).sum())))
    return float(np.mean(found))


def evaluate(
    name: str,
    source: str,
    folder: Path,
    joint: Path,
    count: int,
    temperatures: Sequence[float],
    guidances: Sequence[float],
) -> tuple[str, Table, dict[str, object]]:
    """The id, the table and the numbers of one stage."""
    recipe = read_recipe(ROOT / "services" / SERVICES[name] / "recipes" / f"{name}.toml")
    model, model_id = load_stage(name, source)
    config, features = model.config, features_of(folder, "valid", recipe, model.config, joint)
    pack_linears(model.layers)
    clips = np.unique(np.linspace(0, len(features) - 1, min(count, len(features))).round().astype(int))
    firsts = np.random.default_rng(0).integers(0, features.num_clip_frames - config.window_frames + 1, len(clips))
    true = features.windows(clips.tolist(), firsts.tolist(), config.window_frames)
    drawn = {"the recording's own": true.stream.numpy()}
    for temperature in temperatures:
        for guidance in guidances if config.hears_style else (1.0,):
            how = Sampling(temperature, top_k=0, top_p=1.0, guidance_scale=guidance)
            label = f"temperature {temperature:g}, guidance {guidance:g}"
            drawn[label] = draw(model, conditions_of(true), true.stream.shape[1], how)
    found = {}
    for label, stream in drawn.items():
        windows = Windows(torch.from_numpy(stream), true.style, None, true.source)
        first = stream[:, :: config.num_codebooks]
        surprise = float(losses_of(model, windows).mean())
        found[label] = {"surprise": surprise, "held": mean_held(first), "variety": variety(first)}
    rows = [(label, *values.values()) for label, values in found.items()]
    table = Table(f"{model_id}, {len(clips)} windows", [("", "surprise", "held", "variety"), *rows])
    return model_id, table, {"model_id": model_id, "settings": found, "published_temperature": PUBLISHED[name]}


def numbers_of(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [float(part) for part in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--features", type=Path, default=Path("corpus/features"), help="codes_, semantic_, style_ ...")
    options.add_argument("--models", default=",".join(SERVICES), help="stages, as name or name=file:///DIR")
    options.add_argument("--joint", type=Path, default=ROOT / "services/embedding/weights/mulan", help="joint encoder")
    options.add_argument("--temperatures", default="0.4,0.7,0.85,0.95,1", help="to try, with commas")
    options.add_argument("--guidances", default="1,3", help="to try, where a stage hears a style")
    args = options.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    need(args.features, "The features")
    settings = numbers_of(args.temperatures), numbers_of(args.guidances)
    ids, tables, stages = [], [], {}
    for name, source in weights.parse_model_list(args.models).items():
        found = evaluate(name, source, args.features, args.joint, args.limit or DEFAULT_WINDOWS, *settings)
        ids.append(found[0])
        tables.append(found[1])
        stages[name] = found[2]
    data = f"validation split of the rendered corpus; models {', '.join(ids)}"
    publish(Outcome("musiclm_temperatures", PROTOCOL, data, tables, {"stages": stages}), args)


if __name__ == "__main__":
    main()
