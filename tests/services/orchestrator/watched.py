"""What the tests look at of a fake stage, and the faults that they set."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from stretto_shared.errors import NotReady
from stretto_shared.features import ModelInfo

RATE_HZ = 8_000
FRAME_RATE_HZ = 50.0
HOP = 160
NUM_CODEBOOKS = 2


def model_info(service: str, name: str, digest: str = "a") -> ModelInfo:
    return ModelInfo(
        name=name, service=service, digest_sha256=digest * 64, licence="Apache-2.0", is_default=True,
        sample_rate_hz=RATE_HZ if service == "codec" else 0, frame_rate_hz=FRAME_RATE_HZ, num_codebooks=NUM_CODEBOOKS,
    )  # fmt: skip


@dataclass
class Watched:
    """What the tests look at, and the faults that they set; `refusals` are those of the next calls, one each."""

    num_calls: int = 0
    num_cancelled: int = 0
    num_active: int = 0
    remaining_s: float | None = None
    lose_after: list[int] = field(default_factory=list)
    error: Exception | None = None
    refusals: list[Exception | None] = field(default_factory=list)
    gate: asyncio.Event | None = None
    step_s: float = 0.0
    num_sent: int = 0
    info: ModelInfo | None = None
    info_after_loss: ModelInfo | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    requests: list = field(default_factory=list)
    num_lost_unheard: int = 0

    def lose(self, lose_after):
        """One message was sent; raise if the stream is lost after it. Gives how many are left."""
        self.num_sent += 1
        if lose_after == 1:
            self.info = self.info_after_loss or self.info
            raise NotReady("This replica is going away.")
        return lose_after and lose_after - 1

    @asynccontextmanager
    async def call(self, context):
        self.num_calls += 1
        self.num_active += 1
        self.remaining_s = context.time_remaining()
        self.metadata = dict(context.invocation_metadata() or ())
        try:
            refusal = self.refusals.pop(0) if self.refusals else self.error
            if refusal is not None:
                raise refusal
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.num_cancelled += 1
            raise
        finally:
            self.num_active -= 1
