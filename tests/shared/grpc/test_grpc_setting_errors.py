"""What an operator set wrongly is said in the operator's words: the variable, its value, and what it may be."""

from __future__ import annotations

import os
import subprocess
import sys

import pydantic
import pytest
from stretto_orchestrator.settings import OrchestratorSettings
from stretto_shared.grpc.setting_errors import InvalidSetting, named_settings
from stretto_shared.grpc.settings import ChannelSettings, GrpcSettings

CASCADES = "STRETTO_ORCHESTRATOR_EXTRA_CASCADES"
ADDRESSES = [
    f"STRETTO_ORCHESTRATOR_{stage}_ADDRESS"
    for stage in ("EMBEDDING", "SEMANTIC", "ACOUSTIC", "CODEC", "TRANSCRIBER", "HARMONY")
]


def read(kind: type) -> None:
    with named_settings():
        kind()


@pytest.mark.parametrize(
    ("kind", "variable", "value", "allowed"),
    [
        (ChannelSettings, "STRETTO_CHANNEL_MAX_ATTEMPTS", "9", "expected less than or equal to 5, got '9'"),
        (GrpcSettings, "STRETTO_GRPC_METRICS_PORT", "abc", "expected a valid integer"),
        (GrpcSettings, "STRETTO_GRPC_LOG_LEVEL", "loud", "expected 'debug', 'info', 'warning' or 'error', got 'loud'"),
        (ChannelSettings, "STRETTO_CHANNEL_TLS", "maybe", "expected a valid boolean"),
        (OrchestratorSettings, CASCADES, "nonsense", "expected JSON, got 'nonsense'"),
        (
            OrchestratorSettings,
            CASCADES,
            '{"mine": {"text": "t5"}}',
            "text_model, acoustic_model, codec_model in cascade",
        ),
        (OrchestratorSettings, CASCADES, '{"mine": {"name": "t5"}}', "in cascade 'mine', got 'name'"),
        (OrchestratorSettings, CASCADES, '{"mine": {"text_model": 5}}', "expected a name as text_model"),
    ],
)
def test_a_wrong_setting_names_its_variable_its_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, kind: type, variable: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSetting) as caught:
        read(kind)
    assert caught.value.field == variable
    assert caught.value.message.startswith(f"{variable}: ") and allowed in caught.value.message
    assert "pydantic" not in caught.value.message and "\n" not in caught.value.message


def test_several_wrong_settings_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRETTO_GRPC_PORT", "-1")
    monkeypatch.setenv("STRETTO_GRPC_DRAIN_S", "soon")
    with pytest.raises(
        InvalidSetting, match=r"STRETTO_GRPC_PORT: .*got '-1'.*STRETTO_GRPC_DRAIN_S: .*got 'soon'"
    ) as caught:
        read(GrpcSettings)
    assert caught.value.field == "STRETTO_GRPC_PORT"


def test_settings_that_do_not_go_together_keep_their_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRETTO_GRPC_TLS_CERT_PATH", "/a.pem")
    with pytest.raises(InvalidSetting, match=r"STRETTO_GRPC_\*: tls_cert_path and tls_key_path belong together"):
        read(GrpcSettings)


def test_a_model_that_is_nobodys_settings_keeps_its_own_error() -> None:
    class Other(pydantic.BaseModel):
        size: int

    with pytest.raises(pydantic.ValidationError), named_settings():
        Other(size="large")


@pytest.mark.parametrize(
    ("environment", "addresses", "status", "said"),
    [
        ({"STRETTO_GRPC_METRICS_PORT": "abc"}, ADDRESSES, 2, "STRETTO_GRPC_METRICS_PORT: expected a valid integer"),
        ({CASCADES: '{"mine": {"text": "t5"}}'}, ADDRESSES, 2, f"{CASCADES}: expected the keys"),
        ({}, [], 2, "STRETTO_ORCHESTRATOR_EMBEDDING_ADDRESS: is required"),
        ({"STRETTO_GRPC_HOST": "not.a.host.invalid"}, ADDRESSES, 1, "Cannot listen on not.a.host.invalid"),
    ],
)
def test_a_service_that_cannot_begin_says_one_line(
    environment: dict[str, str], addresses: list[str], status: int, said: str
) -> None:
    stages = dict.fromkeys(addresses, "127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "stretto_orchestrator.main"],
        env=os.environ | stages | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == status
    assert done.stderr.splitlines()[-1].startswith(f"stretto: {said}")
    assert "Traceback" not in done.stderr
