"""Who may come in at the door, how often and with how much; what they are told, and what nobody is told."""

import asyncio
import datetime
import io
import json
import os

import grpc
import numpy as np
import pytest
from fake_stages import ADD
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from stretto_orchestrator.door.keys import KeyFile, parse_keys
from stretto_orchestrator.door.limits import Limits, Meter
from stretto_orchestrator.main import build
from stretto_orchestrator.settings import OrchestratorSettings
from stretto_shared.errors import InvalidInput, Overloaded
from stretto_shared.grpc import convert
from stretto_shared.grpc.api_keys import digest_of, new_key
from stretto_shared.grpc.hosting import HostContext
from stretto_shared.grpc.logs import make_logger
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.setting_errors import InvalidSetting
from stretto_shared.grpc.settings import GrpcSettings
from stretto_shared.tokens import TokenMatrix

STUDIO, RADIO, GONE = "stretto_studio-key-0123456789", "stretto_radio-key-0123456789", "stretto_gone-key-0123456789"
LIST = orchestrator_pb2.ListModelsRequest()


def entry(name, key, *more):
    return "\n".join([f"[keys.{name}]", f'sha256 = "{digest_of(key)}"', *more, ""])


def shown(key):
    return (("authorization", f"Bearer {key}"),)


def write(path, *entries):
    """Replace the file as a whole, as Kubernetes does with a Secret."""
    fresh = path.with_suffix(".new")
    fresh.write_text("\n".join(entries))
    os.replace(fresh, path)


@pytest.fixture
def keys_path(tmp_path):
    path = tmp_path / "keys.toml"
    write(path, entry("studio", STUDIO), entry("radio", RADIO, 'services = ["orchestrator"]'))
    return path


