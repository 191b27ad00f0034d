"""What the fine stage of MusicLM adds to the sound, and at which temperature.

Of each clip of the VALIDATION split (it is a choice): one window of 2.56 s, whose first 4 codebooks are the recording's
own. Codebooks 5 to 12 are the recording's own, none, drawn by the fine stage at several temperatures, or drawn from
their frequencies; all go through the codec, and are compared with the recording.

Two questions: how near each window comes to its own recording, which a draw cannot win, since it is one of many that
the coarse codes allow, and what is left out is nearer to all of them; and how near all windows together come to what
the recordings sound like, as a Frechet distance in YAMNet's space.

    python evals/quality/musiclm_fine_sound.py --data ../shared/data [--temperatures 0,0.4,1]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))
from choice import Distance, Distances
from harness import MISSING_STATUS, ROOT, Outcome, Table, need, parser, publish, surely_above
from judges import NUM_DIMS, YAMNET
from peers.yamnet import Yamnet
from quality.musiclm_loss import load_stage
from quality.musiclm_temperatures import draw
from stretto_codec.models.framecodec import FrameCodec, FrameCodecConfig
from stretto_shared import weights
from stretto_shared.engine.sampling import Sampling
from stretto_shared.metrics.bootstrap import Interval, bootstrap_mean
from stretto_shared.metrics.spectral import log_mel_distance
from stretto_shared.nn.packed_linear import pack_linears
from stretto_shared.nn.stage_lm import StageCondition, StageLM

DEFAULT_WINDOWS = 120
SAMPLE_RATE_HZ, METRIC_RATE_HZ = 24_000, 16_000
OWN, NONE, FREQUENCIES = "the recording's own", "none", "by frequency"

PROTOCOL = (
    "Log-mel distance (mean |log10| of 80 mel bands at 16 kHz) between a recorded window of 2.56 s and its codes "
    "through the codec: codebooks 0 to 3 the recording's own, 4 to 11 as named. Windows of clips of the validation "
    "split, their places and all noise chosen by seed. Frechet distance of all of these to all recorded windows, in "
    f"YAMNet's space on {NUM_DIMS[YAMNET]} principal axes. Intervals: 95 % bootstrap over windows, paired."
)


def load_codec() -> FrameCodec:
    """The codec whose tokens the stages speak."""
    folder = need(ROOT / "services/codec/weights/framecodec", "The codec")
    resolved = weights.resolve("default", name="framecodec", default_dir=folder.parent)
    codec = FrameCodec(FrameCodecConfig(**resolved.config["config"]))
    codec.load_state_dict({name: value.float() for name, value in weights.load_tensors(resolved).items()})
    return codec.eval()


def read_windows(
    features: Path, corpus: Path, count: int, num_frames: int, hop_length: int
) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
    """Codes [N, 12, T] of windows of clips of the validation split, and their recordings [S] at 24 kHz."""
    paths = sorted(need(features, "The features").glob("codes_valid_*.npy"))
    if not paths:
        print(f"missing: no codes_valid_*.npy in {features}. Make them with prepare_features.py.", file=sys.stderr)
        raise SystemExit(MISSING_STATUS)
    arrays = [np.load(path, mmap_mode="r") for path in paths]
    places = [(shard, row) for shard, array in enumerate(arrays) for row in range(len(array))]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int))
    codes, recordings = [], []
    for index in chosen.tolist():
        shard, row = places[index]
        first = int(np.random.default_rng(index).integers(arrays[shard].shape[2] - num_frames + 1))
        codes.append(arrays[shard][row, :, first : first + num_frames].astype(np.int64))
        audio = np.load(corpus / paths[shard].name.replace("codes_", "audio_"), mmap_mode="r")
        samples = audio[row, first * hop_length : (first + num_frames) * hop_length]
        recordings.append((samples / 32768.0).astype(np.float32))
    return np.stack(codes), recordings


def draw_fine(model: StageLM, coarse: NDArray[np.int64], temperature: float) -> NDArray[np.int64]:
    """The stage's own codebooks [N, K, T] for coarse ones [N, J, T], at one temperature, without top-k."""
    num_codebooks = model.config.num_codebooks
    how = Sampling(temperature, top_k=0, top_p=1.0, guidance_scale=1.0)
    conditions = [StageCondition(source=each) for each in coarse]
    tokens = draw(model, conditions, coarse.shape[2] * num_codebooks, how)
    return tokens.reshape(len(coarse), -1, num_codebooks).swapaxes(1, 2)


