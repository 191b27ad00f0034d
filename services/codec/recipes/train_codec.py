"""Train one of the codecs: `python services/codec/recipes/train_codec.py --config framecodec.toml --corpus DIR ...`.

Spectral reconstruction first, so that the quantizers settle; then hinge-adversarial with feature matching. The
budget is wall time. A run resumes from its folder; `--init` starts from an exported checkpoint instead. After each
validation the model is exported if its log-mel distance is within a tenth of the best so far, and always at the end:
with discriminators later is better to the ear, though not by this distance.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from block_transform_start import start_from_block_transform
from coarser_start import start_from_finer
from principal_start import start_from_principal_components
from safetensors.torch import load_file
from sinusoid_loss import sinusoid_loss
from stretto_codec.models.framecodec import NOISE_PERIOD, FrameCodec, FrameCodecConfig
from stretto_codec.models.soundstream import SoundStream, SoundStreamConfig
from stretto_shared import weights
from stretto_shared.nn.rvq import Quantized, without_learning_state
from stretto_shared.training import checkpoint
from stretto_shared.training.adversarial import Discriminators, discriminator_loss, generator_losses
from stretto_shared.training.loop import Averages, Budget, RunLog, learning_rate
from stretto_shared.training.spectral_losses import MultiScaleMelLoss
from torch import Tensor, nn

ARCHITECTURES: dict[str, tuple[type[Any], type[nn.Module]]] = {
    "FrameCodec": (FrameCodecConfig, FrameCodec),
    "SoundStream": (SoundStreamConfig, SoundStream),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One TOML file."""

    name: str
    architecture: str
    licence: str
    minutes: float
    model: dict[str, Any]
    max_steps: int = 0
    batch_size: int = 12
    crop_s: float = 1.0
    learning_rate: float = 5e-4
    discriminator_learning_rate: float = 5e-4
    betas: tuple[float, float] = (0.8, 0.99)
    warmup_steps: int = 100
    bypass_steps: int = 150  # steps before the quantizer takes part
    adversarial_after: float = 0.4  # share of the budget
    discriminator_crop_s: float = 0.5
    stft_sizes: tuple[int, ...] = (1024, 512)
    wave_scales: tuple[int, ...] = ()
    stft_channels: int = 16
    mel_weight: float = 15.0
    soft_floor: float = 0.0
    adversarial_weight: float = 1.0
    feature_weight: float = 2.0
    commitment_weight: float = 0.25
    waveform_weight: float = 0.0
    codebook_decay: float = 0.98
    equal_norm_from: int = 1000  # the first codebook whose codes keep one norm while they learn
    renew_codebooks: bool = False  # place them anew before the first step of a run with `--init`
    encoder_after: float = 0.0  # share of the budget in which only the decoder learns
    quantizer_dropout: float = 0.5
    fewest_codebooks: int = 1  # that quantizer dropout keeps
    fewest_share: float = 0.0  # of the rows with fewer, those that keep just the fewest: what a language model speaks
    validate_every_s: float = 240.0
    num_validation_clips: int = 24
    num_start_clips: int = 300
    num_refit_batches: int = 120
    refit_crop_s: float = 1.0
    refit_last: bool = True  # place the codes once more after the last step; False where tokens must stay what they are
    log_every: int = 25
    bf16: bool = True
    seed: int = 0


class Clips:
    """Random crops from folders of int16 shards `audio_{split}_*.npy` [N, S], each folder equally often."""

    def __init__(self, folders: Sequence[Path], split: str, crop: int, seed: int) -> None:
        self._folders = [[np.load(p, mmap_mode="r") for p in sorted(f.glob(f"audio_{split}_*.npy"))] for f in folders]
        self._folders = [[a for a in arrays if len(a) and a.shape[1] >= crop] for arrays in self._folders]
        self._folders = [arrays for arrays in self._folders if arrays]
        if not self._folders:
            raise SystemExit(f"No audio_{split}_*.npy in {[str(f) for f in folders]}. Make the corpus first.")
        self._sizes = [np.cumsum([len(a) for a in arrays]) for arrays in self._folders]
        self._crop = crop
        self._random = np.random.default_rng(seed)

    def batch(self, size: int, *, augment: bool = True) -> Tensor:
        """Audio [size, 1, S] at random gain; nearly silent crops are drawn again."""
        rows: list[np.ndarray] = []
        while len(rows) < size:
            which = len(rows) % len(self._folders)
            index = int(self._random.integers(self._sizes[which][-1]))
            shard = int(np.searchsorted(self._sizes[which], index, side="right"))
            array = self._folders[which][shard]
            clip = array[index - (self._sizes[which][shard - 1] if shard else 0)]
            start = int(self._random.integers(clip.shape[0] - self._crop + 1))
            crop = clip[start : start + self._crop].astype(np.float32) / 32768.0
            if np.abs(crop).max() < 1e-3 and self._random.random() < 0.95:
                continue
            if augment:
                crop = crop * min(10 ** (self._random.uniform(-12, 6) / 20), 0.99 / max(1e-3, np.abs(crop).max()))
            rows.append(crop)
        return torch.from_numpy(np.stack(rows))[:, None]


