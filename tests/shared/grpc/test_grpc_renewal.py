"""Certificates that are rotated under a server and its clients while calls run."""

from __future__ import annotations

import asyncio
import os

import grpc
import pytest
from authority import Authority
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto_shared.grpc import certificates
from stretto_shared.grpc.renewal import RenewedChannel
from stretto_shared.grpc.settings import ChannelSettings
from stretto_shared.grpc.tls import watched_certificates

EXPIRY, FAILURES = "stretto_tls_certificate_expiry_timestamp_seconds", "stretto_tls_reload_failures_total"
SERVER = {"side": "server"}


@pytest.fixture(autouse=True)
def looked_at_always(monkeypatch):
    monkeypatch.setattr(certificates, "CHECK_EVERY_S", 0.0)


class Secret:
    """A Secret in a pod: the kubelet writes a new folder, and then moves the link that all three files go through."""

    def __init__(self, folder):
        self.folder, self._num_written = folder, 0
        folder.mkdir()
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (folder / name).symlink_to(f"..data/{name}")

    def write(self, cert, key, ca):
        self._num_written += 1
        written = self.folder / f"..{self._num_written}"
        written.mkdir()
        for name, content in (("tls.crt", cert), ("tls.key", key), ("ca.crt", ca)):
            (written / name).write_bytes(content)
        (self.folder / "..new").symlink_to(written.name)
        os.replace(self.folder / "..new", self.folder / "..data")

    @property
    def as_server(self):
        return {
            "tls_cert_path": self.folder / "tls.crt",
            "tls_key_path": self.folder / "tls.key",
            "tls_client_ca_path": self.folder / "ca.crt",
        }

    @property
    def as_client(self):
        return {
            "tls_cert_path": self.folder / "tls.crt",
            "tls_key_path": self.folder / "tls.key",
            "tls_ca_path": self.folder / "ca.crt",
        }


class Rotation:
    """Two authorities, and the Secrets of a server and a client that go from the old one to the new."""

    def __init__(self, tmp_path):
        for name in ("old", "new"):
            (tmp_path / name).mkdir()
        self.old, self.new = Authority(tmp_path / "old", "old"), Authority(tmp_path / "new", "new")
        self.server, self.client = Secret(tmp_path / "server"), Secret(tmp_path / "client")
        self.names_seen = []
        self.write(self.server, self.old, "server", self.old)
        self.write(self.client, self.old, "first", self.old)

    @staticmethod
    def write(secret, issuer, name, *trusted):
        cert_path, key_path = issuer.issue(name)
        bundle = b"".join(authority.ca_path.read_bytes() for authority in trusted)
        secret.write(cert_path.read_bytes(), key_path.read_bytes(), bundle)

    async def start(self, serve, **settings):
        codec = serve.fake()

        async def encode(request, context):
            (name,) = context.auth_context()["x509_common_name"]
            self.names_seen.append(name.decode())
            return codec_pb2.EncodeAudioResponse()

        codec.encode = encode
        return await serve(codec, **self.server.as_server, channel=self.client.as_client, **settings)

    async def until_seen_as(self, stub, name):
        """Call until the server sees this name in the caller's certificate; any call that fails raises."""
        async with asyncio.timeout(60):
            while not self.names_seen or self.names_seen[-1] != name:
                await stub.EncodeAudio(codec_pb2.EncodeAudioRequest(), timeout=60)


@pytest.fixture
def rotation(tmp_path):
    return Rotation(tmp_path)


def tokens(num_codes):
    return codec_pb2.DecodeTokensRequest(tokens={"codes": [0] * num_codes})


async def is_let_in(serve, address, settings):
    channel = serve.open(address, max_attempts=1, health_checking=False, **settings)
    try:
        await codec_pb2_grpc.CodecServiceStub(channel).EncodeAudio(codec_pb2.EncodeAudioRequest(), timeout=60)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        return False
    return True


