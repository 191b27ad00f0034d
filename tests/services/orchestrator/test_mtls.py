"""With mTLS the stages answer the door and nobody else, and callers come in by their own certificates."""

import asyncio

import grpc
import pytest
from authority import Authority
from fake_stages import ADD, House, host_of
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from stretto_orchestrator.main import build
from stretto_orchestrator.settings import OrchestratorSettings
from stretto_shared.grpc import certificates
from stretto_shared.grpc.channel import open_channel
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import ChannelSettings, GrpcSettings

LIST = orchestrator_pb2.ListModelsRequest()
OF_CODEC = codec_pb2.ListModelsRequest()


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


def served_as(authority, name, **settings):
    cert_path, key_path = authority.issue(name)
    return GrpcSettings(
        port=0, drain_s=0.0, log_level="error", tls_cert_path=cert_path, tls_key_path=key_path,
        tls_client_ca_path=authority.ca_path, **settings,
    )  # fmt: skip


def calling_as(authority, name):
    cert_path, key_path = authority.issue(name)
    return {"tls_ca_path": authority.ca_path, "tls_cert_path": cert_path, "tls_key_path": key_path}


@pytest.fixture
async def start(authority, monkeypatch):
    """Starts the stages, and doors that call them by a name; stops all in the end."""
    house, channels = House(), []
    addresses = {}
    for name in ADD:
        settings = served_as(authority, name, tls_client_names="stretto-orchestrator")
        house.servers[name] = StrettoServer(settings, {name: host_of(name, getattr(house, name))})
        addresses[f"{name}_address"] = f"127.0.0.1:{await house.servers[name].start()}"

    async def door(name, **settings):
        for key, value in calling_as(authority, name).items():
            monkeypatch.setenv(f"STRETTO_CHANNEL_{key}".upper(), str(value))
        made = OrchestratorSettings(**addresses, **settings)
        server = StrettoServer(served_as(authority, "door"), {"orchestrator": lambda context: build(context, made)})
        house.servers[f"door of {name}"] = server
        return f"127.0.0.1:{await server.start()}"

    def channel(address, name):
        channels.append(open_channel(address, ChannelSettings(max_attempts=1, **calling_as(authority, name))))
        return channels[-1]

    async def restart(name):
        """A stage anew on its port, with whatever certificate its files hold now."""
        await house.servers[name].stop()
        port = int(addresses[f"{name}_address"].rpartition(":")[2])
        made = served_as(authority, name, tls_client_names="stretto-orchestrator").model_copy(update={"port": port})
        house.servers[name] = StrettoServer(made, {name: host_of(name, getattr(house, name))})
        await house.servers[name].start()

    door.restart, door.servers = restart, house.servers
    yield addresses, door, channel
    for opened in channels:
        await opened.close()
    await house.stop()


async def failure(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in rpc_status.from_call(caught.value).details)
    return caught.value, info.reason


async def test_the_stages_answer_the_door_and_nobody_else(start):
    addresses, door, channel = start
    address = await door("stretto-orchestrator")
    listed = await orchestrator_pb2_grpc.OrchestratorServiceStub(channel(address, "studio")).ListModels(LIST)
    assert listed.models and not listed.unreachable_services
    codec = codec_pb2_grpc.CodecServiceStub(channel(addresses["codec_address"], "studio"))
    error, reason = await failure(codec.ListModels(OF_CODEC))
    assert (error.code(), reason) == (grpc.StatusCode.PERMISSION_DENIED, "PEER_NOT_NAMED")


async def test_a_door_that_the_stages_do_not_know_says_so_and_blames_no_caller(start):
    _, door, channel = start
    opened = channel(await door("somebody"), "studio")
    error, reason = await failure(codec_pb2_grpc.CodecServiceStub(opened).ListModels(OF_CODEC))
    assert (error.code(), reason) == (grpc.StatusCode.UNAVAILABLE, "STAGE_SHUT")
    music = orchestrator_pb2.GenerateMusicRequest(prompt="a waltz", duration_s=1.0)
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(opened)

    async def generate():
        return [event async for event in stub.GenerateMusic(music)]

    error, reason = await failure(generate())
    assert (error.code(), reason) == (grpc.StatusCode.UNAVAILABLE, "STAGE_SHUT")
    assert "does not answer this server" in error.details()


async def test_callers_without_keys_are_known_by_their_certificates_and_limited_each(start):
    _, door, channel = start
    address = await door("stretto-orchestrator", max_requests_per_minute=1)
    studio, radio = (
        orchestrator_pb2_grpc.OrchestratorServiceStub(channel(address, name)) for name in ("studio", "radio")
    )
    await studio.ListModels(LIST)
    error, reason = await failure(studio.ListModels(LIST))
    assert (error.code(), reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert (await radio.ListModels(LIST)).models


async def test_the_door_takes_up_new_certificates_without_a_restart(start, authority, monkeypatch):
    monkeypatch.setattr(certificates, "CHECK_EVERY_S", 0.0)
    _, door, channel = start
    address = await door("stretto-orchestrator")
    before = orchestrator_pb2_grpc.OrchestratorServiceStub(channel(address, "studio"))
    assert not (await before.ListModels(LIST)).unreachable_services
    metrics = door.servers["door of stretto-orchestrator"].metrics.registry
    expiry = "stretto_tls_certificate_expiry_timestamp_seconds"
    seen = {side: metrics.get_sample_value(expiry, {"side": side}) for side in ("server", "client")}
    assert None not in seen.values()

    renewed = Authority(authority.folder, "authority")  # writes over the other's file
    for name in (*ADD, "door", "stretto-orchestrator", "studio"):
        renewed.issue(name, days=3)
    authority.key = renewed.key
    await door.restart("codec")  # knows the new authority alone
    async with asyncio.timeout(60):
        while (await before.ListModels(LIST)).unreachable_services:  # noqa: ASYNC110  it is another's
            await asyncio.sleep(0.05)
    after = orchestrator_pb2_grpc.OrchestratorServiceStub(channel(address, "studio"))
    assert not (await after.ListModels(LIST)).unreachable_services
    for side, expiry_s in seen.items():
        assert metrics.get_sample_value(expiry, {"side": side}) > expiry_s + 86_400
