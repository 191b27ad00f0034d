"""`Chain`: stages at work at once, held back by whoever does not read, and cancelled together."""

import asyncio

import numpy as np
import pytest
from fake_stages import COARSE, FINE, SEMANTIC
from stretto_orchestrator.clients import GeneratedTokens
from stretto_orchestrator.flows.chain import Chain, TokenStage
from stretto_orchestrator.flows.resuming import ResumePolicy, Resumes
from stretto_shared.features import SamplingOptions
from stretto_shared.tokens import TokenMatrix

NUM_FRAMES = 50


def frame(value):
    return TokenMatrix(np.full((1, 1), value), 50.0, "c@1")


class Stage:
    """Passes the source on, or counts, frame by frame; knows how many it made and whether it was closed."""

    def __init__(self, info, temperature):
        self.info, self.temperature = info, temperature
        self.num_made, self.is_closed = 0, False

    async def open(self, source, resume_from):
        try:
            for index in range(NUM_FRAMES):
                part = await anext(source, None)
                self.num_made += 1
                tokens = frame(index) if part is None else part
                yield GeneratedTokens(tokens, index, NUM_FRAMES, self.info, SamplingOptions(self.temperature, 5))
        finally:
            self.is_closed = True

    def token_stage(self):
        return TokenStage(self.info.name, self.open)


def make_chain(stages, **options):
    resumes = Resumes(ResumePolicy(0), lambda stage: None)
    return Chain([stage.token_stage() for stage in stages], resumes, **({"max_ahead": 3} | options))


@pytest.fixture
def stages():
    return [Stage(SEMANTIC, 1.0), Stage(COARSE, 0.95), Stage(FINE, 0.4)]


async def test_a_stage_whose_tokens_nobody_reads_holds_all_before_it_back(stages):
    async with make_chain(stages):
        for _ in range(1000):  # turns of the event loop, far more than it takes
            await asyncio.sleep(0)
        assert [stage.num_made for stage in stages] == [12, 8, 4], "three wait behind each, and one is in hand"
    assert all(stage.is_closed for stage in stages)


async def test_all_tokens_come_through_and_each_model_is_named(stages):
    async with make_chain(stages) as chain:
        codes = [int(part.codes[0, 0]) async for part in chain.log.read()]
        assert codes == list(range(NUM_FRAMES))
        assert chain.models == (SEMANTIC, COARSE, FINE) and chain.last_model == FINE
        assert (chain.sampling.temperature, chain.sampling.top_k) == (None, 5)
        assert [(each.stage, each.num_done_frames) for each in chain.progress()] == [
            (info.name, NUM_FRAMES) for info in (SEMANTIC, COARSE, FINE)
        ]


async def test_without_streaming_each_stage_waits_for_all_of_the_one_before_and_nothing_holds_that_back(stages):
    async with make_chain(stages, streams=False) as chain:
        assert [each.stage for each in chain.progress()] == ["musiclm_semantic"]
        await chain.log.ended()
        assert [stage.num_made for stage in stages] == [NUM_FRAMES] * 3


async def test_an_error_of_the_first_stage_comes_out_of_the_last_log(stages):
    async def broken(source, resume_from):
        raise RuntimeError("no tokens today")
        yield

    first = TokenStage("semantic", broken)
    chain = Chain(
        [first, *(stage.token_stage() for stage in stages[1:])],
        Resumes(ResumePolicy(0), lambda stage: None),
        max_ahead=3,
    )
    async with chain:
        with pytest.raises(RuntimeError, match="no tokens today"):
            async for _ in chain.log.read():
                pass
