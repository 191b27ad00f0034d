"""The table of services, `deploy/services.toml`: the one place that says what a cluster runs.

Values check themselves here, so that everything made of them may take them as they are. It knows nothing of Kubernetes
objects; `objects/` makes those.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from stretto_shared.errors import InvalidInput, NotReady

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_PATH = REPOSITORY / "deploy" / "services.toml"
SHUTDOWN_SLACK_S = 15
"""After `drain_s` a server still flushes for 5 s and stops its services."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Signal(_Strict):
    """One number by which a service is scaled: replicas = the service's value / `target`, rounded up."""

    kind: Literal["waiting", "slots", "in_flight"]
    """`waiting`: requests in the stage's queue. `slots`: slots in use, `target` being the share of a replica's slots.
    `in_flight`: RPCs being served, long streams among them."""
    target: float = Field(gt=0)
    """What one replica should have at most; for `slots` at most 1."""

    @model_validator(mode="after")
    def _share_is_one(self) -> Signal:
        if self.kind == "slots" and self.target > 1:
            raise ValueError(f"target of slots is a share, at most 1, got {self.target}. Write for example 0.8.")
        return self


class Gpu(_Strict):
    """What the overlay `gpu` changes of a service."""

    count: int = Field(ge=1, le=8)
    """Whole GPUs of one pod."""
    cpu: str
    memory: str
    startup_s: int = Field(ge=10)
    settings: dict[str, str] = {}


class Service(_Strict):
    """One service."""

    name: str = Field(pattern=r"^[a-z][a-z0-9]{1,40}$")
    """The one word of the service, everywhere."""
    role: Literal["model", "door"] = "model"
    """`door`: the only one that clients reach, and that reaches the others."""
    port: int = Field(ge=1024, le=65535)
    replicas: int = Field(ge=1)
    max_replicas: int = Field(ge=1)
    """As far as an autoscaler may go."""
    cpu: str
    """Requested; not limited, because a throttled stream stutters."""
    memory: str
    """Requested and limited."""
    startup_s: int = Field(ge=10)
    """Longest that import, reading the weights and the trials at load may take before the pod is started anew."""
    drain_s: int = Field(ge=1)
    """Longest that a stopping pod lets requests in flight finish; what is left then is resumed elsewhere."""
    weights: bool = True
    """Whether it reads checkpoints, from its folder of the volume, once their digests are those of the release."""
    packages: tuple[str, ...] = ()
    """Debian packages that its image needs beside Python."""
    settings: dict[str, str] = {}
    """Its environment, beside addresses and ports, which are derived."""
    signals: tuple[Signal, ...] = Field(min_length=1)
    gpu: Gpu | None = None

    @property
    def full_name(self) -> str:
        """On the wire, for health checks."""
        return f"stretto.{self.name}.v1.{self.name.capitalize()}Service"

    @property
    def object_name(self) -> str:
        """Of its Kubernetes objects, its image, and its DNS name."""
        return f"stretto-{self.name}"

    @property
    def is_door(self) -> bool:
        return self.role == "door"

    @model_validator(mode="after")
    def _can_grow(self) -> Service:
        if self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below replicas {self.replicas}. Raise it.")
        return self


class Table(_Strict):
    """All services, and what they share."""

    namespace: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    registry: str
    tag: str
    metrics_port: int = Field(ge=1024, le=65535)
    health_port: int = Field(ge=1024, le=65535)
    pre_stop_s: int = Field(ge=1)
    weights_gib: int = Field(ge=1)
    service: tuple[Service, ...] = Field(min_length=1)

    @property
    def door(self) -> Service:
        return next(service for service in self.service if service.is_door)

    @property
    def models(self) -> tuple[Service, ...]:
        """All services but the door."""
        return tuple(service for service in self.service if not service.is_door)

    @property
    def with_weights(self) -> tuple[Service, ...]:
        return tuple(service for service in self.service if service.weights)

    @property
    def on_gpu(self) -> tuple[Service, ...]:
        return tuple(service for service in self.service if service.gpu is not None)

    def grace_s(self, service: Service) -> int:
        """From the order to stop to SIGKILL."""
        return self.pre_stop_s + service.drain_s + SHUTDOWN_SLACK_S

    def image(self, service: Service) -> str:
        """Name of the image, without its tag."""
        return f"{self.registry}/{service.object_name}"

    @model_validator(mode="after")
    def _is_a_table(self) -> Table:
        for field in ("name", "port"):
            values = [getattr(service, field) for service in self.service]
            twice = sorted({str(value) for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"two services have the {field} {', '.join(twice)}. Give each its own.")
        taken = {service.port for service in self.service} & {self.metrics_port, self.health_port}
        if taken or self.metrics_port == self.health_port:
            raise ValueError("metrics_port, health_port and the services' ports must differ. Choose others.")
        if sum(service.is_door for service in self.service) != 1:
            raise ValueError("exactly one service has role = 'door'. Correct the others.")
        return self


def load_table(path: Path = DEFAULT_PATH) -> Table:
    """Read and check the table.

    Raises:
        NotReady: If there is no such file.
        InvalidInput: If it is not TOML, or a value is wrong; the message names each.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise NotReady(
            f"Cannot read {path} ({error.strerror}). Run in a checkout of Stretto, or name the table."
        ) from error
    try:
        return Table.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput("services.toml", f"is not TOML: {error}. Correct {path}.") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InvalidInput("services.toml", f"{wrong}. Correct {path}.") from error
