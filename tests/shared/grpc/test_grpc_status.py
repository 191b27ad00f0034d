"""Every deliberate error crosses a real channel with its code and details, and comes back as itself."""

from __future__ import annotations

import io
import json

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status.rpc_status import aio as rpc_status
from stretto.codec.v1 import codec_pb2
from stretto_shared.errors import Conflict, InvalidInput, NotFound, NotReady, Overloaded, StrettoError
from stretto_shared.grpc.logs import make_logger
from stretto_shared.grpc.status import MAX_MESSAGE_BYTES, error_from_rpc, status_from_error

ERRORS = [
    (InvalidInput("sampling.top_p", "expected at most 1, got 2."), grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound("model", "no model 'x'; known are: framecodec."), grpc.StatusCode.NOT_FOUND),
    (NotReady("The weights are loading.", reason="LOADING"), grpc.StatusCode.UNAVAILABLE),
    (Overloaded("8 requests wait.", retry_after_s=2.5), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Conflict("The stream began with another codec."), grpc.StatusCode.FAILED_PRECONDITION),
]


def raising(error):
    async def encode(request, context):
        raise error

    return encode


async def failed(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def details_of(call):
    status = await rpc_status.from_call(call)
    found = {}
    for kind in (error_details_pb2.BadRequest, error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo):
        for packed in status.details:
            message = kind()
            if packed.Unpack(message):
                found[kind] = message
    return found


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: getattr(value, "name", type(value).__name__))
async def test_a_deliberate_error_arrives_with_its_code_and_comes_back_as_itself(serve, error, code):
    served = await serve(serve.fake(encode=raising(error)))
    caught = await failed(served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest()))
    assert caught.code() is code
    back = error_from_rpc(caught)
    assert type(back) is type(error)
    assert (back.message, back.reason) == (error.message, error.reason)
    assert getattr(back, "field", None) == getattr(error, "field", None)
    assert getattr(back, "retry_after_s", None) == getattr(error, "retry_after_s", None)


async def test_invalid_input_names_its_field_in_bad_request_and_error_info(serve):
    served = await serve(serve.fake(encode=raising(ERRORS[0][0])))
    call = served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest())
    await failed(call)
    details = await details_of(call)
    violation = details[error_details_pb2.BadRequest].field_violations[0]
    assert (violation.field, violation.description) == ("sampling.top_p", "expected at most 1, got 2.")
    info = details[error_details_pb2.ErrorInfo]
    assert (info.domain, info.reason, info.metadata["field"]) == ("stretto.dev", "INVALID_INPUT", "sampling.top_p")


async def test_an_overloaded_service_says_when_to_retry(serve):
    served = await serve(serve.fake(encode=raising(ERRORS[3][0])))
    call = served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest())
    await failed(call)
    delay = (await details_of(call))[error_details_pb2.RetryInfo].retry_delay
    assert delay.ToNanoseconds() == 2_500_000_000


@pytest.mark.parametrize("error", [ValueError("secret /etc/path"), StrettoError("secret row")])
async def test_an_unexpected_error_is_internal_logged_and_does_not_leak(serve, error):
    lines = io.StringIO()
    served = await serve(serve.fake(encode=raising(error)), log=make_logger("info", as_json=True, stream=lines))
    caught = await failed(served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest(), metadata=(("x-request-id", "r7"),)))
    assert caught.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.details()
    assert "r7" in caught.details()
    assert "secret" not in str(caught.trailing_metadata())
    assert error_from_rpc(caught) is None
    crash = next(line for line in map(json.loads, lines.getvalue().splitlines()) if line["event"] == "rpc_crashed")
    assert "secret" in json.dumps(crash["exception"])
    assert crash["request_id"] == "r7"


async def test_an_error_in_the_middle_of_a_stream_is_typed_too(serve):
    async def decode(requests, context):
        async for _ in requests:
            yield codec_pb2.DecodeTokensResponse(first_sample_index=1)
            raise InvalidInput("tokens.codes", "expected codes below 1024, got 5000.")

    served = await serve(serve.fake(decode=decode))
    call = served.codec.DecodeTokens(iter([codec_pb2.DecodeTokensRequest()]))
    received = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for response in call:
            received.append(response.first_sample_index)
    assert received == [1]
    assert error_from_rpc(caught.value).field == "tokens.codes"


@pytest.mark.parametrize("method", ["EncodeAudio", "DecodeTokens"])
async def test_bytes_that_do_not_parse_are_invalid_argument_and_the_next_request_works(serve, method):
    served = await serve()
    garbage = b"\x0a\xff\xff\xff\xff\x7fnot a message"
    path = f"/stretto.codec.v1.CodecService/{method}"
    if method == "EncodeAudio":
        caught = await failed(served.channel.unary_unary(path)(garbage))
    else:
        caught = await failed(anext(aiter(served.channel.stream_stream(path)(iter([garbage])))))
    assert caught.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_from_rpc(caught).reason == "MALFORMED_MESSAGE"
    assert await served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest()) == codec_pb2.EncodeAudioResponse()


async def test_an_unknown_method_is_unimplemented(serve):
    served = await serve()
    caught = await failed(served.channel.unary_unary("/stretto.codec.v1.CodecService/Nothing")(b""))
    assert caught.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_very_long_message_is_cut_instead_of_breaking_the_trailers(serve):
    served = await serve(serve.fake(encode=raising(InvalidInput("prompt", "é" * 50_000))))
    caught = await failed(served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest()))
    assert caught.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(caught.details().encode()) <= MAX_MESSAGE_BYTES
    assert caught.details().endswith("…")


async def test_a_failed_inner_call_passes_its_typed_error_through_the_outer_service(serve):
    inner = await serve(serve.fake(encode=raising(Overloaded("Full.", retry_after_s=3.0))))

    async def outer(request, context):
        return await inner.codec.EncodeAudio(request)

    served = await serve(serve.fake(encode=outer))
    back = error_from_rpc(await failed(served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest())))
    assert isinstance(back, Overloaded)
    assert back.retry_after_s == 3.0


async def test_an_unexpected_error_of_an_inner_service_stays_internal_and_does_not_leak(serve):
    inner = await serve(serve.fake(encode=raising(ValueError("secret"))), log_level="error")

    async def outer(request, context):
        return await inner.codec.EncodeAudio(request)

    served = await serve(serve.fake(encode=outer), log=make_logger("error", as_json=True, stream=io.StringIO()))
    caught = await failed(served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest()))
    assert caught.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.details()


async def test_an_unreachable_service_is_not_ready(serve):
    async with serve.open("127.0.0.1:1", max_attempts=1, health_checking=False) as channel:
        caught = await failed(channel.unary_unary("/a.B/C")(b"", timeout=60))
    back = error_from_rpc(caught)
    assert isinstance(back, NotReady)
    assert back.reason == "UNREACHABLE"


def test_the_field_is_in_the_status_message():
    status = status_from_error(InvalidInput("duration_s", "expected at most 30, got 31."))
    assert status.message == "duration_s: expected at most 30, got 31."
