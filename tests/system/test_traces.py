"""One piece is one trace: from the door to the RPCs in which tokens and audio are made, over two servers."""

import functools
import io
import json

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from stretto_client import StrettoClient
from stretto_orchestrator.main import build as build_orchestrator
from stretto_orchestrator.settings import OrchestratorSettings
from stretto_shared.grpc.hosting import load_builders
from stretto_shared.grpc.logs import make_logger
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings

STAGES = ("embedding", "semantic", "acoustic", "codec", "transcriber", "harmony")


async def test_a_piece_is_one_trace_and_one_request_id_from_the_door_to_the_stages() -> None:
    spans, lines = InMemorySpanExporter(), io.StringIO()
    log = make_logger("info", as_json=True, stream=lines)
    models = StrettoServer(GrpcSettings(port=0), load_builders(STAGES), log=log, span_exporter=spans)
    port = await models.start()
    addresses = {f"{stage}_address": f"127.0.0.1:{port}" for stage in STAGES}
    known = {name: value for name, value in addresses.items() if name in OrchestratorSettings.model_fields}
    build = functools.partial(build_orchestrator, settings=OrchestratorSettings(**known))
    door = StrettoServer(GrpcSettings(port=0), {"orchestrator": build}, log=log, span_exporter=spans)
    try:
        await models.wait_until_ready()
        door_port = await door.start()
        async with StrettoClient(f"127.0.0.1:{door_port}") as client:
            async for _ in client.generate_music("a calm piano piece", duration_s=1.0, seed=3):
                pass
    finally:
        await door.stop()
        await models.stop()
    found = {span.name.rpartition("/")[2]: span for span in spans.get_finished_spans()}
    assert {"GenerateMusic", "EmbedText", "GenerateTokens", "DecodeTokens"} <= set(found)
    first = found["GenerateMusic"]
    for name in ("EmbedText", "GenerateTokens", "DecodeTokens"):
        span = found[name]
        assert span.context.trace_id == first.context.trace_id
        assert span.parent is not None and span.parent.span_id == first.context.span_id
        assert span.attributes["stretto.request_id"] == first.attributes["stretto.request_id"]
    tokens, audio = found["GenerateTokens"], found["DecodeTokens"]
    firsts = {
        name: [event.timestamp for event in found[name].events if event.name == "first_response"] for name in found
    }
    assert all(len(firsts[name]) == 1 for name in ("GenerateMusic", "GenerateTokens", "DecodeTokens"))
    (frames_ns,), (audio_ns,) = firsts["GenerateTokens"], firsts["DecodeTokens"]
    assert first.start_time < frames_ns < audio.end_time and first.start_time < audio_ns < first.end_time
    assert tokens.attributes["stretto.response_count"] >= 2 and audio.attributes["stretto.response_count"] >= 2
    logged = [json.loads(line) for line in lines.getvalue().splitlines()]
    rpcs = {each["method"].rpartition("/")[2]: each["request_id"] for each in logged if each["event"] == "rpc"}
    assert {rpcs[name] for name in ("GenerateMusic", "EmbedText", "GenerateTokens", "DecodeTokens")} == {
        first.attributes["stretto.request_id"]
    }
    assert "calm" not in lines.getvalue()  # no prompt in a log
