"""The settings of the component mtls on a real server: who is served, and by what the kubelet probes."""

import datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from real_server import free_port
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto_deploy.objects.changes import TLS_FOLDER, mtls_settings
from stretto_deploy.table import Table
from stretto_shared.grpc.hosting import load_builders
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings

SERVING = health_pb2.HealthCheckResponse.SERVING
PEM = serialization.Encoding.PEM


class Authority:
    """What cert-manager does: a Secret's three files for each name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        self._own = self._certificate(self._name, self._key).add_extension(constraint, True)
        self._certified = self._own.sign(self._key, hashes.SHA256())

    def issue(self, name: str) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.DNSName(name), x509.DNSName("localhost")])
        made = self._certificate(subject, key).add_extension(names, False).sign(self._key, hashes.SHA256())
        folder = self._folder / name
        folder.mkdir()
        plain = serialization.NoEncryption()
        (folder / "tls.crt").write_bytes(made.public_bytes(PEM))
        (folder / "tls.key").write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, plain))
        (folder / "ca.crt").write_bytes(self._certified.public_bytes(PEM))
        return folder

    def _certificate(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        return made.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)


def channel_of(folder: Path, port: int) -> grpc.aio.Channel:
    files = [(folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
    return grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(*files))


async def test_a_model_serves_the_door_alone_and_probes_need_no_certificate(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = next(service for service in table.service if service.name == "codec")
    authority = Authority(tmp_path)
    folders = {name: authority.issue(name) for name in ("stretto-codec", "stretto-orchestrator", "stretto-embedding")}
    for name, value in mtls_settings(table, codec).items():
        monkeypatch.setenv(name, value.replace(TLS_FOLDER, str(folders["stretto-codec"])))
    health_port = free_port()
    server = StrettoServer(GrpcSettings(port=0, health_port=health_port), load_builders(["codec"]))
    port = await server.start()
    try:
        await server.wait_until_ready()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{health_port}") as plain:
            asked = await health_pb2_grpc.HealthStub(plain).Check(health_pb2.HealthCheckRequest())
            assert asked.status == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as unserved:
                await codec_pb2_grpc.CodecServiceStub(plain).ListModels(codec_pb2.ListModelsRequest())
            assert unserved.value.code() is grpc.StatusCode.UNIMPLEMENTED
        async with channel_of(folders["stretto-orchestrator"], port) as door:
            assert (await codec_pb2_grpc.CodecServiceStub(door).ListModels(codec_pb2.ListModelsRequest())).models
        async with channel_of(folders["stretto-embedding"], port) as neighbour:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await codec_pb2_grpc.CodecServiceStub(neighbour).ListModels(codec_pb2.ListModelsRequest())
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    finally:
        await server.stop()
