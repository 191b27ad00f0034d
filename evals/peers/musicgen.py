"""`transformers`' MusicGen at MusicGen-small's geometry, with random weights: the peer of `speed/musicgen_small.py`.

`build` draws one set of weights and writes its three parts, each in the Hugging Face layout and as safetensors, so that
Stretto's services and the peer read the same files: `acoustic` (language model and the projection of the text), `text`
(T5-base) and `codec` (EnCodec 32 kHz). T5's own vocabulary would be a download: `tokenizer.json` is one of the same
size, whose words are those of `WORDS`, and both sides read it.

As a program it makes music with the peer and prints seconds of work and of music, and the median time between two
steps of its decoder, a JSON line for each batch:

    python evals/peers/musicgen.py FOLDER --prompt "a calm piano piece" --dtype bf16 --batches 1 8 --duration-s 2
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    EncodecConfig,
    EncodecModel,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

WORDS = (
    "a an the and with of for in slow fast calm bright dark soft loud warm piano guitar strings bass drums flute "
    "violin organ synth choir jazz folk rock ambient piece song waltz march theme melody rhythm gentle minor major"
)
GUIDANCE_SCALE, TOP_K = 3.0, 250
FRAME_RATE_HZ, SAMPLE_RATE_HZ, MAX_DELAY = 50, 32_000, 3
CARDINALITY = 2048
WARM_UP_S = 0.2
SEED = 0
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ACOUSTIC, TEXT, CODEC = "acoustic", "text", "codec"
_LANGUAGE_MODEL = ("decoder.", "enc_to_dec_proj.")


@dataclass(frozen=True)
class Checkpoint:
    """The folder with the three parts."""

    folder: Path

    def part(self, name: str) -> Path:
        """The folder of one part."""
        return self.folder / name

    def source(self, name: str) -> str:
        """One part as a service's settings name it."""
        return self.part(name).resolve().as_uri()


def geometry(num_layers: int = 24, num_text_layers: int = 12) -> MusicgenConfig:
    """MusicGen-small's, in the configuration classes of `transformers`."""
    text = T5Config(
        vocab_size=32_128,
        d_model=768,
        d_kv=64,
        d_ff=3072,
        num_layers=num_text_layers,
        num_heads=12,
        dropout_rate=0.0,
    )
    codec = EncodecConfig(
        sampling_rate=SAMPLE_RATE_HZ,
        target_bandwidths=[2.2],
        num_filters=64,
        hidden_size=128,
        codebook_dim=128,
        codebook_size=CARDINALITY,
        upsampling_ratios=[8, 5, 4, 4],
        use_causal_conv=False,
        use_conv_shortcut=False,
    )
    decoder = MusicgenDecoderConfig(
        vocab_size=CARDINALITY,
        hidden_size=1024,
        num_hidden_layers=num_layers,
        num_attention_heads=16,
        ffn_dim=4096,
        num_codebooks=4,
        dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=CARDINALITY,
        bos_token_id=CARDINALITY,
    )
    return MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict())


