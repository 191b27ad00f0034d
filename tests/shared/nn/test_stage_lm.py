"""The stage language model against T5, against its own parallel pass, and for what its conditions do."""

import dataclasses

import numpy as np
import pytest
import torch
from stretto_shared.nn.stage_lm import UNTOLD, Biases, Feed, StageConfig, StageLM, open_window, read, relative_bucket
from torch import Tensor
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5Attention, T5Stack

CONFIG = StageConfig(
    num_codebooks=3,
    cardinality=11,
    frame_rate_hz=12.5,
    window_s=1.6,
    stride_s=0.8,
    num_style_codes=4,
    style_cardinality=7,
    num_melody_codebooks=2,
    melody_cardinality=5,
    melody_frame_rate_hz=6.25,
    num_source_codebooks=2,
    source_cardinality=9,
    source_frame_rate_hz=25.0,
    dim=16,
    num_layers=2,
    num_heads=2,
    feed_forward_dim=32,
    num_buckets=8,
    max_distance=40,
    table_dim=6,
)
PLAIN = dataclasses.replace(CONFIG, num_style_codes=0, num_melody_codebooks=0, num_source_codebooks=0)


def make(config: StageConfig = CONFIG, seed: int = 0) -> StageLM:
    """A model whose every parameter matters."""
    torch.manual_seed(seed)
    model = StageLM(config).eval()
    with torch.no_grad():
        model.bias.normal_()
        model.token_bias.normal_()
    return model


def told(batch: int, num_frames: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def codes(limit: int, *shape: int) -> Tensor:
        return torch.randint(limit, shape, generator=generator)

    return {
        "style": codes(7, batch, 4),
        "melody": codes(5, batch, 2, CONFIG.melody_frames(num_frames)),
        "source": codes(9, batch, 2, CONFIG.source_frames(num_frames)),
    }


def stream_of(batch: int, num_steps: int, seed: int = 1) -> Tensor:
    return torch.randint(11, (batch, num_steps), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (32, 512), (8, 40)])
def test_buckets_are_those_of_t5(is_causal: bool, num_buckets: int, max_distance: int) -> None:
    distance = torch.arange(-600, 601)
    expected = T5Attention._relative_position_bucket(distance, not is_causal, num_buckets, max_distance)
    ours = relative_bucket(distance, num_buckets=num_buckets, max_distance=max_distance, is_causal=is_causal)
    assert torch.equal(ours, expected)


def test_the_stack_is_a_t5_decoder() -> None:
    """T5's norm takes no mean away, so both are given weights that put none into the stream; T5 scales no scores."""
    model = make(PLAIN)
    config = T5Config(
        vocab_size=2, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.0,
        relative_attention_num_buckets=8, relative_attention_max_distance=40, is_decoder=True, use_cache=False,
        feed_forward_proj="gelu_new", layer_norm_epsilon=1e-5,
    )  # fmt: skip
    stack = T5Stack(config).eval()
    x = torch.randn(2, 13, 16)
    x -= x.mean(-1, keepdim=True)
    with torch.no_grad():
        _fill_t5(stack, model)
        expected = stack(inputs_embeds=x).last_hidden_state
        bias = model.relative_bias(model.prefix(2, 13, None, None, None)[1])[None]
        for block in model.blocks():
            query, key, value = block.qkv(x)
            x = block.finish(x, torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias))
        ours = model.norm(x)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def _fill_t5(stack: torch.nn.Module, model: StageLM) -> None:
    for mine, theirs in zip(model.blocks(), stack.block, strict=True):
        for linear in (mine.self_out, mine.ffn_out):
            linear.weight -= linear.weight.mean(0, keepdim=True)
        attention, feed_forward = theirs.layer[0], theirs.layer[-1]
        query, key, value = mine.self_qkv.weight.chunk(3)
        attention.SelfAttention.q.weight.copy_(query * 8**-0.5)
        attention.SelfAttention.k.weight.copy_(key)
        attention.SelfAttention.v.weight.copy_(value)
        attention.SelfAttention.o.weight.copy_(mine.self_out.weight)
        feed_forward.DenseReluDense.wi.weight.copy_(mine.ffn_in.weight)
        feed_forward.DenseReluDense.wo.weight.copy_(mine.ffn_out.weight)
    stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight.copy_(model.bias[:8])


@pytest.mark.parametrize("cuts", [[1] * 12, [5, 1, 4, 2], [12]])
def test_reading_column_by_column_equals_the_parallel_pass(cuts: list[int]) -> None:
    model, stream, conditions = make(), stream_of(2, 12), told(2, 4)
    expected = model(stream, **conditions)
    columns = torch.cat([torch.full((2, 1), 11), stream[:, :-1]], 1)
    with torch.inference_mode():
        for row in range(2):
            own = {name: codes[row : row + 1] for name, codes in conditions.items()}
            cache, at = open_window(model, 1, 12, **own), 0
            for cut in cuts:
                (logits,) = read(model, [Feed(cache, columns[row, at : at + cut], True)])
                at += cut
                assert logits is not None
                torch.testing.assert_close(logits[0], expected[row, at - 1], atol=1e-5, rtol=1e-4)


