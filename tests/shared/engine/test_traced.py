"""The decode steps of a request show in the trace of whoever asked for it."""

from __future__ import annotations

import numpy as np
import torch
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from stretto_shared.engine.program import StateCost, TokenRequest
from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine, TokenEngineConfig


class FlatModel:
    """Likes every token as much as any other."""

    cardinality = special_token = 5
    delays = (0,)
    is_row_invariant = True

    def open(self, condition, *, num_steps, guidance_scale):
        return condition

    def cost(self, condition, *, num_steps, guidance_scale):
        return StateCost(num_rows=1, kv_bytes=1)

    def step(self, states, columns, wants_logits):
        return [torch.zeros(1, 5) if wants else None for wants in wants_logits]


def request(num_known):
    none, known = np.zeros((1, 0), np.int32), np.ones((1, num_known), np.int32)
    return TokenRequest(1, 8, none, known, Sampling(top_k=0), 0)


async def test_the_first_frames_of_a_request_are_an_event_of_the_span_that_asked_for_them():
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("tests")
    thread = ModelThread("flat")
    engine = TokenEngine(
        thread, FlatModel(), stage="test", config=TokenEngineConfig(first_block_frames=1, block_frames=2)
    )
    try:
        for num_known in (0, 3):
            with tracer.start_as_current_span(f"after {num_known}"):
                assert len([block async for block in engine.generate(request(num_known))]) > 1
    finally:
        await engine.close()
        await thread.close()
    told = {
        span.name: [(event.name, dict(event.attributes)) for event in span.events]
        for span in exporter.get_finished_spans()
    }
    assert told == {
        "after 0": [("first_frames", {"stretto.first_frame": 0})],
        "after 3": [("first_frames", {"stretto.first_frame": 3})],
    }
