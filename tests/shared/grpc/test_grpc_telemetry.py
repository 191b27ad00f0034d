"""Metrics, spans and logs of real calls."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from stretto.codec.v1 import codec_pb2
from stretto_shared.errors import InvalidInput, NotReady
from stretto_shared.grpc.logs import make_logger
from stretto_shared.grpc.metrics import Metrics

REQUEST = codec_pb2.EncodeAudioRequest(model="a secret prompt")
METHOD = "/stretto.codec.v1.CodecService/EncodeAudio"


def raising(error):
    async def encode(request, context):
        raise error

    return encode


async def fail(call):
    with pytest.raises(grpc.aio.AioRpcError):
        await call


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_the_metrics_page_counts_calls_by_method_and_code_and_shows_what_engines_report(serve):
    port = free_port()
    codec = serve.fake()
    served = await serve(codec, metrics_port=port)
    await served.codec.EncodeAudio(REQUEST)
    await served.codec.EncodeAudio(REQUEST)
    codec.encode = raising(InvalidInput("model", "is wrong."))
    await fail(served.codec.EncodeAudio(REQUEST))
    value = served.server.metrics.registry.get_sample_value
    await serve.eventually(lambda: value("stretto_rpc_in_flight", {"method": METHOD}) == 0)
    stage = codec.contexts[0].metrics.stage("codec")
    waiting = ["a", "b", "c", "d"]
    stage.watch_waiting(lambda: len(waiting))
    waiting.pop()  # the page shows how many wait when it is asked for
    stage.observe_first_audio(0.25)
    stage.observe_rtf(0.4)
    stage.observe_queue_wait(0.01)
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
    lines = page.splitlines()
    assert f'stretto_rpc_started_total{{method="{METHOD}"}} 3.0' in lines
    assert f'stretto_rpc_handled_total{{code="OK",method="{METHOD}"}} 2.0' in lines
    assert f'stretto_rpc_handled_total{{code="INVALID_ARGUMENT",method="{METHOD}"}} 1.0' in lines
    assert f'stretto_rpc_latency_s_count{{code="OK",method="{METHOD}"}} 2.0' in lines
    assert f'stretto_rpc_in_flight{{method="{METHOD}"}} 0.0' in lines
    assert 'stretto_stage_waiting_requests{stage="codec"} 3.0' in lines
    assert 'stretto_audio_ttfp_s_sum{stage="codec"} 0.25' in lines
    assert 'stretto_audio_rtf_sum{stage="codec"} 0.4' in lines
    assert 'stretto_request_queue_wait_s_count{stage="codec"} 1.0' in lines
    await served.server.stop()
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{port}/metrics")


async def test_a_call_in_flight_is_seen_as_such(serve):
    entered, go = asyncio.Event(), asyncio.Event()

    async def encode(request, context):
        entered.set()
        await go.wait()
        return codec_pb2.EncodeAudioResponse()

    served = await serve(serve.fake(encode=encode))
    call = served.codec.EncodeAudio(REQUEST)
    await entered.wait()
    assert served.server.metrics.registry.get_sample_value("stretto_rpc_in_flight", {"method": METHOD}) == 1
    go.set()
    await call
    assert served.server.metrics.registry.get_sample_value("stretto_rpc_in_flight", {"method": METHOD}) == 0


async def test_two_servers_in_one_process_count_apart(serve):
    first, second = await serve(), await serve()
    await first.codec.EncodeAudio(REQUEST)
    labels = {"method": METHOD}
    assert first.server.metrics.registry.get_sample_value("stretto_rpc_started_total", labels) == 1
    assert second.server.metrics.registry.get_sample_value("stretto_rpc_started_total", labels) is None


def test_the_same_name_gives_the_same_metric():
    metrics = Metrics()
    assert metrics.gauge("stretto_slots", "Slots") is metrics.gauge("stretto_slots", "Slots")


@pytest.mark.parametrize(
    ("error", "number", "status", "reason"),
    [
        (None, 0, StatusCode.UNSET, None),
        (InvalidInput("model", "is wrong."), 3, StatusCode.UNSET, "INVALID_INPUT"),
        (NotReady("No weights."), 14, StatusCode.ERROR, "NOT_READY"),
        (ValueError("oops"), 13, StatusCode.ERROR, "INTERNAL"),
    ],
)
async def test_a_span_has_the_right_status_also_after_an_abort(serve, error, number, status, reason):
    exporter = InMemorySpanExporter()
    codec = serve.fake() if error is None else serve.fake(encode=raising(error))
    quiet = make_logger("error", as_json=True, stream=io.StringIO())
    served = await serve(codec, span_exporter=exporter, log=quiet)
    call = served.codec.EncodeAudio(REQUEST)
    await (call if error is None else fail(call))
    await serve.eventually(exporter.get_finished_spans)
    (span,) = exporter.get_finished_spans()
    assert span.name == METHOD.removeprefix("/")
    assert span.attributes["rpc.grpc.status_code"] == number
    assert span.attributes.get("stretto.error_reason") == reason
    assert span.status.status_code is status
    assert "secret" not in span.to_json()


async def test_spans_of_a_cascade_form_one_trace(serve):
    exporter = InMemorySpanExporter()
    inner = await serve(span_exporter=exporter)

    async def outer_encode(request, context):
        return await inner.codec.EncodeAudio(request)

    outer = await serve(serve.fake(encode=outer_encode), span_exporter=exporter)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await outer.codec.EncodeAudio(REQUEST, metadata=(("traceparent", parent),))
    inner_span, outer_span = exporter.get_finished_spans()
    assert inner_span.parent.span_id == outer_span.context.span_id
    assert outer_span.parent.span_id == 0xB7AD6B7169203331
    assert inner_span.context.trace_id == outer_span.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C


async def test_spans_go_to_the_collector_that_is_set(serve):
    class Collector(trace_service_pb2_grpc.TraceServiceServicer):
        def __init__(self):
            self.names = []

        def Export(self, request, context):
            for resource in request.resource_spans:
                self.names += [span.name for scope in resource.scope_spans for span in scope.spans]
            return trace_service_pb2.ExportTraceServiceResponse()

    collector = Collector()
    collecting = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, collecting)
    port = collecting.add_insecure_port("127.0.0.1:0")
    collecting.start()
    try:
        served = await serve(otlp_endpoint=f"http://127.0.0.1:{port}")
        await served.codec.EncodeAudio(REQUEST)
        await served.server.stop()
        assert collector.names == [METHOD.removeprefix("/")]
    finally:
        await asyncio.to_thread(collecting.stop(0).wait)


async def test_each_call_is_one_json_line_without_the_prompt(serve):
    written = io.StringIO()
    served = await serve(log=make_logger("info", as_json=True, stream=written))
    await served.codec.EncodeAudio(REQUEST, timeout=90, metadata=(("x-request-id", "r1"),))
    decode = codec_pb2.DecodeTokensRequest()
    _ = [response async for response in served.codec.DecodeTokens(iter([decode, decode]))]
    lines = [line for line in map(json.loads, written.getvalue().splitlines()) if line["event"] == "rpc"]
    assert [(line["method"].rpartition("/")[2], line["code"], line["responses"]) for line in lines] == [
        ("EncodeAudio", "OK", 1),
        ("DecodeTokens", "OK", 2),
    ]
    first = lines[0]
    assert first["request_id"] == "r1"
    assert first["peer"].startswith("ipv4:127.0.0.1")
    assert 0 < first["latency_s"] < 90
    assert 10 < first["deadline_s"] <= 90.11  # the wire rounds up to tenths of a second
    assert "secret" not in written.getvalue()


async def test_a_cancelled_call_and_a_late_one_are_logged_as_such(serve):
    entered = asyncio.Event()

    async def encode(request, context):
        if context.time_remaining() is None or context.time_remaining() > 60:
            entered.set()
        await asyncio.sleep(60)

    written = io.StringIO()
    served = await serve(serve.fake(encode=encode), log=make_logger("info", as_json=True, stream=written))

    def codes():
        lines = map(json.loads, written.getvalue().splitlines())
        return [line["code"] for line in lines if line["event"] == "rpc"]

    await served.channel.channel_ready()
    for _ in range(20):  # on a starved machine a deadline may pass before the server hears of the call
        await fail(served.codec.EncodeAudio(REQUEST, timeout=0.3))
        if "DEADLINE_EXCEEDED" in codes():
            break
    assert "DEADLINE_EXCEEDED" in codes()
    call = served.codec.EncodeAudio(REQUEST)
    await entered.wait()
    call.cancel()
    await serve.eventually(lambda: codes()[-1] == "CANCELLED")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_no_local_variables(as_json):
    written = io.StringIO()
    log = make_logger("info", as_json=as_json, stream=written)
    try:
        prompt = "a secret prompt"
        raise ValueError(len(prompt))
    except ValueError as error:
        log.error("crash", exc_info=error)
    assert "ValueError" in written.getvalue()
    assert "secret" not in written.getvalue()