def tokenizer_of(vocabulary_size: int) -> Tokenizer:
    """A tokenizer of whole words with as many entries, and T5's end marker at T5's place."""
    entries = ["<pad>", "</s>", "<unk>", *WORDS.split()]
    entries += [f"<extra_{at}>" for at in range(vocabulary_size - len(entries))]
    made = Tokenizer(models.WordLevel({entry: at for at, entry in enumerate(entries)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return made


def build(folder: Path, config: MusicgenConfig) -> Checkpoint:
    """Draw the weights of `config` from `SEED` and write the three parts."""
    made = Checkpoint(folder)
    torch.manual_seed(SEED)
    model = MusicgenForConditionalGeneration(config)
    draw_codebooks(model.audio_encoder)
    model.text_encoder.save_pretrained(made.part(TEXT))
    model.audio_encoder.save_pretrained(made.part(CODEC))
    tokenizer_of(config.text_encoder.vocab_size).save(str(made.part(TEXT) / "tokenizer.json"))
    config.save_pretrained(made.part(ACOUSTIC))
    tensors = {key: tensor for key, tensor in model.state_dict().items() if key.startswith(_LANGUAGE_MODEL)}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, made.part(ACOUSTIC) / "model.safetensors")
    return made


def draw_codebooks(codec: EncodecModel) -> None:
    """Fill the codebooks, which are buffers and start as zeros, so that codes are heard."""
    for layer in codec.quantizer.layers:
        layer.codebook.embed.normal_()


def load(made: Checkpoint, dtype: torch.dtype, device: str = "cpu") -> Any:
    """The whole model from the three parts, in eval mode."""
    config = MusicgenConfig.from_pretrained(made.part(ACOUSTIC))
    with torch.device(device):  # where drawing weights that are replaced at once takes no time
        decoder = MusicgenForCausalLM._from_config(config.decoder)
    model = MusicgenForConditionalGeneration(
        config,
        text_encoder=T5EncoderModel.from_pretrained(made.part(TEXT)),
        audio_encoder=EncodecModel.from_pretrained(made.part(CODEC)),
        decoder=decoder,
    )
    unexpected = model.load_state_dict(load_file(made.part(ACOUSTIC) / "model.safetensors"), strict=False)
    missing = [key for key in unexpected.missing_keys if key.startswith(_LANGUAGE_MODEL)]
    if missing or unexpected.unexpected_keys:
        raise ValueError(f"{made.folder} does not fit the peer: {missing} {unexpected.unexpected_keys}. Build it anew.")
    return model.to(device, dtype).eval()


@torch.inference_mode()
def generate(model: Any, ids: Tensor, duration_s: float) -> Tensor:
    """Audio [B, 1, S] for the token ids [B, L] of prompts of one length: guided, sampled, decoded."""
    audio: Tensor = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=TOP_K,
        guidance_scale=GUIDANCE_SCALE,
        max_length=round(duration_s * FRAME_RATE_HZ) + MAX_DELAY + 1,
    )
    return audio


@contextmanager
def stamped(model: Any) -> Iterator[list[float]]:
    """When each step of the decoder began; `generate` reads what a step gave before it begins the next."""
    stamps: list[float] = []
    hook = model.decoder.register_forward_pre_hook(lambda *_: stamps.append(time.perf_counter()))
    try:
        yield stamps
    finally:
        hook.remove()


def main() -> None:
    """Command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, help="what `build` wrote")
    options.add_argument("--prompt", required=True, help="of every piece")
    options.add_argument("--dtype", choices=sorted(DTYPES), default="fp32", help="of all three parts")
    options.add_argument("--batches", type=int, nargs="+", default=[1], help="pieces at once, one after the other")
    options.add_argument("--duration-s", type=float, default=2.0, help="seconds of music of each piece")
    options.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves the choice to torch")
    options.add_argument("--device", default="cpu", help="cpu or cuda, of all three parts")
    options.add_argument("--wait", action="store_true", help="print a line when loaded; begin when one comes on stdin")
    args = options.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    made = Checkpoint(args.folder)
    ids = Tokenizer.from_file(str(made.part(TEXT) / "tokenizer.json")).encode(args.prompt).ids
    model = load(made, DTYPES[args.dtype], args.device)
    if args.wait:
        print("loaded", flush=True)
        if not sys.stdin.readline():
            return  # whoever would have asked is gone
    torch.manual_seed(SEED)
    warm = set()
    for size in args.batches:
        if size not in warm:
            warm.add(size)
            generate(model, torch.tensor([ids] * size, device=args.device), WARM_UP_S)
        with stamped(model) as stamps:
            start = time.perf_counter()
            audio = generate(model, torch.tensor([ids] * size, device=args.device), args.duration_s).cpu()
            work_s = time.perf_counter() - start
        record = {"dtype": args.dtype, "pieces": size, "work_s": work_s}
        record["music_s"] = audio.shape[0] * audio.shape[-1] / SAMPLE_RATE_HZ
        record["step_ms"] = statistics.median(after - at for at, after in pairwise(stamps)) * 1e3
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