def test_a_token_changes_no_logits_before_it() -> None:
    model, stream, conditions = make(), stream_of(1, 9), told(1, 3)
    before = model(stream, **conditions)
    for at in range(8):
        changed = stream.clone()
        changed[0, at] = (changed[0, at] + 1) % 11
        after = model(changed, **conditions)
        assert torch.equal(before[0, : at + 1], after[0, : at + 1])
        assert not torch.allclose(before[0, at + 1], after[0, at + 1])


@pytest.mark.parametrize("name", ["style", "melody", "source"])
def test_every_code_that_is_told_matters_and_none_is_all_untold(name: str) -> None:
    model, stream, conditions = make(), stream_of(1, 9), told(1, 3)
    true = model(stream, **conditions)
    codes = conditions[name]
    for at in np.ndindex(*codes.shape):
        other = codes.clone()
        other[at] = (other[at] + 1) % 5
        assert not torch.allclose(model(stream, **conditions | {name: other})[0, 0], true[0, 0], atol=1e-6)
    none = model(stream, **conditions | {name: None})
    assert torch.equal(none, model(stream, **conditions | {name: torch.full_like(codes, UNTOLD)}))
    assert not torch.allclose(none, true)


def test_a_row_that_is_untold_does_not_change_its_neighbour() -> None:
    model, stream, conditions = make(), stream_of(1, 9).expand(2, -1), told(2, 3)
    dropped = {name: codes.clone() for name, codes in conditions.items()}
    for codes in dropped.values():
        codes[1] = UNTOLD
    one, other = model(stream, **conditions), model(stream, **dropped)
    torch.testing.assert_close(one[0], other[0])
    torch.testing.assert_close(other[1], model(stream[1:])[0])


def test_the_source_is_looked_at_by_its_moment_and_not_by_its_place() -> None:
    """A longer window moves a frame of the source away from the stream's, and its bias must not change."""
    model = make()
    short, long = (model.relative_bias(model.prefix(1, steps, None, None, None)[1]) for steps in (6, 12))

    # From the column that predicts frame f, codebook 0, to the first source token of the same moment.
    def aligned(bias: Tensor, steps: int, frame: int) -> Tensor:
        num_prefix = bias.shape[1] - steps
        first_source = num_prefix - 2 * CONFIG.source_frames(steps // 3)
        return bias[:, num_prefix + 3 * frame, first_source + 2 * 2 * frame]

    for frame in range(2):
        assert torch.equal(aligned(short, 6, frame), aligned(long, 12, frame))
    offset_0 = model.bias[8 * 3]  # the third table of the prefix, distance 0
    assert torch.equal(aligned(long, 12, 3), offset_0)


def test_tables_of_two_codebooks_are_apart() -> None:
    model, stream = make(PLAIN), stream_of(1, 6)
    before = model(stream)
    with torch.no_grad():
        model.stream.of_codebook(1).add_(1.0)
    after = model(stream)
    assert torch.equal(before[0, 0], after[0, 0])  # codebook 0, after the start alone
    assert not torch.allclose(before[0, 1], after[0, 1])  # predicted with the table of codebook 1
    assert not torch.allclose(before[0, 2], after[0, 2])  # hears a token of codebook 1


def test_a_stage_refuses_what_it_does_not_hear_and_what_is_out_of_range() -> None:
    with pytest.raises(ValueError, match="style: expected none"):
        make(PLAIN)(stream_of(1, 3), style=torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="source: expected 1 x 2 codes"):
        make()(stream_of(1, 3), source=torch.zeros(1, 3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="below 9"):
        make()(stream_of(1, 3), source=torch.full((1, 2, 2), 9))
    with pytest.raises(ValueError, match="num_heads"):
        StageLM(dataclasses.replace(CONFIG, num_heads=3))


def test_a_window_that_is_full_reads_no_more_and_stays_as_it_is() -> None:
    model = make()
    with torch.inference_mode():
        cache = open_window(model, 1, 2)
        read(model, [Feed(cache, torch.tensor([11]), False)])
        with pytest.raises(ValueError, match="holds 2 columns"):
            read(model, [Feed(cache, torch.tensor([0, 1]), True)])
        with pytest.raises(ValueError, match="expected 0 to 10"):
            read(model, [Feed(cache, torch.tensor([11]), True)])
        assert cache.num_steps == 1


def test_biases_are_made_once_a_layout_and_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    model = StageLM(CONFIG).eval()
    made: list[int] = []
    relative_bias = model.relative_bias
    monkeypatch.setattr(model, "relative_bias", lambda layout: made.append(layout.num_steps) or relative_bias(layout))
    biases = Biases(model, max_layouts=2)
    with torch.inference_mode():
        for num_steps in (12, 12, 6, 12, 4, 12, 6):
            cache = open_window(model, 1, num_steps, biases=biases)
            assert torch.equal(cache.bias, open_window(model, 1, num_steps).bias)
    assert made == [12, 12, 12, 6, 6, 12, 4, 4, 12, 6, 6]  # each second call of a pair makes its own