def draw_by_frequency(own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Codes of the same frequencies as those of all windows together [N, K, T], without any order."""
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(own[:, k].ravel()).reshape(own[:, k].shape) for k in range(own.shape[1])], axis=1)


@torch.inference_mode()
def heard_as(codec: FrameCodec, codes: NDArray[np.int64], length: int) -> list[NDArray[np.float32]]:
    """Windows of codes [N, k, T] through the codec, [S] each at 16 kHz; `length` samples of the codec's."""
    audio = [codec.decode(torch.from_numpy(each[None]))[0, 0].numpy()[:length] for each in codes]
    return [soxr.resample(each, SAMPLE_RATE_HZ, METRIC_RATE_HZ) for each in audio]


def distances(heard: Sequence[NDArray[np.float32]], recordings: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """The log-mel distance [N] of each window from its recording, both at 16 kHz."""
    return np.array([log_mel_distance(true, own) for true, own in zip(recordings, heard, strict=True)])


def spreads(
    yamnet: Yamnet, heard: Mapping[str, Sequence[NDArray[np.float32]]], recordings: Sequence[NDArray[np.float32]]
) -> dict[str, Distance]:
    """The Frechet distance of each set of windows to the recordings, all at 16 kHz."""
    rows = [yamnet.hear(each.astype(np.float64)).embeddings for each in recordings]
    num_rows, num_numbers = np.concatenate(rows).shape
    space = Distances(rows, min(NUM_DIMS[YAMNET], num_rows - 1, num_numbers))
    return {
        name: space.of([yamnet.hear(each.astype(np.float64)).embeddings for each in windows])
        for name, windows in heard.items()
    }


def gains_of(found: dict[str, NDArray[np.float64]]) -> dict[str, Interval]:
    """How much nearer each choice of the fine codebooks comes than none of them; paired by window."""
    return {name: bootstrap_mean(found[NONE] - each) for name, each in found.items() if name != NONE}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--features", type=Path, default=Path("corpus/features"), help="with codes_valid_*.npy")
    options.add_argument("--corpus", type=Path, default=Path("corpus/v1"), help="with audio_valid_*.npy")
    options.add_argument("--source", default="default", help="of musiclm_fine, or file:///DIR")
    options.add_argument("--temperatures", default="0,0.4,0.7,1", help="to try, with commas")
    args = options.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    yamnet = Yamnet(need(args.data / "judges" / "yamnet", "YAMNet"))
    codec, (model, model_id) = load_codec(), load_stage("musiclm_fine", args.source)
    pack_linears(model.layers)
    num_coarse = model.config.num_source_codebooks
    codes, recordings = read_windows(
        args.features, args.corpus, args.limit or DEFAULT_WINDOWS, model.config.window_frames, codec.config.hop_length
    )
    coarse, fine = codes[:, :num_coarse], codes[:, num_coarse:]
    chosen = {OWN: fine, FREQUENCIES: draw_by_frequency(fine), NONE: fine[:, :0]}
    for text in args.temperatures.split(","):
        chosen[f"musiclm_fine at {float(text):g}"] = draw_fine(model, coarse, float(text))
    length = len(recordings[0])
    true = [soxr.resample(each, SAMPLE_RATE_HZ, METRIC_RATE_HZ) for each in recordings]
    heard = {name: heard_as(codec, np.concatenate([coarse, each], axis=1), length) for name, each in chosen.items()}
    found = {name: distances(windows, true) for name, windows in heard.items()}
    spread = spreads(yamnet, heard, true)
    gains = gains_of(found)
    rows = [
        (name, float(found[name].mean()), *((f"{g.mean:+.4f}", f"[{g.low:+.4f}, {g.high:+.4f}]") if g else ("", "")))
        for name, g in ((name, gains.get(name)) for name in found)
    ]
    closer = {name: spread[NONE] - each for name, each in spread.items() if name != NONE}
    spread_rows = [
        (name, each.value, *((f"{g.value:+.2f}", f"[{g.interval[0]:+.2f}, {g.interval[1]:+.2f}]") if g else ("", "")))
        for name, each, g in ((name, each, closer.get(name)) for name, each in spread.items())
    ]
    drawn = [name for name in found if name.startswith("musiclm_fine")]
    best = min(drawn, key=lambda name: float(found[name].mean()))
    likest = min(drawn, key=lambda name: spread[name].value)
    publish(
        Outcome(
            "musiclm_fine_sound",
            PROTOCOL,
            f"{len(codes)} windows of the rendered corpus' validation split; {model_id}",
            [
                Table(
                    "Log-mel distance from the recording",
                    [("codebooks 4 to 11", "mean", "gain on none", "95 %"), *rows],
                ),
                Table(
                    "Frechet distance to all recorded windows, YAMNet",
                    [("codebooks 4 to 11", "distance", "gain on none", "95 %"), *spread_rows],
                ),
            ],
            {
                "model_id": model_id,
                "distance": {name: float(each.mean()) for name, each in found.items()},
                "gain": {name: {"mean": g.mean, "low": g.low, "high": g.high} for name, g in gains.items()},
                "best": best,
                "frechet": {name: each.value for name, each in spread.items()},
                "frechet_gain": {
                    name: {"mean": g.value, "low": g.interval[0], "high": g.interval[1]} for name, g in closer.items()
                },
                "likest": likest,
            },
            {
                "the_fine_stage_brings_sound_nearer": surely_above(gains[best]),
                "the_fine_stage_makes_windows_together_sound_more_like_recordings": closer[likest].interval[0] > 0,
                "the_codec_s_own_fine_codes_bring_sound_nearer": surely_above(gains[OWN]),
            },
        ),
        args,
    )


if __name__ == "__main__":
    main()
