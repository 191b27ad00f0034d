"""The stages' own methods through the orchestrator's port, and what the orchestrator must not import."""

import asyncio
import subprocess
import sys

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.acoustic.v1 import acoustic_pb2, acoustic_pb2_grpc
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto.common.v1 import audio_pb2
from stretto.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from stretto_orchestrator import main
from stretto_orchestrator.settings import OrchestratorSettings
from stretto_shared.errors import InvalidInput, Overloaded
from stretto_shared.grpc import convert
from stretto_shared.grpc.hosting import HostContext
from stretto_shared.grpc.streams import write
from stretto_shared.tokens import TokenMatrix


def decode_requests(num_frames=25):
    codes = np.arange(2 * num_frames).reshape(2, -1) % 64
    tokens = convert.tokens_to_proto(TokenMatrix(codes, 50, "tinycodec@aaaaaaaaaaaa"))
    return [
        codec_pb2.DecodeTokensRequest(config=codec_pb2.DecodeConfig(model="tinycodec")),
        codec_pb2.DecodeTokensRequest(tokens=tokens),
    ]


def assert_unreachable(error, stage, port):
    """UNAVAILABLE with a reason for programs, and for people the stage's name and not its address."""
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == f"The {stage} service cannot be reached. Try again."
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in rpc_status.from_call(error).details)
    assert (info.reason, info.domain) == ("UNREACHABLE", "stretto.dev")
    assert str(port) not in str(error.trailing_metadata())


def counted_methods(server):
    samples = [sample for metric in server.metrics.registry.collect() for sample in metric.samples]
    return {sample.labels["method"] for sample in samples if "method" in sample.labels}


async def test_unary_methods_pass_through(house):
    states = await embedding_pb2_grpc.EmbeddingServiceStub(house.channel).EmbedText(
        embedding_pb2.EmbedTextRequest(texts=["a waltz"])
    )
    direct = grpc.aio.insecure_channel(f"127.0.0.1:{house.ports['embedding']}")
    async with direct:
        same = await embedding_pb2_grpc.EmbeddingServiceStub(direct).EmbedText(
            embedding_pb2.EmbedTextRequest(texts=["a waltz"])
        )
    assert states == same and len(states.states) == 1


async def test_streams_pass_through_in_both_directions_while_they_run(house):
    call = codec_pb2_grpc.CodecServiceStub(house.channel).DecodeTokens(timeout=20)
    for request in decode_requests():
        await call.write(request)
    first = await call.read()
    assert first.first_sample_index == 0 and first.model.name == "tinycodec"
    await call.done_writing()
    rest = []
    while (response := await call.read()) is not grpc.aio.EOF:
        rest.append(response)
    assert sum(len(response.waveform.samples) for response in [first, *rest]) == 25 * 160 * 4


@pytest.mark.parametrize("error", [InvalidInput("texts[0]", "too odd."), Overloaded("Full.", retry_after_s=3)])
async def test_typed_errors_keep_their_details(house, error):
    house.embedding.watched.error = error
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await embedding_pb2_grpc.EmbeddingServiceStub(house.channel).EmbedText(
            embedding_pb2.EmbedTextRequest(texts=["a"])
        )
    status = rpc_status.from_call(caught.value)
    kind = error_details_pb2.BadRequest if isinstance(error, InvalidInput) else error_details_pb2.RetryInfo
    assert any(detail.Is(kind.DESCRIPTOR) for detail in status.details)
    assert caught.value.details() == error.message


async def test_a_refused_stream_keeps_its_error(house):
    house.codec.watched.error = Overloaded("Full.", retry_after_s=3)
    call = codec_pb2_grpc.CodecServiceStub(house.channel).DecodeTokens(timeout=20)
    for request in decode_requests():
        await write(call, request.SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_deadline_metadata_and_cancellation_pass_through(house, eventually):
    stub = codec_pb2_grpc.CodecServiceStub(house.channel)
    call = stub.DecodeTokens(timeout=60, metadata=(("x-request-id", "req-42"), ("x-team", "strings")))
    for request in decode_requests():
        await call.write(request)
    await call.read()
    watched = house.codec.watched
    assert 0 < watched.remaining_s < 60.5, "each hop rounds up a little; a stage alone would get 600 s"
    assert (watched.metadata["x-request-id"], watched.metadata["x-team"]) == ("req-42", "strings")
    assert watched.num_active == 1
    call.cancel()
    await eventually(lambda: watched.num_active == 0)


async def test_an_unreachable_stage_is_unavailable(house):
    await house.servers["codec"].stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await codec_pb2_grpc.CodecServiceStub(house.channel).EncodeAudio(
            codec_pb2.EncodeAudioRequest(waveform=audio_pb2.Waveform()), timeout=20
        )
    assert_unreachable(caught.value, "codec", house.ports["codec"])


async def test_a_unary_call_to_a_dead_stage_is_unavailable_by_name(house):
    await house.servers["embedding"].stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await embedding_pb2_grpc.EmbeddingServiceStub(house.channel).ListModels(
            embedding_pb2.ListModelsRequest(), timeout=20
        )
    assert_unreachable(caught.value, "embedding", house.ports["embedding"])


async def test_a_method_that_a_stage_is_too_old_for_is_unimplemented_by_name(house):
    await house.channel.close()
    await house.servers["orchestrator"].stop()
    await house.start_orchestrator(embedding_address=f"127.0.0.1:{house.ports['codec']}")  # which knows no EmbedText
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await embedding_pb2_grpc.EmbeddingServiceStub(house.channel).EmbedText(
            embedding_pb2.EmbedTextRequest(texts=["a"]), timeout=20
        )
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == "The embedding service does not offer this method."


async def test_a_stage_that_is_slower_than_the_deadline_is_late(house):
    house.codec.watched.gate = asyncio.Event()
    call = codec_pb2_grpc.CodecServiceStub(house.channel).DecodeTokens(timeout=2)
    await call.write(decode_requests()[0])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    "method",
    [
        "/stretto.codec.v1.CodecService/MadeUp",
        "/stretto.codec.v1.CodecService/",
        "/stretto.codec.v1.CodecService/x/ListModels",
        "/stretto.acoustic.v1.AcousticService/ListModels",
        "/made.up.Service/ListModels",
        "/stretto.orchestrator.v1.OrchestratorService/MadeUp",
    ],
)
async def test_a_method_that_no_proto_has_is_unimplemented_and_makes_no_series(house, method):
    await codec_pb2_grpc.CodecServiceStub(house.channel).ListModels(codec_pb2.ListModelsRequest())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.channel.unary_unary(method)(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    for name in ("orchestrator", "codec", "acoustic"):
        assert method not in counted_methods(house.servers[name])
    assert "/stretto.codec.v1.CodecService/ListModels" in counted_methods(house.servers["orchestrator"])


async def test_other_services_stay_unimplemented(house):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await acoustic_pb2_grpc.AcousticServiceStub(house.channel).ListModels(acoustic_pb2.ListModelsRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_beside_the_stages_nothing_is_forwarded():
    host = main.build(HostContext(loopback_address="unix:/nowhere.sock"), OrchestratorSettings())
    await host.stop()
    assert host.extra_handlers == ()


async def test_alone_without_addresses_it_does_not_start():
    with pytest.raises(InvalidInput, match="STRETTO_ORCHESTRATOR_EMBEDDING_ADDRESS"):
        main.build(HostContext(), OrchestratorSettings())


async def test_the_orchestrator_never_imports_torch():
    code = "import sys, stretto_orchestrator.main; print([m for m in ('torch', 'tokenizers') if m in sys.modules])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0 and output.strip() == b"[]"
