"""Fit the centroids that turn a published model without tokens into a tokenizer, on a folder of recordings.

    python services/semantic/recipes/fit_kmeans.py --source file:///models/w2v-bert-2.0 --layer 17 \
        --audio recordings --out /models/w2v-bert-2.0/kmeans.safetensors

The model hears the recordings on the windows of the service. Of each window some frames are drawn; each feature is
normalised to mean 0 and variance 1 over all of them, and k-means starts at random points. Which layer is best depends
on what the tokens are for: middle layers say more of what is played, the first and last ones more of how it sounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import kmeans
import soundfile
import torch
from safetensors.torch import save_file
from stretto_semantic.loading import load_listener
from stretto_semantic.models.tokenizer import Listener
from stretto_shared.audio import Waveform
from stretto_shared.dsp.audio_windows import AudioWindows, Window
from torch import Tensor

BLOCK_S = 10.0
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def windows_of(path: Path, listener: Listener) -> Iterator[Window]:
    """The windows of a recording, as the service cuts them."""
    windows = AudioWindows(listener.grid, listener.sample_rate_hz)
    with soundfile.SoundFile(path) as file:
        while len(block := file.read(round(BLOCK_S * file.samplerate), dtype="float32", always_2d=True)):
            windows.add(Waveform(block.T, file.samplerate))
            yield from iter(windows.take, None)
    windows.end()
    yield from iter(windows.take, None)


@torch.inference_mode()
def draw_features(listener: Listener, paths: Sequence[Path], frames_per_window: int, seed: int) -> Tensor:
    """Features [N, D] of frames drawn from every window of every recording."""
    generator, drawn = torch.Generator().manual_seed(seed), []
    for path in paths:
        for window in windows_of(path, listener):
            heard = listener.features(torch.from_numpy(window.samples)[None], [window.silence])[0]
            wanted = heard[window.num_before : window.num_before + window.num_frames]
            drawn.append(wanted[torch.randperm(len(wanted), generator=generator)[:frames_per_window]].clone())
        print(f"{path.name}: {sum(map(len, drawn))} frames so far", flush=True)
    return torch.cat(drawn)


def fit(features: Tensor, num_centroids: int, num_rounds: int, seed: int) -> dict[str, Tensor]:
    """The tensors `centroids`, `mean` and `scale` of features [N, D].

    Raises:
        ValueError: If there are fewer features than centroids.
    """
    mean, scale = features.mean(0), 1 / features.std(0).clamp(min=1e-6)
    centroids = kmeans.fit((features - mean) * scale, num_centroids, num_rounds, seed)
    return {"centroids": centroids, "mean": mean, "scale": scale}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, fit and write."""
    parser = argparse.ArgumentParser(description="Fit the centroids of a tokenizer.")
    parser.add_argument("--source", required=True, help="hf://org/name@revision or file:///folder")
    parser.add_argument("--layer", type=int, required=True, help="number of layers whose output is heard")
    parser.add_argument("--audio", type=Path, required=True, help="folder of recordings; subfolders too")
    parser.add_argument("--out", type=Path, required=True, help="the kmeans.safetensors to write")
    parser.add_argument("--num-centroids", type=int, default=1024)
    parser.add_argument("--frames-per-window", type=int, default=64)
    parser.add_argument("--num-rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    paths = sorted(path for path in options.audio.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"--audio: expected recordings ({', '.join(SUFFIXES)}) below {options.audio}, found none")
    listener = load_listener("model", options.source, weights_dir=Path(), num_layers=options.layer)
    features = draw_features(listener, paths, options.frames_per_window, options.seed)
    tensors = fit(features, options.num_centroids, options.num_rounds, options.seed)
    save_file(tensors | {"layer": torch.tensor(options.layer)}, options.out)
    print(f"wrote {options.out}: {options.num_centroids} centroids of {len(features)} frames")


if __name__ == "__main__":
    main()
