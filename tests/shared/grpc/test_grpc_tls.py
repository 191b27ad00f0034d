"""TLS and mTLS with certificates made for the test."""

from __future__ import annotations

import asyncio
import socket

import grpc
import pytest
from authority import Authority
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto_shared.errors import NotReady
from stretto_shared.grpc.settings import ChannelSettings, GrpcSettings
from stretto_shared.grpc.tls import server_credentials

REQUEST = codec_pb2.EncodeAudioRequest()


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


async def refused(stub):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.EncodeAudio(REQUEST, timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_encrypted_call_works_and_a_plain_one_is_refused(serve, authority):
    cert_path, key_path = authority.issue("server")
    served = await serve(tls_cert_path=cert_path, tls_key_path=key_path, channel={"tls_ca_path": authority.ca_path})
    assert await served.codec.EncodeAudio(REQUEST, timeout=60) == codec_pb2.EncodeAudioResponse()
    plain = serve.open(served.address, max_attempts=1, health_checking=False)
    await refused(codec_pb2_grpc.CodecServiceStub(plain))


async def test_mtls_takes_a_known_client_and_refuses_one_without_or_with_a_foreign_certificate(
    serve, authority, tmp_path
):
    cert_path, key_path = authority.issue("server")
    client_cert_path, client_key_path = authority.issue("client")
    (tmp_path / "foreign").mkdir()
    foreign_cert_path, foreign_key_path = Authority(tmp_path / "foreign", "foreign").issue("client")
    known = {"tls_ca_path": authority.ca_path, "tls_cert_path": client_cert_path, "tls_key_path": client_key_path}
    foreign = {**known, "tls_cert_path": foreign_cert_path, "tls_key_path": foreign_key_path}
    served = await serve(
        tls_cert_path=cert_path, tls_key_path=key_path, tls_client_ca_path=authority.ca_path, channel=known
    )
    assert await served.codec.EncodeAudio(REQUEST, timeout=60) == codec_pb2.EncodeAudioResponse()
    for other in ({"tls_ca_path": authority.ca_path}, foreign):
        channel = serve.open(served.address, max_attempts=1, health_checking=False, **other)
        await refused(codec_pb2_grpc.CodecServiceStub(channel))


async def test_only_the_named_are_served_of_those_with_a_certificate_and_health_is_for_all(serve, authority):
    cert_path, key_path = authority.issue("server")
    port = free_port()

    def as_client(name):
        own_cert_path, own_key_path = authority.issue(name)
        return {"tls_ca_path": authority.ca_path, "tls_cert_path": own_cert_path, "tls_key_path": own_key_path}

    served = await serve(
        tls_cert_path=cert_path,
        tls_key_path=key_path,
        tls_client_ca_path=authority.ca_path,
        tls_client_names="another, orchestrator",
        health_port=port,
        channel=as_client("orchestrator"),
    )
    assert await served.codec.EncodeAudio(REQUEST, timeout=60) == codec_pb2.EncodeAudioResponse()
    channel = serve.open(served.address, max_attempts=1, health_checking=False, **as_client("harmony"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await codec_pb2_grpc.CodecServiceStub(channel).EncodeAudio(REQUEST, timeout=60)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "PEER_NOT_NAMED" in str(caught.value.trailing_metadata())
    assert (await health_of(channel)) == health_pb2.HealthCheckResponse.SERVING


async def health_of(channel):
    return (await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)).status


async def test_the_health_port_answers_health_in_plain_text_and_nothing_else_until_the_server_drains(serve, authority):
    cert_path, key_path = authority.issue("server")
    port = free_port()
    codec = serve.fake()
    began, let_go = asyncio.Event(), asyncio.Event()

    async def encode(request, context):
        began.set()
        await let_go.wait()
        return codec_pb2.EncodeAudioResponse()

    codec.encode = encode
    served = await serve(
        codec,
        tls_cert_path=cert_path,
        tls_key_path=key_path,
        health_port=port,
        channel={"tls_ca_path": authority.ca_path},
    )
    probe = serve.open(f"127.0.0.1:{port}", max_attempts=1, health_checking=False)
    assert await health_of(probe) == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await codec_pb2_grpc.CodecServiceStub(probe).EncodeAudio(REQUEST, timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    call = asyncio.ensure_future(served.codec.EncodeAudio(REQUEST, timeout=60))
    await began.wait()
    stopping = asyncio.create_task(served.server.stop())
    async with asyncio.timeout(60):
        while await health_of(probe) == health_pb2.HealthCheckResponse.SERVING:  # noqa: ASYNC110  it is another's
            await asyncio.sleep(0.01)
    let_go.set()
    await asyncio.gather(call, stopping)
    with pytest.raises(grpc.aio.AioRpcError):
        await health_of(probe)


async def test_a_health_port_that_is_taken_is_named(serve):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(NotReady, match=f"Cannot answer health on 127.0.0.1:{taken.getsockname()[1]}"):
            await serve(health_port=taken.getsockname()[1])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_half_a_tls_setting_is_refused_at_once(tmp_path):
    with pytest.raises(ValidationError, match="tls_key_path"):
        GrpcSettings(tls_cert_path=tmp_path / "a.crt")
    with pytest.raises(ValidationError, match="tls_client_ca_path"):
        GrpcSettings(tls_client_ca_path=tmp_path / "ca.pem")
    with pytest.raises(ValidationError, match="tls_client_names needs tls_client_ca_path"):
        GrpcSettings(tls_client_names="orchestrator")
    with pytest.raises(ValidationError, match="tls_key_path"):
        ChannelSettings(tls_cert_path=tmp_path / "a.crt")


def test_a_missing_certificate_names_its_setting_and_path(tmp_path):
    settings = GrpcSettings(tls_cert_path=tmp_path / "a.crt", tls_key_path=tmp_path / "a.key")
    with pytest.raises(NotReady, match=r"tls_key_path.*a\.key"):
        server_credentials(settings)


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("STRETTO_GRPC_PORT", "1234")
    monkeypatch.setenv("STRETTO_GRPC_LOG_JSON", "true")
    monkeypatch.setenv("STRETTO_CHANNEL_MAX_ATTEMPTS", "2")
    assert (GrpcSettings().port, GrpcSettings().log_json, ChannelSettings().max_attempts) == (1234, True, 2)
