"""Story mode: the grid of styles, the way between two embeddings, and what the stages are told."""

import math

import grpc
import numpy as np
import pytest
from fake_stages import MULAN
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto_orchestrator.flows.story import MAX_SPANS, STEP_S, PromptSpan, between, plan

Span = orchestrator_pb2.PromptSpan


def unit(values):
    return np.asarray(values, np.float32) / np.float32(np.linalg.norm(values))


def test_without_a_story_one_style_holds_all_along():
    assert [(point.start_s, point.goal, point.weight) for point in plan((), 30.0)] == [(0.0, 0, 1.0)]


def test_a_change_goes_in_even_steps_of_at_most_a_second_with_the_style_of_their_middles():
    points = plan([PromptSpan(10.0, "b", 4.0)], 30.0)
    assert [(point.start_s, point.goal, point.weight) for point in points] == [
        (0.0, 0, 1.0), (10.0, 1, 0.125), (11.0, 1, 0.375), (12.0, 1, 0.625), (13.0, 1, 0.875), (14.0, 1, 1.0),
    ]  # fmt: skip


def test_a_change_without_a_blend_is_at_once():
    points = plan([PromptSpan(10.0, "b", 0.0)], 30.0)
    assert [(point.start_s, point.weight) for point in points] == [(0.0, 1.0), (10.0, 1.0)]


def test_a_change_is_over_when_the_next_begins_and_nothing_lies_beyond_the_piece():
    points = plan([PromptSpan(10.0, "b", 60.0), PromptSpan(12.0, "c", 60.0)], 13.5)
    assert [(point.start_s, point.goal, point.weight) for point in points] == [
        (0.0, 0, 1.0), (10.0, 1, 0.25), (11.0, 1, 0.75), (12.0, 2, 0.5 / 60), (13.0, 2, 1.5 / 60),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(50))
def test_any_story_is_a_list_of_styles_that_the_stages_take(seed):
    rng = np.random.default_rng(seed)
    duration_s = float(rng.uniform(1, 300))
    starts = np.unique(rng.uniform(0, duration_s, int(rng.integers(1, MAX_SPANS + 1))))
    story = [PromptSpan(float(start), "x", float(rng.choice([0, rng.uniform(0, 60)]))) for start in starts if start > 0]
    points = plan(story, duration_s)
    times = [point.start_s for point in points]
    assert times[0] == 0 and all(one < other for one, other in zip(times, times[1:])) and times[-1] < duration_s
    assert len(points) <= 1024, "as many as are embedded, and as a stage takes"
    for index, span in enumerate(story):
        own = [point for point in points if point.goal == index + 1]
        assert own[0].start_s == span.start_s
        weights = [0.0, *(point.weight for point in own)]
        assert all(one < other for one, other in zip(weights, weights[1:])) and weights[-1] <= 1
        steps = [other.start_s - one.start_s for one, other in zip(own, own[1:])]
        assert all(step <= STEP_S + 1e-9 for step in steps)


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_the_way_between_two_styles_is_the_great_circle_at_even_speed(weight):
    origin, goal = unit([1, 2, 3, 4]), unit([-2, 1, 0.5, 3])
    point = between(origin, goal, weight)
    angle = math.acos(float(origin @ goal))
    assert np.linalg.norm(point) == pytest.approx(1, abs=1e-6)
    assert math.acos(min(1.0, float(origin @ point))) == pytest.approx(weight * angle, abs=1e-3)
    assert math.acos(min(1.0, float(goal @ point))) == pytest.approx((1 - weight) * angle, abs=1e-3)


def test_the_way_between_equal_or_opposite_styles_has_no_nan():
    origin = unit([1, 2, 3, 4])
    np.testing.assert_allclose(between(origin, origin, 0.3), origin, atol=1e-6)
    np.testing.assert_array_equal(between(origin, -origin, 0.3), origin)
    np.testing.assert_array_equal(between(origin, -origin, 0.7), -origin)


async def test_a_story_is_embedded_and_quantized_once_and_told_to_the_stages_that_hear_style(
    house, collect, request_music
):
    story = [Span(start_s=4, prompt="a storm", blend_s=2), Span(start_s=9, prompt="a calm")]
    request = request_music(cascade="musiclm", duration_s=10.5, story=story)
    music = await collect(house.stub.GenerateMusic(request))
    embedded, quantized = house.embedding.watched.requests
    assert list(embedded.texts) == ["a slow waltz", "a storm", "a calm"] and quantized.model == "mulan"
    styles = house.semantic.watched.requests[0].styles
    assert [style.start_s for style in styles] == [0, 4, 5, 6, 9, 10], "five seconds of change end with the piece"
    assert {style.encoder_id for style in styles} == {MULAN.model_id}
    assert len({tuple(style.codes) for style in styles}) == len(styles)
    assert list(house.acoustic.refining["musiclm_coarse"].requests[0].styles) == list(styles)
    told = music.receipt.story
    assert [(span.start_s, span.prompt, span.blend_s) for span in told] == [(4, "a storm", 2), (9, "a calm", 5)]
    again = await collect(house.stub.GenerateMusic(request))
    plain = await collect(house.stub.GenerateMusic(request_music(cascade="musiclm", duration_s=10.5)))
    assert music.samples.tobytes() == again.samples.tobytes() != plain.samples.tobytes()


async def test_the_longest_story_is_embedded_in_one_call(house, request_music):
    story = [Span(start_s=index + 1, prompt=f"scene {index}") for index in range(MAX_SPANS)]
    call = house.stub.GenerateMusic(request_music(cascade="musiclm", duration_s=70, story=story))
    async for response in call:
        if response.WhichOneof("payload") == "chunk":
            break
    call.cancel()
    assert len(house.embedding.watched.requests[0].texts) == 64


@pytest.mark.parametrize(
    ("story", "field"),
    [
        ([Span(start_s=0, prompt="b")], "story[0].start_s"),
        ([Span(start_s=2, prompt="b")], "story[0].start_s"),
        ([Span(start_s=float("nan"), prompt="b")], "story[0].start_s"),
        ([Span(start_s=1, prompt="b"), Span(start_s=1, prompt="c")], "story[1].start_s"),
        ([Span(start_s=1, prompt="b", blend_s=61)], "story[0].blend_s"),
        ([Span(start_s=1, prompt="b", blend_s=-1)], "story[0].blend_s"),
        ([Span(start_s=0.5, prompt="b"), Span(start_s=1, prompt=" ")], "story[1].prompt"),
        ([Span(start_s=1, prompt="x" * 1500)], "story[0].prompt"),  # the embedding stage refuses it as texts[1]
        ([Span(start_s=0.01 * (index + 1), prompt="b") for index in range(64)], "story"),
    ],
)
async def test_a_story_that_is_none_is_named_by_its_field(house, request_music, story, field):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in house.stub.GenerateMusic(request_music(cascade="musiclm", story=story)):
            pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = error_details_pb2.BadRequest()
    assert any(packed.Unpack(found) for packed in rpc_status.from_call(caught.value).details)
    assert found.field_violations[0].field == field
    assert house.semantic.watched.num_calls == 0


async def test_a_cascade_without_a_joint_embedding_tells_no_story(house, request_music):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in house.stub.GenerateMusic(request_music(story=[Span(start_s=1, prompt="b")])):
            pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "story: needs a cascade with a joint embedding" in caught.value.details()
    assert house.embedding.watched.num_calls == 0
