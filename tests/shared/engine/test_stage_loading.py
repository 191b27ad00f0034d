"""What makes a folder a stage that can be served, what it says of itself, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from stretto_shared import weights
from stretto_shared.engine.stage_engine import noise_stage
from stretto_shared.engine.stage_loading import architecture_of, load_stage, make_loaded_stage
from stretto_shared.errors import InvalidInput, NotReady
from stretto_shared.nn.stage_lm import StageConfig, StageLM

CODEC = "framecodec@0123456789ab"
COARSE = StageConfig(
    num_codebooks=2,
    cardinality=16,
    frame_rate_hz=12.5,
    window_s=0.64,
    stride_s=0.32,
    num_style_codes=3,
    style_cardinality=8,
    num_source_codebooks=1,
    source_cardinality=9,
    source_frame_rate_hz=25.0,
    dim=32,
    num_layers=2,
    num_heads=2,
    feed_forward_dim=64,
    num_buckets=8,
    table_dim=16,
    tokens=CODEC,
    source_tokens="w2vbert@aaaaaaaaaaaa",
    style_encoder="mulan@bbbbbbbbbbbb",
)
SEMANTIC = dataclasses.replace(COARSE, num_codebooks=1, num_source_codebooks=0, tokens="w2vbert@aaaaaaaaaaaa")
FINE = dataclasses.replace(COARSE, num_source_codebooks=2, source_frame_rate_hz=12.5, source_tokens=CODEC)


def stage_lm(config: StageConfig) -> StageLM:
    torch.manual_seed(0)
    return StageLM(config)


def write(folder: Path, name: str = "coarse", config: StageConfig = COARSE, **changes: Any) -> None:
    weights.write(
        folder / name,
        {key: tensor.half() for key, tensor in stage_lm(config).state_dict().items()},
        name=name,
        architecture="StageLM",
        config=dataclasses.asdict(config) | changes,
        licence="CC0-1.0",
        score="good",
        training={},
    )


def test_a_stage_says_what_it_gives(tmp_path: Path) -> None:
    for name, config in {"semantic": SEMANTIC, "coarse": COARSE, "fine": FINE}.items():
        write(tmp_path, name, config)
        hears_source = name != "semantic"
        loaded = load_stage(name, "default", weights_dir=tmp_path, service="any", hears_source=hears_source)
        info = loaded.info
        assert loaded.config == config and noise_stage(config) == name
        assert info.num_codebooks == {"semantic": 1, "coarse": 2, "fine": 4}[name]
        assert (info.name, info.service, info.licence, info.score) == (name, "any", "CC0-1.0", "good")
        assert (info.frame_rate_hz, info.sample_rate_hz, info.num_channels) == (12.5, 24000, 1)
        assert info.parameter_count == sum(tensor.numel() for tensor in stage_lm(config).state_dict().values())
        assert info.digest_sha256 == weights.sha256_of(tmp_path / name / weights.WEIGHTS_FILE)


def test_pieces_do_not_share_passes_where_that_is_switched_off() -> None:
    loaded = make_loaded_stage("coarse", stage_lm(COARSE), service="acoustic", digest_sha256="a" * 64)
    assert not loaded.make_stepper(8, False).is_row_invariant


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dim": 64}, "size mismatch"),
        ({"stride_s": 0.0}, "stride_s"),
        ({"stride_s": 9.0}, "stride_s"),
        ({"style_encoder": "", "source_tokens": ""}, "source_tokens, style_encoder"),
        ({"source_tokens": CODEC}, "source_frame_rate_hz"),
        ({"what": 1}, "what"),
    ],
)
def test_a_config_that_cannot_be_served_is_refused(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    write(tmp_path, **changes)
    with pytest.raises(NotReady, match=word) as caught:
        load_stage("coarse", "default", weights_dir=tmp_path, service="acoustic", hears_source=True)
    assert caught.value.reason == "WEIGHTS_DAMAGED"


def test_a_stage_is_for_the_service_that_has_its_source(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "semantic", SEMANTIC)
    with pytest.raises(InvalidInput, match="without a stage before it"):
        load_stage("coarse", "default", weights_dir=tmp_path, service="semantic", hears_source=False)
    with pytest.raises(InvalidInput, match="refines"):
        load_stage("semantic", "default", weights_dir=tmp_path, service="acoustic", hears_source=True)


def test_the_architecture_is_read_where_it_can_be(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("[")
    assert architecture_of("coarse", "default", tmp_path) == "StageLM"
    assert architecture_of("any", (tmp_path / "coarse").as_uri(), Path("elsewhere")) == "StageLM"
    assert architecture_of("broken", "default", tmp_path) == architecture_of("absent", "default", tmp_path) == ""
    assert architecture_of("coarse", "hf://org/coarse", tmp_path) == ""
