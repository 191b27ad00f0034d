"""What `make demo` makes is sound: neither silent nor clipped nor noise, tonal, and a function of prompt and seed.

Generates through the client from a server in this process (or the one at `--address`), with the demo's own prompt,
seed and length.

    python evals/quality/demo_audio.py [--address 127.0.0.1:50051] [--duration-s 10] [--limit 1]

Cost: 45 s of music, half a minute; `--limit 1` 30 s.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soxr

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, generate, mono, open_client, parser, publish
from served import report_name
from stretto_shared.audio import Waveform
from stretto_shared.metrics.level import clipped_share, rms_dbfs
from stretto_shared.metrics.spectral import log_mel_distance, peak_concentration, spectral_flatness

DEMO = ("a jazz trio with saxophone, double bass and drums", 7)
OTHER_PROMPTS = ("solo drums, a fast rock beat", "a church organ chorale", "solo flute, slow melody")
OTHER_SEEDS = (8, 9)
SHORT_S = 5.0

MIN_RMS_DBFS, MAX_FLATNESS, MIN_CONCENTRATION = -45.0, 0.1, 0.7
CEILING, MAX_CLIPPED = 0.9, 0.002  # the frame codec's limiter bends what is above, so nothing ever reaches full scale
MIN_DIFFERENCE = 0.05

PROTOCOL = (
    f"Not silent: RMS above {MIN_RMS_DBFS:g} dBFS in every second but the last. Not clipped: under {MAX_CLIPPED:.1%} "
    f"of the samples above {CEILING:g} of full scale, where the codec's limiter begins. Not noise: median spectral "
    f"flatness under {MAX_FLATNESS} (white noise 0.56). "
    f"Tonal: the strongest 5 % of bins hold above {MIN_CONCENTRATION:.0%} of a median frame's power (white noise "
    f"20 %). Different: mel distance above {MIN_DIFFERENCE} and other bytes. Identical: the same bytes."
)


def seconds_dbfs(clip: Waveform) -> list[float]:
    """Level of every whole second."""
    samples, rate_hz = mono(clip), clip.sample_rate_hz
    return [rms_dbfs(samples[start : start + rate_hz]) for start in range(0, len(samples) - rate_hz + 1, rate_hz)]


def difference(first: Waveform, second: Waveform) -> float:
    """Mel distance of two clips at 16 kHz, over the time that both have."""
    length = min(first.num_samples, second.num_samples)
    a, b = (soxr.resample(mono(clip)[:length], clip.sample_rate_hz, 16_000) for clip in (first, second))
    return log_mel_distance(a, b, 16_000)


@dataclass(frozen=True)
class Measures:
    """What one clip says of itself."""

    rms_dbfs: float
    quietest_second_dbfs: float
    clipped_share: float
    spectral_flatness: float
    peak_concentration: float
    duration_s: float

    def row(self, label: str) -> tuple[object, ...]:
        """As the table shows it."""
        level = self.rms_dbfs, self.quietest_second_dbfs, self.clipped_share
        return label, *level, self.spectral_flatness, self.peak_concentration


def measure(clip: Waveform) -> Measures:
    """Level, quietest second but the last, clipping, flatness, concentration."""
    samples = mono(clip)
    levels = seconds_dbfs(clip)
    return Measures(
        rms_dbfs(samples),
        min(levels[:-1] or levels or [rms_dbfs(samples)]),
        clipped_share(samples, ceiling=CEILING),
        spectral_flatness(samples),
        peak_concentration(samples),
        clip.duration_s,
    )


def sound_claims(found: Measures, duration_s: float) -> dict[str, bool]:
    """What every clip of music owes."""
    return {
        "not_silent": found.quietest_second_dbfs > MIN_RMS_DBFS,
        "not_clipped": found.clipped_share < MAX_CLIPPED,
        "not_noise": found.spectral_flatness < MAX_FLATNESS,
        "tonal": found.peak_concentration > MIN_CONCENTRATION,
        "as_long_as_asked": abs(found.duration_s - duration_s) < 0.1,
    }


def is_different(first: Waveform, second: Waveform) -> bool:
    """Other bytes and another sound."""
    same = first.samples.shape == second.samples.shape and np.array_equal(first.samples, second.samples)
    return not same and difference(first, second) > MIN_DIFFERENCE


async def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--address", default="", help="a running server; empty starts one in this process")
    options.add_argument("--duration-s", type=float, default=10.0, help="of the demo; the others last 5 s")
    args = options.parse_args()
    prompt, seed = DEMO
    async with open_client(args.address) as client:
        demo, receipt = await generate(client, prompt, duration_s=args.duration_s, seed=seed)
        again, _ = await generate(client, prompt, duration_s=args.duration_s, seed=seed)
        prompts = OTHER_PROMPTS[: args.limit or None]
        by_prompt = [(await generate(client, text, duration_s=SHORT_S, seed=seed))[0] for text in prompts]
        seeds = OTHER_SEEDS[: args.limit or None]
        by_seed = [(await generate(client, prompt, duration_s=SHORT_S, seed=other))[0] for other in seeds]
    found = measure(demo)
    rows = [found.row(f"demo: {prompt}")]
    rows += [measure(clip).row(text) for text, clip in zip(prompts, by_prompt, strict=True)]
    rows += [measure(clip).row(f"demo, seed {other}") for other, clip in zip(seeds, by_seed, strict=True)]
    prompt_gap = min(difference(demo, clip) for clip in by_prompt)
    seed_gap = min(difference(demo, clip) for clip in by_seed)
    models = [model.model_id for model in receipt.models]
    publish(
        Outcome(
            report_name("demo_audio", receipt.models),
            PROTOCOL,
            f"{args.duration_s:g} s from {prompt!r}, seed {seed}; models {', '.join(models)}",
            [
                Table("Clips", [("", "dBFS", "quietest s", "clipped", "flatness", "concentration"), *rows]),
                Table(
                    "Mel distance to the demo, least", [("", "mel L1"), ("prompts", prompt_gap), ("seeds", seed_gap)]
                ),
            ],
            {
                **asdict(found),
                "least_difference_by_prompt": prompt_gap,
                "least_difference_by_seed": seed_gap,
                "real_time_factor": receipt.real_time_factor,
                "models": models,
            },
            {
                **sound_claims(found, args.duration_s),
                "identical_for_the_same": bool(np.array_equal(demo.samples, again.samples)),
                "different_for_other_prompts": all(is_different(demo, clip) for clip in by_prompt),
                "different_for_other_seeds": all(is_different(demo, clip) for clip in by_seed),
            },
        ),
        args,
    )


if __name__ == "__main__":
    asyncio.run(main())
