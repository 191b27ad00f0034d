"""Health, reflection, channelz, limits, deadlines, cancellation and the life of a server, over a real channel."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from pathlib import Path

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto.common.v1 import audio_pb2
from stretto_shared.errors import Conflict, NotFound, NotReady
from stretto_shared.grpc.call import current_call
from stretto_shared.grpc.hosting import ServiceHost, load_builders
from stretto_shared.grpc.logs import make_logger
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings
from stretto_shared.grpc.status import error_from_rpc

CODEC = "stretto.codec.v1.CodecService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


class Held:
    """An encode that waits until it is let go."""

    def __init__(self):
        self.entered, self.go = asyncio.Event(), asyncio.Event()
        self.ended_by = None

    async def encode(self, request, context):
        self.entered.set()
        try:
            await self.go.wait()
        except BaseException as error:
            self.ended_by = type(error)
            raise
        return codec_pb2.EncodeAudioResponse(sample_count=7)


async def test_health_turns_serving_when_the_models_have_loaded_and_not_serving_at_stop(serve):
    loaded = asyncio.Event()
    served = await serve(serve.fake(start=loaded.wait), ready=False)
    stub = health_pb2_grpc.HealthStub(served.channel)
    watches = {name: stub.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", CODEC)}
    assert [(await watch.read()).status for watch in watches.values()] == [NOT_SERVING] * 2
    assert await health(served.channel, "") == NOT_SERVING
    loaded.set()
    assert [(await watch.read()).status for watch in watches.values()] == [SERVING] * 2
    assert await health(served.channel, CODEC) == SERVING
    await served.server.stop()
    assert [(await watch.read()).status for watch in watches.values()] == [NOT_SERVING] * 2
    assert [await watch.read() for watch in watches.values()] == [grpc.aio.EOF] * 2


async def test_health_of_an_unknown_service_is_not_found(serve):
    served = await serve()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health(served.channel, "stretto.nothing")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_call_while_the_models_load_is_not_ready(serve):
    loaded = asyncio.Event()
    served = await serve(serve.fake(start=loaded.wait), ready=False)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest())
    error = error_from_rpc(caught.value)
    assert isinstance(error, NotReady)
    assert error.reason == "LOADING"
    loaded.set()
    await served.server.wait_until_ready()
    await served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest())


async def test_wait_until_ready_raises_what_a_service_raised_and_calls_say_so(serve):
    async def start():
        raise NotReady("The weights' digest is wrong.")

    served = await serve(serve.fake(start=start), ready=False, log_level="error")
    with pytest.raises(NotReady, match="digest"):
        await served.server.wait_until_ready()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest())
    assert "could not load" in caught.value.details()
    assert await health(served.channel, "") == NOT_SERVING


async def test_reflection_lists_the_services_and_gives_their_files(serve):
    served = await serve()
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=CODEC),
    ]
    listed, file = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
    names = {service.name for service in listed.list_services_response.service}
    assert names == {
        CODEC,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "grpc.channelz.v1.Channelz",
    }
    assert file.file_descriptor_response.file_descriptor_proto


async def test_channelz_answers(serve):
    served = await serve()
    stub = channelz_pb2_grpc.ChannelzStub(served.channel)
    servers = (await stub.GetServers(channelz_pb2.GetServersRequest())).server
    assert sum(server.data.calls_started for server in servers) >= 1
    channels = (await stub.GetTopChannels(channelz_pb2.GetTopChannelsRequest())).channel
    assert any(channel.data.target.endswith(served.address) for channel in channels)


async def test_an_oversized_message_is_resource_exhausted_and_the_next_request_works(serve):
    served = await serve(max_receive_bytes=100_000)
    big = codec_pb2.EncodeAudioRequest(waveform=audio_pb2.Waveform(samples=bytes(200_000)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.codec.EncodeAudio(big)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        decode = codec_pb2.DecodeTokensRequest(tokens={"codes": [300] * 100_000})
        _ = [response async for response in served.codec.DecodeTokens(iter([decode]))]
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest())


async def test_a_late_request_is_cancelled_in_the_handler_and_the_next_one_works(serve):
    held = Held()
    served = await serve(serve.fake(encode=held.encode))
    await served.channel.channel_ready()
    for _ in range(20):  # on a starved machine a deadline may pass before the server hears of the call
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest(), timeout=1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if held.entered.is_set():
            break
    await serve.eventually(lambda: held.ended_by is asyncio.CancelledError)
    held.go.set()
    assert (await served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest(), timeout=60)).sample_count == 7


async def test_a_request_without_a_deadline_gets_the_default_one(serve):
    held = Held()
    served = await serve(serve.fake(encode=held.encode), default_deadline_s=2.0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest()), 60)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "default deadline" in caught.value.details()
    assert held.ended_by is asyncio.CancelledError


async def test_unless_it_is_set_the_default_deadline_is_ten_minutes_and_a_callers_own_comes_first(serve):
    remaining_s = []

    async def encode(request, context):
        remaining_s.append(current_call().remaining_s)
        return codec_pb2.EncodeAudioResponse()

    served = await serve(serve.fake(encode=encode))
    await served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest())
    await served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest(), timeout=3600)
    unlimited = await serve(serve.fake(encode=encode), default_deadline_s=0)
    await unlimited.codec.EncodeAudio(codec_pb2.EncodeAudioRequest())
    assert 500 < remaining_s[0] <= 600 < 3500 < remaining_s[1]
    assert remaining_s[2] is None


async def test_a_cancelled_call_cancels_its_handler(serve):
    held = Held()
    served = await serve(serve.fake(encode=held.encode))
    call = served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest())
    await held.entered.wait()
    call.cancel()
    await serve.eventually(lambda: held.ended_by is asyncio.CancelledError)


async def test_cancelling_a_stream_closes_the_handlers_iterators_also_while_it_waits_in_a_write(serve):
    closed = asyncio.Event()
    megabyte = codec_pb2.DecodeTokensResponse(waveform=audio_pb2.Waveform(samples=bytes(1_000_000)))

    async def decode(requests, context):
        try:
            while True:
                yield megabyte
        finally:
            closed.set()

    served = await serve(serve.fake(decode=decode))
    call = served.codec.DecodeTokens(iter([codec_pb2.DecodeTokensRequest()]))
    await call.read()
    await asyncio.sleep(0.3)
    assert not closed.is_set()
    call.cancel()
    await asyncio.wait_for(closed.wait(), 20)


async def test_a_drain_keeps_a_stream_alive_and_refuses_new_calls(serve):
    go = asyncio.Event()

    async def decode(requests, context):
        async for _ in requests:
            yield codec_pb2.DecodeTokensResponse(first_sample_index=0)
        await go.wait()
        yield codec_pb2.DecodeTokensResponse(first_sample_index=1)

    stopped = asyncio.Event()

    async def stop():
        stopped.set()

    served = await serve(serve.fake(decode=decode, stop=stop), drain_s=60)
    stream = served.codec.DecodeTokens(iter([codec_pb2.DecodeTokensRequest()]))
    assert (await stream.read()).first_sample_index == 0
    stopping = asyncio.create_task(served.server.stop())
    watch = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest(service=""))
    while (await watch.read()).status != NOT_SERVING:
        pass
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest())
    assert error_from_rpc(caught.value).reason == "DRAINING"
    assert not stopped.is_set()
    go.set()
    assert (await stream.read()).first_sample_index == 1
    assert await stream.read() is grpc.aio.EOF
    await asyncio.wait_for(stopping, 30)
    assert stopped.is_set()


async def test_a_drain_ends_after_drain_s_and_cancels_what_is_left(serve):
    held = Held()
    served = await serve(serve.fake(encode=held.encode), drain_s=0.2)
    call = served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest())
    await held.entered.wait()
    await asyncio.wait_for(served.server.stop(), 30)
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    assert held.ended_by is asyncio.CancelledError


async def test_all_in_one_gives_a_private_loopback_that_reaches_the_same_server(serve):
    codec = serve.fake()
    other = serve.fake()

    def build_other(context):
        other.contexts.append(context)

        async def nothing():
            return None

        return ServiceHost("other", "stretto.other.v1.Other", lambda server: None, nothing, nothing)

    settings = GrpcSettings(port=0, log_level="error")
    server = StrettoServer(settings, {"codec": codec.build, "other": build_other})
    await server.start()
    try:
        await server.wait_until_ready()
        address = codec.contexts[0].loopback_address
        assert address == other.contexts[0].loopback_address
        folder = Path(address.removeprefix("unix:")).parent
        assert folder.stat().st_mode & 0o077 == 0
        stub = codec_pb2_grpc.CodecServiceStub(serve.open(address))
        await stub.EncodeAudio(codec_pb2.EncodeAudioRequest())
    finally:
        await server.stop()
    assert not folder.exists()


async def test_a_service_alone_has_no_loopback(serve):
    codec = serve.fake()
    await serve(codec)
    assert codec.contexts[0].loopback_address is None
    assert codec.contexts[0].metrics is not None


async def test_a_taken_port_is_refused_with_its_number(serve):
    served = await serve()
    port = int(served.address.rpartition(":")[2])
    second = StrettoServer(GrpcSettings(port=port, log_level="error"), {"codec": serve.fake().build})
    with pytest.raises(NotReady, match=str(port)):
        await second.start()


async def test_a_server_starts_only_once(serve):
    served = await serve()
    with pytest.raises(Conflict):
        await served.server.start()


async def test_sigterm_lets_the_request_in_flight_finish_and_stops_the_services(serve):
    held, stopped = Held(), asyncio.Event()

    async def stop():
        stopped.set()

    served = await serve(serve.fake(encode=held.encode, stop=stop), drain_s=60)
    serving = asyncio.create_task(served.server.serve_until_signalled())
    answer = asyncio.ensure_future(served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest()))
    await held.entered.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.1)
    assert not serving.done()
    held.go.set()
    assert (await answer).sample_count == 7
    await asyncio.wait_for(serving, 60)
    assert stopped.is_set()


async def test_a_server_whose_models_do_not_load_stops_and_raises_why(serve):
    async def start():
        raise RuntimeError("no weights")

    quiet = make_logger("error", as_json=True, stream=io.StringIO())
    served = await serve(serve.fake(start=start), ready=False, log=quiet)
    with pytest.raises(RuntimeError, match="no weights"):
        await served.server.serve_until_signalled()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_an_unknown_service_is_not_found_and_the_message_names_those_installed():
    with pytest.raises(NotFound, match=r"'nothing'.*codec"):
        load_builders(["nothing"])