def read_recipe(path: Path) -> Recipe:
    """Read a TOML file; an unknown key is an error."""
    with path.open("rb") as file:
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in tomllib.load(file).items()}
    return Recipe(**values)


class Trainer:
    """The models, optimisers and losses of one run."""

    def __init__(
        self, recipe: Recipe, folder: Path, corpora: Sequence[Path], init: Path | None, finer: Path | None = None
    ) -> None:
        torch.manual_seed(recipe.seed)
        config_class, model_class = ARCHITECTURES[recipe.architecture]
        self.recipe, self.folder = recipe, folder
        self.config = config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in recipe.model.items()})
        self.model = model_class(self.config)
        self.initialised = init is not None or isinstance(self.model, SoundStream)
        if init is None:
            self._start(Clips(corpora, "train", 4 * self.config.sample_rate_hz, recipe.seed + 3), finer)
        if init is not None:
            self.model.load_state_dict({k: v.float() for k, v in load_file(init).items()})
        for level, codebook in enumerate(self.model.quantizer.codebooks):
            codebook.decay, codebook.equal_norm = recipe.codebook_decay, level >= recipe.equal_norm_from
        self.judges = Discriminators(
            stft_sizes=recipe.stft_sizes, stft_channels=recipe.stft_channels, wave_scales=recipe.wave_scales
        )
        self.mel_loss = MultiScaleMelLoss(self.config.sample_rate_hz, soft_floor=recipe.soft_floor)
        self.valid_loss = MultiScaleMelLoss(self.config.sample_rate_hz, linear=False)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), recipe.learning_rate, recipe.betas, weight_decay=1e-3, fused=True
        )
        self.judge_optimizer = torch.optim.AdamW(
            self.judges.parameters(), recipe.discriminator_learning_rate, (0.8, 0.99), fused=True
        )
        hop = self.config.hop_length
        self.latents: list[Tensor] = []
        self.crop = int(recipe.crop_s * self.config.sample_rate_hz) // hop * hop
        self.judge_crop = int(recipe.discriminator_crop_s * self.config.sample_rate_hz) // hop * hop
        self.train_clips = Clips(corpora, "train", self.crop, recipe.seed + 1)
        refit_crop = int(recipe.refit_crop_s * self.config.sample_rate_hz) // hop * hop
        self.refit_clips = Clips(corpora, "train", refit_crop, recipe.seed + 4)
        self.validation = Clips(corpora, "valid", self.crop, 1234).batch(recipe.num_validation_clips, augment=False)
        self.log = RunLog(folder)
        self.best = self.last_valid_mel = float("inf")
        self.random = np.random.default_rng(recipe.seed + 2)

    @torch.no_grad()
    def _start(self, sample: Clips, finer: Path | None) -> None:
        """Begin in closed form, from a sample of the training data, and from the codec in the folder `finer` if any."""
        clips = sample.batch(self.recipe.num_start_clips)
        if isinstance(self.model, FrameCodec) and finer is not None:
            start_from_finer(self.model, load_framecodec(finer), clips)
            latents = [self.model.encode_latents(part) for part in clips.split(8)]
            self.model.quantizer.initialise(torch.cat(latents))
            self.initialised = True
        elif isinstance(self.model, FrameCodec):
            start_from_principal_components(self.model, clips)
        elif isinstance(self.model, SoundStream):
            start_from_block_transform(self.model, clips)
            latents = [self.model.encode_latents(sample.batch(8)) for _ in range(self.recipe.num_start_clips // 32)]
            self.model.quantizer.initialise(torch.cat(latents))

    def _kept_codebooks(self, batch: int) -> Tensor:
        """Quantizer dropout: a share of the rows keep a random number of codebooks."""
        most, fewest = self.config.num_codebooks, self.recipe.fewest_codebooks
        drawn = self.random.integers(fewest, most + 1, batch)
        drawn = np.where(self.random.random(batch) < self.recipe.fewest_share, fewest, drawn)
        return torch.from_numpy(np.where(self.random.random(batch) < self.recipe.quantizer_dropout, drawn, most))

    def step(self, step: int, progress: float) -> dict[str, float]:
        """One step of the model, and of the discriminators once they take part."""
        recipe = self.recipe
        for optimizer, peak in (
            (self.optimizer, recipe.learning_rate),
            (self.judge_optimizer, recipe.discriminator_learning_rate),
        ):
            optimizer.param_groups[0]["lr"] = learning_rate(peak, step, progress, warmup_steps=recipe.warmup_steps)
        audio = self.train_clips.batch(recipe.batch_size)
        decoder_only = recipe.encoder_after >= 1.0 or progress < recipe.encoder_after
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            estimate, quantized, direct = self._reconstruct(audio, step, decoder_only=decoder_only)
        estimate = estimate.float()
        mel = self.mel_loss(estimate, audio)
        values = {"mel": mel, "commit": quantized.commitment_loss, "direct": direct}
        loss = recipe.mel_weight * (mel + direct) + recipe.commitment_weight * quantized.commitment_loss
        if recipe.waveform_weight:
            values["wave"] = (estimate - audio).abs().mean()
            loss = loss + recipe.waveform_weight * values["wave"]
        if progress >= recipe.adversarial_after:
            adversarial, features, judged = self._adversarial_step(estimate, audio)
            loss = loss + recipe.adversarial_weight * adversarial + recipe.feature_weight * features
            values |= {"adv": adversarial, "feat": features, "disc": judged}
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        values["grad"] = nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        return {name: float(value.detach()) for name, value in values.items()}

    def _reconstruct(self, audio: Tensor, step: int, *, decoder_only: bool) -> tuple[Tensor, Quantized, Tensor]:
        """The estimate, what the quantizer made, and the direct loss of a model that has one.

        In the first steps nothing is quantised, while the latents that will place the codes are kept.
        """
        if decoder_only:
            with torch.no_grad():
                self.model.quantizer.eval()
                quantized = self.model.quantizer(self.model.encode_latents(audio), self._kept_codebooks(len(audio)))
                self.model.quantizer.train()
        elif self.initialised or step >= self.recipe.bypass_steps:
            if not self.initialised:
                self.model.quantizer.initialise(torch.cat(self.latents))
                self.initialised, self.latents = True, []
            quantized = self.model.quantizer(self.model.encode_latents(audio), self._kept_codebooks(len(audio)))
        else:
            latents = self.model.encode_latents(audio)
            self.latents = [*self.latents, latents.detach().float()][-60:]
            codes = torch.zeros(len(audio), 0, latents.shape[1], dtype=torch.long)
            quantized = Quantized(self.model.quantizer.bypass(latents), codes, torch.zeros(()))
        if not isinstance(self.model, FrameCodec):
            return self.model.decode_latents(quantized.latents), quantized, torch.zeros(())
        sinusoids = self.model.decode_sinusoids(quantized.latents)
        with torch.autocast("cpu", enabled=False):
            estimate = self.model.synthesise(sinusoids, start=int(self.random.integers(NOISE_PERIOD)))
            return estimate, quantized, sinusoid_loss(self.model, sinusoids, audio)

    def _adversarial_step(self, estimate: Tensor, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step the discriminators on a crop; return the model's adversarial and feature losses on the same crop."""
        start = int(self.random.integers(audio.shape[-1] - self.judge_crop + 1))
        real, fake = (x[..., start : start + self.judge_crop] for x in (audio, estimate))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16):
            judged = discriminator_loss(self.judges(real), self.judges(fake.detach()))
        self.judge_optimizer.zero_grad(set_to_none=True)
        judged.backward()
        nn.utils.clip_grad_norm_(self.judges.parameters(), 10.0)
        self.judge_optimizer.step()
        self.judges.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16):
            with torch.no_grad():
                real_judgement = self.judges(real)
            adversarial, features = generator_losses(real_judgement, self.judges(fake))
        self.judges.requires_grad_(True)
        return adversarial, features, judged.detach()

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Log-mel distance on the validation clips with all codebooks, and the share of codes in use."""
        self.model.eval()
        used: list[set[int]] = [set() for _ in range(self.config.num_codebooks)]
        mels, coarse_mels, waves = [], [], []
        for audio in self.validation.split(8):
            codes = self.model.encode(audio)
            decoded = self.model.decode(codes)[..., : audio.shape[-1]]
            mels.append(float(self.valid_loss(decoded, audio)))
            coarse = self.model.decode(codes[:, : self.recipe.fewest_codebooks])[..., : audio.shape[-1]]
            coarse_mels.append(float(self.valid_loss(coarse, audio)))
            waves.append(float((decoded - audio).abs().mean()))
            for k, row in enumerate(codes.unbind(1)):
                used[k] |= set(row.flatten().tolist())
        self.model.train()
        return {
            "valid_mel": float(np.mean(mels)),
            "valid_mel_coarse": float(np.mean(coarse_mels)),
            "valid_wave": float(np.mean(waves)),
            "codes_used": float(np.mean([len(u) for u in used])),
        }

    @torch.no_grad()
    def refit_codebooks(self) -> None:
        """Place the codes anew by k-means on many latents of the model as it now is: averages lag behind it."""
        self.model.eval()
        latents = []
        for _ in range(self.recipe.num_refit_batches):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16):
                latents.append(self.model.encode_latents(self.refit_clips.batch(16)).float())
        self.model.quantizer.initialise(torch.cat(latents))
        for codebook in self.model.quantizer.codebooks:
            codebook.forget(self.recipe.batch_size * self.crop // self.config.hop_length)
        self.model.train()

    def save(self, budget: Budget) -> None:
        """Write the resumable state."""
        checkpoint.save(
            self.folder / "state.pt",
            {
                "model": self.model.state_dict(),
                "judges": self.judges.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "judge_optimizer": self.judge_optimizer.state_dict(),
                "elapsed_s": budget.elapsed_s,
                "step": budget.step,
                "best": self.best,
            },
        )

    def export(self, budget: Budget, scores: dict[str, float]) -> None:
        """Write the servable checkpoint, in half precision."""
        weights.write(
            self.folder / "export" / self.recipe.name,
            {name: value.half() for name, value in without_learning_state(self.model.state_dict()).items()},
            name=self.recipe.name,
            architecture=self.recipe.architecture,
            config=dataclasses.asdict(self.config),
            licence=self.recipe.licence,
            score="",
            training={"minutes": round(budget.elapsed_s / 60, 1), "steps": budget.step, **scores},
        )


def load_framecodec(folder: Path) -> FrameCodec:
    """The exported FrameCodec in `folder`, in single precision."""
    config = json.loads((folder / "config.json").read_text())["config"]
    codec = FrameCodec(FrameCodecConfig(**config))
    codec.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
    return codec.eval()


def run(recipe: Recipe, folder: Path, corpora: Sequence[Path], init: Path | None, finer: Path | None = None) -> None:
    """Train until the budget is used."""
    trainer = Trainer(recipe, folder, corpora, init, finer)
    budget = Budget(recipe.minutes, max_steps=recipe.max_steps)
    state = checkpoint.load(folder / "state.pt")
    if state is not None:
        trainer.model.load_state_dict(state["model"])
        trainer.judges.load_state_dict(state["judges"])
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.judge_optimizer.load_state_dict(state["judge_optimizer"])
        trainer.best = state["best"]
        trainer.initialised = trainer.initialised or state["step"] + 1 >= recipe.bypass_steps
        budget = Budget(
            recipe.minutes, max_steps=recipe.max_steps, elapsed_s=state["elapsed_s"], step=state["step"] + 1
        )
    elif recipe.renew_codebooks:
        trainer.refit_codebooks()
        scores = trainer.validate()
        trainer.log.write({"renewed": 1, "step": 0, **scores})
        trainer.export(budget, scores)
    averages, validated = Averages(), time.monotonic()
    for step in _steps(budget):
        averages.add(trainer.step(step, budget.progress))
        last = budget.progress >= 1.0 or bool(recipe.max_steps and step + 1 >= recipe.max_steps)
        if step % recipe.log_every == 0 or last:
            trainer.log.write({"step": step, "minutes": budget.elapsed_s / 60, **averages.take()})
        if last or time.monotonic() - validated > recipe.validate_every_s:
            scores = trainer.validate()
            trainer.log.write({"step": step, "minutes": budget.elapsed_s / 60, **scores})
            # Before the discriminators the distance is what is trained; with them, later is better to the ear.
            trainer.last_valid_mel = scores["valid_mel"]
            if trainer.initialised and (scores["valid_mel"] < trainer.best * 1.1 or last):
                trainer.best = min(trainer.best, scores["valid_mel"])
                trainer.export(budget, scores)
            trainer.save(budget)
            validated = time.monotonic()
    if not recipe.refit_last:
        return
    trainer.refit_codebooks()
    scores = trainer.validate()
    trainer.log.write({"refit": 1, "step": budget.step, **scores})
    if scores["valid_mel"] < trainer.last_valid_mel:
        trainer.export(budget, scores)


def _steps(budget: Budget) -> Iterator[int]:
    yield from budget.steps()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="recipe, a TOML file beside this one")
    parser.add_argument("--corpus", type=Path, nargs="+", required=True, help="folders made by the corpus renderer")
    parser.add_argument("--run", type=Path, required=True, help="folder for the log, the state and the export")
    parser.add_argument("--init", type=Path, help="exported model.safetensors to start from")
    parser.add_argument("--finer", type=Path, help="exported FrameCodec of a finer stride to start from, a folder")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run(read_recipe(arguments.config), arguments.run, arguments.corpus, arguments.init, arguments.finer)


if __name__ == "__main__":
    main()