async def test_a_rotation_to_a_new_authority_fails_no_call_and_leaves_the_old_one_outside(serve, rotation, tmp_path):
    """As authorities are rotated: all trust both, then all have new certificates, then nobody trusts the old one."""
    served = await rotation.start(serve)
    await rotation.until_seen_as(served.codec, "first")
    stream = served.codec.DecodeTokens()
    await stream.write(tokens(3))
    assert (await stream.read()).first_sample_index == 3
    outsider = Secret(tmp_path / "outsider")
    rotation.write(outsider, rotation.old, "outsider", rotation.old, rotation.new)
    assert await is_let_in(serve, served.address, outsider.as_client)

    both = (rotation.old, rotation.new)
    rotation.write(rotation.server, rotation.old, "server", *both)
    rotation.write(rotation.client, rotation.old, "second", *both)
    await rotation.until_seen_as(served.codec, "second")
    rotation.write(rotation.server, rotation.new, "server", *both)
    rotation.write(rotation.client, rotation.new, "third", *both)
    await rotation.until_seen_as(served.codec, "third")
    rotation.write(rotation.server, rotation.new, "server", rotation.new)
    rotation.write(rotation.client, rotation.new, "fourth", rotation.new)
    await rotation.until_seen_as(served.codec, "fourth")

    await stream.write(tokens(5))
    assert (await stream.read()).first_sample_index == 5  # on the connection of the first certificate
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert not await is_let_in(serve, served.address, outsider.as_client)


async def test_calls_stay_on_the_old_connection_until_the_server_has_its_part_of_the_rotation(serve, rotation):
    served = await rotation.start(serve)
    await rotation.until_seen_as(served.codec, "first")
    rotation.write(rotation.client, rotation.new, "second", rotation.new)
    for _ in range(50):
        await served.codec.EncodeAudio(codec_pb2.EncodeAudioRequest(), timeout=60)
        await asyncio.sleep(0.01)  # handshakes fail meanwhile
    assert set(rotation.names_seen) == {"first"}
    rotation.write(rotation.server, rotation.new, "server", rotation.new)
    await rotation.until_seen_as(served.codec, "second")


class Log:
    """What was logged: event and fields."""

    def __init__(self):
        self.lines = []

    def __getattr__(self, level):
        return lambda event, **fields: self.lines.append((level, event, fields))

    def of(self, event):
        return [fields for _, name, fields in self.lines if name == event]


def value(served, name):
    return served.server.metrics.registry.get_sample_value(name, SERVER)


