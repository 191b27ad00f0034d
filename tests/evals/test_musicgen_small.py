import dataclasses
import json
from pathlib import Path

import pytest
import torch
from peers import musicgen
from serving import status_bytes
from speed.musicgen_small import Measured, claims, peer_rtfs
from stretto_acoustic import loading as acoustic
from stretto_codec import loading as codec
from stretto_embedding import loading as embedding

MET = Measured(
    rtf=0.75,
    first_audio_s=0.4,
    eight_rtf=0.25,
    peer_rtf={("fp32", 1): 12.8, ("bf16", 1): 3.5, ("fp32", 8): 2.5, ("bf16", 8): 0.9},
    step_ms=(9.0, 30.0, 6.0),
    step_bound_ms=(6.8, 24.0, 3.0),  # the memory was busy, and then at its best
    peak_bytes=1.2,
    serving_bytes=1.1,
    bound_bytes=1.0,
)


def test_numbers_on_the_right_side_meet_every_claim() -> None:
    assert all(claims(MET).values())


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"rtf": 0.81}, {"real_time_factor_at_most_0.8", "one_stream_16_times_transformers_fp32"}),
        ({"first_audio_s": 0.51}, {"first_audio_within_0.5_s"}),
        ({"eight_rtf": 0.31}, {"8_streams_2.5_times_one_stream"}),
        ({"step_ms": (9.6, 34.0, 6.0)}, {"step_within_1.4_of_the_bandwidth"}),
        ({"peak_bytes": 1.31}, {"peak_memory_within_1.3_of_what_must_be_held"}),
        ({"serving_bytes": 1.31}, {"memory_while_serving_within_1.3"}),
    ],
)
def test_each_number_decides_its_own_claims(change: dict[str, float], failing: set[str]) -> None:
    found = dataclasses.replace(MET, **change)
    assert failing <= {name for name, holds in claims(found).items() if not holds}


@pytest.mark.parametrize(
    ("key", "rtf", "failing"),
    [
        (("fp32", 1), 11.9, "one_stream_16_times_transformers_fp32"),
        (("bf16", 1), 2.9, "one_stream_4_times_transformers_bf16"),
        (("fp32", 8), 1.9, "8_streams_8_times_transformers_fp32_batch"),
        (("bf16", 8), 0.7, "8_streams_3_times_transformers_bf16_batch"),
    ],
)
def test_each_peer_decides_one_claim(key: tuple[str, int], rtf: float, failing: str) -> None:
    found = claims(dataclasses.replace(MET, peer_rtf={**MET.peer_rtf, key: rtf}))
    assert [name for name, holds in found.items() if not holds] == [failing]


def test_the_least_round_of_a_peer_counts_for_all_its_music() -> None:
    lines = [
        json.dumps({"dtype": "bf16", "pieces": 8, "work_s": work_s, "music_s": 16.0}) for work_s in (20.0, 16.0, 24.0)
    ]
    assert peer_rtfs(lines) == {("bf16", 8): 1.0}


def test_memory_is_read_from_the_line_that_is_named() -> None:
    status = "Name:\tstretto\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n"
    assert status_bytes(status, "VmHWM") == 2 << 20 and status_bytes(status, "VmRSS") == 1 << 20
    with pytest.raises(ValueError, match="VmSwap"):
        status_bytes(status, "VmSwap")


def test_services_and_peer_read_the_same_weights_and_token_ids(tmp_path: Path) -> None:
    config = musicgen.geometry(num_layers=1, num_text_layers=1)
    config.decoder.update({"hidden_size": 64, "ffn_dim": 96, "num_attention_heads": 2})
    config.text_encoder.update({"d_model": 48, "d_kv": 8, "d_ff": 32, "num_heads": 2, "vocab_size": 64})
    config.audio_encoder.update({"num_filters": 4, "hidden_size": 8, "codebook_dim": 8})
    made = musicgen.build(tmp_path, config)
    peer = musicgen.load(made, torch.float32)
    lm = acoustic.load("musicgen-small", made.source(musicgen.ACOUSTIC), weights_dir=tmp_path)
    text = embedding.load("t5-base", made.source(musicgen.TEXT))
    decoder = codec.load("encodec_32khz", made.source(musicgen.CODEC), weights_dir=tmp_path)
    assert torch.equal(lm.module.embeddings.weight[:2049], peer.decoder.model.decoder.embed_tokens[0].weight)
    assert torch.equal(lm.module.conditioner.text_proj.weight, peer.enc_to_dec_proj.weight)
    prompt = "a calm piano piece with soft strings"
    ids = text.tokenize_all([prompt])[0]
    assert len(ids) == len(prompt.split()) + 1 and len(set(ids)) == len(ids) and ids[-1] == 1
    with torch.inference_mode():
        expected = peer.text_encoder(torch.tensor([ids])).last_hidden_state[0]
    torch.testing.assert_close(torch.tensor(text.encode([prompt])[0].states), expected, atol=1e-4, rtol=1e-4)
    audio = musicgen.generate(peer, torch.tensor([ids, ids]), 0.2)
    assert audio.shape == (2, 1, 6400) and audio.std() > 0
    codebook = decoder.module.state_dict()["quantizer.codebooks"][3]
    assert torch.equal(codebook, peer.audio_encoder.quantizer.layers[3].codebook.embed)
    assert decoder.info.num_codebooks == 4 and decoder.info.sample_rate_hz == 32_000
