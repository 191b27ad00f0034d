"""Old clients go on: a wire that would break them is caught, before anybody speaks it."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from real_server import ROOT

BUF = Path(sys.executable).with_name("buf")


def breaks(protos: Path) -> subprocess.CompletedProcess[str]:
    command = [str(BUF), "breaking", "--against", str(ROOT / "protos" / "published.binpb")]
    return subprocess.run(command, cwd=protos, capture_output=True, text=True, timeout=120)


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "protos" / "stretto", tmp_path / "stretto")
    shutil.copy(ROOT / "protos" / "buf.yaml", tmp_path)
    return tmp_path


def change(protos: Path, old: str, new: str) -> None:
    path = protos / "stretto" / "orchestrator" / "v1" / "orchestrator.proto"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_wire_breaks_no_client_that_knew_it(protos: Path) -> None:
    done = breaks(protos)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("string prompt = 2;", "string prompt = 90;", 'Previously present field "2"'),
        ("string prompt = 2;", "string text = 2;", '"prompt" to "text"'),
        ("string prompt = 2;", "bytes prompt = 2;", '"string" to "bytes"'),
        ("rpc GenerateMusic(", "rpc MakeMusic(", '"GenerateMusic"'),
    ],
)
def test_a_break_is_named(protos: Path, old: str, new: str, said: str) -> None:
    change(protos, old, new)
    done = breaks(protos)
    assert done.returncode != 0 and said in done.stdout, done.stdout


def test_a_new_field_is_none(protos: Path) -> None:
    change(protos, "string prompt = 2;", "string prompt = 2;\n  // More.\n  string more = 91;")
    assert breaks(protos).returncode == 0


async def test_a_client_of_the_published_wire_is_served(door: Any) -> None:
    """It speaks by the descriptors of old, and reads what it knows of the answers."""
    files = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "protos" / "published.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    method = pool.FindServiceByName("stretto.orchestrator.v1.OrchestratorService").methods_by_name["GenerateMusic"]
    request_kind, response_kind = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
    num_samples = 0
    async with grpc.aio.insecure_channel(door.address) as channel:
        generate = channel.unary_stream(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=response_kind.FromString,
        )
        async for response in generate(request_kind(prompt="a flute", duration_s=0.5, seed=3), timeout=300):
            num_samples += len(response.chunk.waveform.samples) // 4
    assert response.WhichOneof("payload") == "receipt" and response.receipt.seed == 3 and response.receipt.models
    assert num_samples == round(0.5 * response_rate(response))


def response_rate(response: Any) -> int:
    """The rate of the codec that the receipt names."""
    return next(model.sample_rate_hz for model in response.receipt.models if model.service == "codec")