async def test_half_written_files_leave_the_old_certificate_and_are_logged_and_counted(serve, rotation):
    log = Log()
    served = await rotation.start(serve, log=log)
    expiry_s = value(served, EXPIRY)
    assert expiry_s == certificates.expiry_s((rotation.server.folder / "tls.crt").read_bytes())
    assert value(served, FAILURES) == 0
    cert_path, key_path = rotation.new.issue("server", days=2)
    cert, key, ca = cert_path.read_bytes(), key_path.read_bytes(), rotation.old.ca_path.read_bytes()
    own_key = (rotation.server.folder / "tls.key").read_bytes()
    broken = [(cert[: len(cert) // 2], key, ca), (cert, own_key, ca), (cert, key[:-40], ca), (cert, key, ca[:-40])]
    for num_failed, files in enumerate(broken, 1):
        rotation.server.write(*files)
        num_counted = value(served, FAILURES)
        assert await is_let_in(serve, served.address, rotation.client.as_client)  # trusts the old authority alone
        assert value(served, EXPIRY) == expiry_s
        assert value(served, FAILURES) > num_counted
        assert len(log.of("certificates_not_renewed")) == num_failed
    (rotation.server.folder / "..data").unlink()
    assert value(served, EXPIRY) == expiry_s
    assert await is_let_in(serve, served.address, rotation.client.as_client)
    assert "cannot read" in log.of("certificates_not_renewed")[-1]["reason"]
    assert not log.of("certificates_renewed")

    rotation.server.write(cert, key, ca)
    assert value(served, EXPIRY) == pytest.approx(expiry_s + 2 * 86_400, abs=3600)  # on the page, without a call
    assert len(log.of("certificates_renewed")) == 1
    num_counted = value(served, FAILURES)
    assert not await is_let_in(serve, served.address, rotation.client.as_client)
    assert value(served, FAILURES) == num_counted


async def test_a_channel_counts_and_shows_its_own_certificate_too(serve, rotation):
    served = await rotation.start(serve)
    paths = ChannelSettings(**rotation.client.as_client)
    watched = watched_certificates(paths, metrics=served.server.metrics, log=Log())
    read = served.server.metrics.registry.get_sample_value
    assert read(EXPIRY, {"side": "client"}) == watched.latest().expires_at_s
    rotation.client.write(b"", b"", b"")
    assert watched.latest().expires_at_s == read(EXPIRY, {"side": "client"})
    assert read(FAILURES, {"side": "client"}) >= 2  # each look at the files


async def test_files_are_looked_at_once_in_a_while_and_the_same_contents_are_no_change(rotation, monkeypatch):
    paths = ChannelSettings(**rotation.client.as_client)
    seldom = watched_certificates(paths)
    first = seldom.latest()
    cert, key, ca = first.certificate, first.key, first.authorities
    rotation.client.write(cert, key, ca)
    assert seldom.latest() is first
    monkeypatch.setattr(certificates, "CHECK_EVERY_S", 3600.0)
    seldom.latest()
    rotation.write(rotation.client, rotation.new, "second", rotation.new)
    assert seldom.latest() is first


class FakeCall:
    def __init__(self):
        self.end = []

    def add_done_callback(self, callback):
        self.end.append(lambda: callback(self))


class FakeChannel:
    """A channel in whichever state, whose calls end when told."""

    def __init__(self, certificates):
        self.certificates, self.state, self.is_closed = certificates, grpc.ChannelConnectivity.READY, False
        self.calls = []

    def get_state(self, try_to_connect=False):
        return self.state

    def unary_unary(self, path):
        def start():
            self.calls.append(FakeCall())
            return self.calls[-1]

        return start

    async def close(self, grace=None):
        self.is_closed = True


@pytest.fixture
def renewed(rotation):
    opened = []

    def open_one(latest):
        opened.append(FakeChannel(latest))
        return opened[-1]

    return RenewedChannel(watched_certificates(ChannelSettings(**rotation.client.as_client)), open_one), opened


async def test_an_outdated_channel_is_closed_when_its_last_call_has_ended(renewed, rotation):
    channel, opened = renewed
    method = channel.unary_unary("/a")
    method(), method()
    rotation.write(rotation.client, rotation.new, "second", rotation.new)
    method()
    old, new = opened
    assert (len(old.calls), len(new.calls)) == (2, 1)
    old.calls[0].end[0]()
    await asyncio.sleep(0)
    assert not old.is_closed
    old.calls[1].end[0]()
    await asyncio.sleep(0.01)
    assert old.is_closed and not new.is_closed


@pytest.mark.parametrize(
    ("state", "is_left"),
    [("READY", False), ("CONNECTING", False), ("IDLE", True), ("TRANSIENT_FAILURE", True)],
)
async def test_a_channel_is_left_for_one_that_does_not_connect_only_when_it_does_not_either(rotation, state, is_left):
    opened = []

    def open_one(latest):
        opened.append(FakeChannel(latest))
        opened[-1].state = grpc.ChannelConnectivity.CONNECTING
        return opened[-1]

    channel = RenewedChannel(watched_certificates(ChannelSettings(**rotation.client.as_client)), open_one)
    opened[0].state = grpc.ChannelConnectivity[state]
    rotation.write(rotation.client, rotation.new, "second", rotation.new)
    channel.unary_unary("/a")()
    assert len(opened[1].calls) == is_left


async def test_closing_closes_whatever_is_open(renewed, rotation):
    channel, opened = renewed
    method = channel.unary_unary("/a")
    for number in range(3):
        method()
        if number == 1:
            opened[-1].state = grpc.ChannelConnectivity.READY
        rotation.write(rotation.client, rotation.new, f"client-{number}", rotation.new)
    opened[-1].state = grpc.ChannelConnectivity.CONNECTING
    channel.get_state()
    assert len(opened) == 4 and not any(each.is_closed for each in opened)
    await channel.close()
    assert all(each.is_closed for each in opened)
