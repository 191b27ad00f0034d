"""MusicGen's language model against `transformers`, with random weights in both published layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stretto_acoustic import convert_audiocraft
from stretto_acoustic.loading import load
from stretto_acoustic.models.musicgen import PRESETS, MusicGenLM
from stretto_acoustic.models.musicgen.layouts import weights_from_hugging_face
from stretto_shared.engine.delay import apply_delay, delays_for
from stretto_shared.errors import InvalidInput
from torch import Tensor, nn
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    MusicgenMelodyConfig,
    MusicgenMelodyDecoderConfig,
    MusicgenMelodyForConditionalGeneration,
    T5Config,
)
from transformers.modeling_outputs import BaseModelOutput

V, DIM, TEXT_DIM, L, T, CHROMA = 64, 128, 24, 5, 9, 7


def randomise(module: nn.Module, scale: float = 0.3) -> None:
    """Fill every parameter from one pool of random numbers: much faster than drawing each."""
    pool = torch.randn(2**20 + 7, generator=torch.Generator().manual_seed(0)) * scale
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            repeats = -(-parameter.numel() // (pool.numel() - 1000))
            values = pool.roll(index * 997).repeat(repeats)[: parameter.numel()]
            parameter.copy_(values.view(parameter.shape))


def hugging_face_model(num_codebooks: int = 4, audio_channels: int = 1, is_melody: bool = False) -> Any:
    decoder: dict[str, Any] = {
        "vocab_size": V,
        "hidden_size": DIM,
        "num_hidden_layers": 2,
        "ffn_dim": 48,
        "num_attention_heads": 2,
        "num_codebooks": num_codebooks,
        "audio_channels": audio_channels,
        "pad_token_id": V,
        "bos_token_id": V,
        "dropout": 0.0,
    }
    text = T5Config(d_model=TEXT_DIM, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=32)
    audio = EncodecConfig(
        sampling_rate=32_000,
        num_filters=2,
        hidden_size=4,
        codebook_dim=4,
        codebook_size=V,
        upsampling_ratios=[8, 5, 4, 4],
    )
    if is_melody:
        config = MusicgenMelodyConfig(
            text_encoder=text.to_dict(),
            audio_encoder=audio.to_dict(),
            decoder=MusicgenMelodyDecoderConfig(**decoder).to_dict(),
            num_chroma=12,
            chroma_length=CHROMA,
        )
        model = MusicgenMelodyForConditionalGeneration(config)
    else:
        config = MusicgenConfig(
            text_encoder=text.to_dict(),
            audio_encoder=audio.to_dict(),
            decoder=MusicgenDecoderConfig(**decoder).to_dict(),
        )
        model = MusicgenForConditionalGeneration(config)
    randomise(model)
    return model.eval()


def inputs(num_codebooks: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Columns, text states, and masks of a whole, a padded and a null row."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(0, V + 1, (3, num_codebooks, T), generator=generator)
    text = torch.randn(3, L, TEXT_DIM, generator=generator)
    return codes, text, (torch.arange(L) < torch.tensor([L, 2, 0])[:, None]).long()


def reference_logits(model: Any, codes: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    output = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=text),
        attention_mask=mask,
        decoder_input_ids=codes.flatten(0, 1),
    )
    logits: Tensor = output.logits
    return logits.view(*codes.shape, V)


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.abs().max() > 1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("num_codebooks", "audio_channels"), [(4, 1), (8, 2)])
@torch.inference_mode()
def test_a_saved_checkpoint_gives_the_reference_logits(tmp_path: Path, num_codebooks: int, audio_channels: int) -> None:
    reference = hugging_face_model(num_codebooks, audio_channels)
    reference.save_pretrained(tmp_path)
    loaded = load("official", f"file://{tmp_path}", weights_dir=tmp_path)
    codes, text, mask = inputs(num_codebooks)
    theirs = reference_logits(reference, codes, text, mask)
    assert_same(loaded.module(codes, text, mask), theirs)
    state = loaded.module.init_state(3, T, text, mask)
    stepped = [loaded.module.step(codes[:, :, t], state) for t in range(T)]
    assert_same(torch.stack([each for each in stepped if each is not None], dim=2), theirs)
    assert loaded.config.delays == delays_for(num_codebooks, audio_channels)
    assert loaded.info.num_channels == audio_channels
    assert (loaded.config.frame_rate_hz, loaded.config.codec_id) == (50.0, "encodec_32khz")


@torch.inference_mode()
def test_a_saved_melody_checkpoint_gives_the_reference_logits(tmp_path: Path) -> None:
    reference = hugging_face_model(is_melody=True)
    reference.save_pretrained(tmp_path)
    model = load("melody", f"file://{tmp_path}", weights_dir=tmp_path).module
    codes, _, mask = inputs()
    words = torch.randint(0, 32, (3, L), generator=torch.Generator().manual_seed(5))
    text = reference.text_encoder(input_ids=words, attention_mask=mask).last_hidden_state
    classes = torch.tensor([[0, 4, 7]]).repeat(3, 1)

    def theirs(**melody: Tensor) -> Tensor:
        columns = codes.flatten(0, 1)
        output = reference(input_ids=words, attention_mask=mask, decoder_input_ids=columns, **melody)
        return output.logits.view(3, 4, -1, V)[:, :, -T:]

    one_hot = nn.functional.one_hot(classes, 12).float()
    assert_same(model(codes, text, mask, classes), theirs(input_features=one_hot))
    assert_same(model(codes, text, mask), theirs())
    assert_same(model(codes, text, mask, torch.full_like(classes, -1)), theirs())


@torch.inference_mode()
def test_a_converted_audiocraft_checkpoint_gives_the_reference_logits(tmp_path: Path) -> None:
    reference = hugging_face_model()
    torch.save({"best_state": audiocraft_state(reference), "xp.cfg": "solver: musicgen"}, tmp_path / "state_dict.bin")
    convert_audiocraft.main([str(tmp_path / "state_dict.bin"), str(tmp_path / "out"), "--name", "small"])
    model = load("small", f"file://{tmp_path / 'out'}", weights_dir=tmp_path).module
    codes, text, mask = inputs()
    assert_same(model(codes, text, mask), reference_logits(reference, codes, text, mask))
    with pytest.raises(InvalidInput, match="pickle"):
        load("small", f"file://{tmp_path}/state_dict.bin", weights_dir=tmp_path)


def audiocraft_state(reference: Any) -> dict[str, Tensor]:
    """Write the reference's weights in audiocraft's layout, as its conversion script in `transformers` reads them."""
    source = reference.state_dict()
    decoder = "decoder.model.decoder"
    state = {
        "out_norm.weight": source[f"{decoder}.layer_norm.weight"],
        "out_norm.bias": source[f"{decoder}.layer_norm.bias"],
        "condition_provider.conditioners.description.output_proj.weight": source["enc_to_dec_proj.weight"],
        "condition_provider.conditioners.description.output_proj.bias": source["enc_to_dec_proj.bias"],
    }
    for k in range(4):
        state[f"emb.{k}.weight"] = source[f"{decoder}.embed_tokens.{k}.weight"]
        state[f"linears.{k}.weight"] = source[f"decoder.lm_heads.{k}.weight"]
    attentions = {"self_attn": "self_attn", "encoder_attn": "cross_attention"}
    norms = {"self_attn_layer_norm": "norm1", "encoder_attn_layer_norm": "norm_cross", "final_layer_norm": "norm2"}
    for index in range(2):
        theirs, ours = f"{decoder}.layers.{index}", f"transformer.layers.{index}"
        for name, target in attentions.items():
            parts = [source[f"{theirs}.{name}.{part}_proj.weight"] for part in "qkv"]
            state[f"{ours}.{target}.in_proj_weight"] = torch.cat(parts)
            state[f"{ours}.{target}.out_proj.weight"] = source[f"{theirs}.{name}.out_proj.weight"]
        for name, target in norms.items():
            for kind in ("weight", "bias"):
                state[f"{ours}.{target}.{kind}"] = source[f"{theirs}.{name}.{kind}"]
        state[f"{ours}.linear1.weight"] = source[f"{theirs}.fc1.weight"]
        state[f"{ours}.linear2.weight"] = source[f"{theirs}.fc2.weight"]
    return state


@torch.inference_mode()
def test_the_true_small_geometry_gives_the_reference_logits() -> None:
    with torch.device("meta"):
        reference = MusicgenForCausalLM(MusicgenDecoderConfig(dropout=0.0))
        ours = MusicGenLM(PRESETS["small"]).eval()
    reference = reference.to_empty(device="cpu").eval()
    positions = reference.model.decoder.embed_positions
    positions.make_weights(positions.num_positions, positions.embedding_dim)
    randomise(reference, scale=0.05)
    for module in reference.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
    tensors = {f"decoder.{key}": value for key, value in reference.state_dict().items()}
    converted = weights_from_hugging_face(tensors, PRESETS["small"])
    decoder_only = {key: value for key, value in converted.items() if not key.startswith("conditioner.")}
    ours.load_state_dict(decoder_only, strict=False, assign=True)
    ours.conditioner.text_proj = nn.Linear(1024, 1024)
    nn.init.eye_(ours.conditioner.text_proj.weight)
    nn.init.zeros_(ours.conditioner.text_proj.bias)
    ours.reset_buffers()
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 2049, (1, 4, 3), generator=generator)
    text = torch.randn(1, 4, 1024, generator=generator)
    theirs = reference(input_ids=codes.flatten(0, 1), encoder_hidden_states=text).logits.view(1, 4, 3, 2048)
    assert_same(ours(codes, text), theirs)


@pytest.mark.parametrize(("num_codebooks", "audio_channels"), [(4, 1), (8, 2)])
def test_the_delay_pattern_is_the_reference_s(num_codebooks: int, audio_channels: int) -> None:
    config = MusicgenDecoderConfig(
        vocab_size=V, hidden_size=8, num_hidden_layers=1, ffn_dim=8, num_attention_heads=1,
        num_codebooks=num_codebooks, audio_channels=audio_channels, pad_token_id=V, bos_token_id=V,
    )  # fmt: skip
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, V, (1, num_codebooks, 12)))
    ours = apply_delay(codes, delays_for(num_codebooks, audio_channels), V)
    with_start = torch.cat([torch.full((num_codebooks, 1), V), codes[0]], dim=1)
    _, theirs = MusicgenForCausalLM(config).build_delay_pattern_mask(
        with_start, pad_token_id=V, max_length=ours.shape[-1]
    )
    assert torch.equal(ours[0], theirs)