async def refusal(call):
    """The code, the reason and the retry time of a call that is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    details = rpc_status.from_call(caught.value).details
    assert any(detail.Unpack(info) for detail in details)
    has_retry = any(detail.Unpack(retry) for detail in details)
    return caught.value, info.reason, retry.retry_delay.ToNanoseconds() / 1e9 if has_retry else None


async def test_nobody_is_served_without_a_key_that_is_known(house_with, keys_path):
    async with house_with(api_keys_path=keys_path) as house:
        assert (await house.stub.ListModels(LIST, metadata=shown(STUDIO))).models
        for metadata, expected in (
            ((), "API_KEY_MISSING"),
            ((("authorization", STUDIO),), "API_KEY_MISSING"),
            (shown(STUDIO[:-1]), "API_KEY_UNKNOWN"),
            (shown(STUDIO.upper()), "API_KEY_UNKNOWN"),
            (shown(digest_of(STUDIO)), "API_KEY_UNKNOWN"),
        ):
            error, reason, _ = await refusal(house.stub.ListModels(LIST, metadata=metadata))
            assert (error.code(), reason) == (grpc.StatusCode.UNAUTHENTICATED, expected)
        count = house.servers["orchestrator"].metrics.registry.get_sample_value
        assert count("stretto_door_refusals_total", {"reason": "API_KEY_UNKNOWN"}) == 3


async def test_a_stage_behind_the_door_is_guarded_as_the_door_is_and_never_sees_the_key(house_with, keys_path):
    async with house_with(api_keys_path=keys_path) as house:
        codec = codec_pb2_grpc.CodecServiceStub(house.channel)
        error, reason, _ = await refusal(codec.ListModels(codec_pb2.ListModelsRequest()))
        assert (error.code(), reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_MISSING")
        seen = []
        house.codec.ListModels = keeping_metadata(seen)
        await restart_codec(house)
        await codec.ListModels(codec_pb2.ListModelsRequest(), metadata=shown(STUDIO))
        await house.stub.ListModels(LIST, metadata=shown(STUDIO))
        assert len(seen) == 2 and all("x-request-id" in keys for keys in seen)
        assert not any("authorization" in keys for keys in seen)


def keeping_metadata(seen):
    async def list_models(request, context):
        seen.append({key for key, _ in context.invocation_metadata()})
        return codec_pb2.ListModelsResponse()

    return list_models


async def restart_codec(house):
    await house.servers["codec"].stop()
    await house.start_stage("codec", house.ports["codec"])


async def test_a_key_for_some_services_is_denied_the_others(house_with, keys_path):
    async with house_with(api_keys_path=keys_path) as house:
        assert (await house.stub.ListModels(LIST, metadata=shown(RADIO))).models
        codec = codec_pb2_grpc.CodecServiceStub(house.channel)
        error, reason, _ = await refusal(codec.ListModels(codec_pb2.ListModelsRequest(), metadata=shown(RADIO)))
        assert (error.code(), reason) == (grpc.StatusCode.PERMISSION_DENIED, "SERVICE_NOT_ALLOWED")
        assert "codec" in error.details()


async def test_health_is_for_all_and_reflection_for_those_with_a_key(house_with, keys_path):
    async with house_with(api_keys_path=keys_path) as house:
        health = health_pb2_grpc.HealthStub(house.channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(house.channel)
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in reflection.ServerReflectionInfo(iter(asked)):
                pass
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        answers = reflection.ServerReflectionInfo(iter(asked), metadata=shown(RADIO))
        assert [answer.list_services_response.service async for answer in answers]


async def test_the_rate_of_one_key_is_its_own_and_the_refusal_says_when_to_come_again(house_with, keys_path):
    write(keys_path, entry("studio", STUDIO, "requests_per_minute = 1"), entry("radio", RADIO))
    async with house_with(api_keys_path=keys_path) as house:
        await house.stub.ListModels(LIST, metadata=shown(STUDIO))
        error, reason, retry_s = await refusal(house.stub.ListModels(LIST, metadata=shown(STUDIO)))
        assert (error.code(), reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert retry_s is not None and 0 < retry_s <= 60
        await house.stub.ListModels(LIST, metadata=shown(RADIO))


async def test_the_requests_of_one_key_at_once_are_limited_until_one_ends(
    house_with, keys_path, request_music, eventually
):
    write(keys_path, entry("studio", STUDIO), entry("radio", RADIO))
    async with house_with(api_keys_path=keys_path, max_requests_at_once=1) as house:
        house.acoustic.watched.gate = asyncio.Event()
        call = house.stub.GenerateMusic(request_music(), metadata=shown(STUDIO))
        reading = asyncio.create_task(call.read())
        await eventually(lambda: house.acoustic.requests)
        error, reason, retry_s = await refusal(house.stub.ListModels(LIST, metadata=shown(STUDIO)))
        assert (error.code(), reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_AT_ONCE") and retry_s
        await house.stub.ListModels(LIST, metadata=shown(RADIO))
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        count = house.servers["orchestrator"].metrics.registry.get_sample_value
        method = {"method": "/stretto.orchestrator.v1.OrchestratorService/GenerateMusic"}
        await eventually(lambda: count("stretto_rpc_in_flight", method) == 0)
        await house.stub.ListModels(LIST, metadata=shown(STUDIO))


async def test_a_request_that_is_too_large_in_all_is_refused_however_small_its_messages(house_with, keys_path):
    write(keys_path, entry("studio", STUDIO, "request_bytes = 2500"), entry("radio", RADIO))
    async with house_with(api_keys_path=keys_path) as house:
        codec = codec_pb2_grpc.CodecServiceStub(house.channel)
        tokens = convert.tokens_to_proto(TokenMatrix(np.full((2, 25), 9), 50, "tinycodec@aaaaaaaaaaaa"))
        messages = [codec_pb2.DecodeTokensRequest(config=codec_pb2.DecodeConfig(model="tinycodec"))]
        messages += [codec_pb2.DecodeTokensRequest(tokens=tokens)] * 40
        assert max(message.ByteSize() for message in messages) < 250

        async def decode(key):
            return [response async for response in codec.DecodeTokens(iter(messages), metadata=shown(key))]

        assert await decode(RADIO)
        error, reason, _ = await refusal(decode(STUDIO))
        assert (error.code(), reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE")
        big = orchestrator_pb2.GenerateMusicRequest(prompt="p" * 3000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await house.stub.GenerateMusic(big, metadata=shown(STUDIO)).read()
        assert "2500 bytes" in caught.value.details()


async def test_neither_logs_nor_errors_hold_a_key_and_logs_name_its_holder(keys_path, house_with):
    stream = io.StringIO()
    log = make_logger("debug", as_json=True, stream=stream)
    async with house_with() as house:
        addresses = {f"{name}_address": f"127.0.0.1:{house.ports[name]}" for name in ADD}
        settings = OrchestratorSettings(api_keys_path=keys_path, **addresses)
        door = {"orchestrator": lambda context: build(context, settings)}
        house.servers["second"] = StrettoServer(GrpcSettings(port=0), door, log=log)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{await house.servers['second'].start()}") as channel:
            await house.servers["second"].wait_until_ready()
            stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
            await stub.ListModels(LIST, metadata=shown(STUDIO))
            error, _, _ = await refusal(stub.ListModels(LIST, metadata=shown(GONE)))
        written = stream.getvalue()
        for key in (STUDIO, GONE):
            for secret in (key, digest_of(key)):
                assert secret not in written + error.details() + str(error.trailing_metadata())
        lines = [json.loads(line) for line in written.splitlines()]
        assert [line.get("caller") for line in lines if line["event"] == "rpc"] == ["studio", None]


def test_the_file_is_read_again_when_it_changes_and_a_wrong_one_is_not_taken(keys_path):
    now_s, stream = [0.0], io.StringIO()
    log = make_logger("info", as_json=True, stream=stream)
    keys = KeyFile(keys_path, Limits(requests_at_once=3), log, now_s=lambda: now_s[0])
    assert keys.caller_of(STUDIO).limits == Limits(requests_at_once=3) and keys.caller_of(GONE) is None
    write(keys_path, entry("gone", GONE, "requests_at_once = 5"))
    assert keys.caller_of(GONE) is None, "it looks once a second"
    now_s[0] += 1.0
    assert keys.caller_of(GONE).limits.requests_at_once == 5 and keys.caller_of(STUDIO) is None
    write(keys_path, "[keys.gone]", f'sha256 = "{GONE}"')
    now_s[0] += 1.0
    assert keys.caller_of(GONE).name == "gone"
    keys_path.unlink()
    now_s[0] += 1.0
    assert keys.caller_of(GONE).name == "gone"
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["api_keys_read", "api_keys_not_taken", "api_keys_not_taken"] and GONE not in stream.getvalue()


def test_two_digests_let_two_keys_in_while_one_is_replaced():
    text = f'[keys.studio]\nsha256 = ["{digest_of(STUDIO)}", "{digest_of(RADIO)}"]\n'
    assert {caller.name for caller in parse_keys(text, Limits()).values()} == {"studio"}
    assert len(parse_keys(text, Limits())) == 2


async def test_a_key_that_has_ended_is_refused_by_name(house_with, keys_path):
    now = datetime.datetime.now(datetime.UTC)
    past, future = (now + datetime.timedelta(hours=hours) for hours in (-1, 1))
    write(
        keys_path,
        entry("gone", GONE, f"expires = {past.isoformat()}"),
        entry("studio", STUDIO, f"expires = {future.isoformat()}"),
    )
    async with house_with(api_keys_path=keys_path) as house:
        assert (await house.stub.ListModels(LIST, metadata=shown(STUDIO))).models
        error, reason, _ = await refusal(house.stub.ListModels(LIST, metadata=shown(GONE)))
        assert (error.code(), reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_EXPIRED")


SECRET = "stretto_pasted-in-place-of-its-digest"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a table"),
        ("keys = 3", "expected a table"),
        ("[keys.a]", "keys.a.sha256: expected the SHA-256"),
        (f'[keys.a]\nsha256 = "{SECRET}"', "keys.a.sha256: expected the SHA-256"),
        (f"[keys.a]\nsha256 = {SECRET}", "api_keys: expected TOML"),
        (f'[keys.a]\n{SECRET} = ""', "expected only sha256"),
        (f"[other]\n{entry('a', STUDIO)}", "expected a table"),
        (entry("a", STUDIO, "requests_at_once = -1"), "keys.a.requests_at_once: expected a whole number"),
        (entry("a", STUDIO, "requests_at_once = true"), "keys.a.requests_at_once: expected a whole number"),
        (entry("a", STUDIO, 'request_bytes = "9"'), "keys.a.request_bytes: expected a whole number"),
        (entry("a", STUDIO, 'services = "codec"'), "keys.a.services: expected a list"),
        (entry("a", STUDIO, "expires = 2027-01-01"), "keys.a.expires: expected a time with its zone"),
        (entry("a", STUDIO) + entry("b", STUDIO), "keys.b.sha256: expected a key of its own"),
        (entry('"a b"', STUDIO), "expected tables"),
    ],
)
def test_a_file_that_is_wrong_is_named_and_its_secrets_are_not_repeated(text, said):
    with pytest.raises(InvalidInput, match=said) as caught:
        parse_keys(text, Limits())
    assert SECRET not in str(caught.value)


def test_a_door_whose_file_is_missing_does_not_open(tmp_path):
    settings = OrchestratorSettings(api_keys_path=tmp_path / "none.toml")
    with pytest.raises(InvalidSetting, match=r"STRETTO_ORCHESTRATOR_API_KEYS_PATH.*none\.toml"):
        build(HostContext(loopback_address="unix:/nowhere"), settings)


def test_the_bucket_fills_evenly_and_holds_a_tenth_of_a_minute():
    now_s = [0.0]
    meter = Meter(Limits(requests_per_minute=60), now_s=lambda: now_s[0])

    def begin(count):
        for _ in range(count):
            with meter.admitted():
                pass

    begin(6)
    with pytest.raises(Overloaded) as caught:
        begin(1)
    assert caught.value.retry_after_s == pytest.approx(1.0)
    now_s[0] += caught.value.retry_after_s
    begin(1)
    with pytest.raises(Overloaded):
        begin(1)
    now_s[0] += 1000.0
    begin(6)
    with pytest.raises(Overloaded):
        begin(1)


def test_a_request_that_was_refused_takes_nothing_away_and_a_failed_one_gives_its_place_back():
    meter = Meter(Limits(requests_at_once=1))
    with meter.admitted():
        for _ in range(3):
            with pytest.raises(Overloaded), meter.admitted():
                pass
        assert meter.num_in_flight == 1
    with pytest.raises(ValueError), meter.admitted():
        raise ValueError
    assert meter.num_in_flight == 0


def test_new_keys_differ_and_are_long():
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100 and min(map(len, keys)) >= 43 + len("stretto_")
