"""One level: a plan at a load, until its number of requests or its time is used up.

An open load is sent by a loop that awaits nothing but the next arrival, so that a slow answer delays no request, and
every latency counts from the second at which the request should have been sent: what the tester itself lost is in it,
and is reported apart too. Nothing of what Gil Tene calls coordinated omission is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stretto_client.bench.listener import Outcome, Status, listen
from stretto_client.bench.load import MAX_IN_FLIGHT, ClosedLoad, Load, OpenLoad, Plan
from stretto_client.bench.schedule import poisson_arrivals_s
from stretto_client.client import StrettoClient

REST_AFTER_ERROR_S = 1.0


class LevelRun:
    """One level on its way. `outcomes` grows as requests end; `run` returns when the last one has.

    Invariant: never more than `MAX_IN_FLIGHT` calls at once, and no call without a deadline.
    """

    def __init__(self, client: StrettoClient, plan: Plan, load: Load) -> None:
        self.outcomes: list[Outcome] = []
        self.num_in_flight = 0
        self._client = client
        self._plan = plan
        self._load = load
        self._num_started = 0
        self._begun_s: float | None = None

    async def run(self) -> Sequence[Outcome]:
        """Run the level; every outcome, in the order in which the requests ended."""
        self._begun_s = asyncio.get_running_loop().time()
        match self._load:
            case ClosedLoad(concurrency):
                async with asyncio.TaskGroup() as listeners:
                    for _ in range(concurrency):
                        listeners.create_task(self._listen_on())
            case OpenLoad(rate_hz):
                plan = self._plan
                arrivals_s = poisson_arrivals_s(
                    rate_hz, seed=plan.first_seed, max_count=plan.max_requests, max_s=plan.run_s
                )
                async with asyncio.TaskGroup() as calls:
                    for index, at_s in enumerate(arrivals_s):
                        await asyncio.sleep(max(0.0, at_s - self.elapsed_s()))
                        if self.num_in_flight < MAX_IN_FLIGHT:
                            self.num_in_flight += 1  # here: the task may begin only after further arrivals
                            calls.create_task(self._request(index, at_s))
                        else:
                            self._leave_out(index, at_s)
        return self.outcomes

    @property
    def share_done(self) -> float:
        """How far the level is, in [0, 1]: of its requests or of its time, whichever is further."""
        by_count = len(self.outcomes) / self._plan.max_requests
        return min(1.0, max(by_count, self.elapsed_s() / self._plan.run_s))

    def elapsed_s(self) -> float:
        """Seconds since the level began."""
        return 0.0 if self._begun_s is None else asyncio.get_running_loop().time() - self._begun_s

    async def _listen_on(self) -> None:
        """One listener of a closed load: piece after piece."""
        plan = self._plan
        while self._num_started < plan.max_requests and self.elapsed_s() < plan.run_s:
            index, self._num_started = self._num_started, self._num_started + 1
            self.num_in_flight += 1
            outcome = await self._request(index, self.elapsed_s())
            rest_s = self._rest_s(outcome)
            if self.elapsed_s() + rest_s >= plan.run_s:
                return
            await asyncio.sleep(rest_s)

    def _rest_s(self, outcome: Outcome) -> float:
        """Seconds until the listener asks again: at once, or when the music is over, or when the server said."""
        if outcome.status is not Status.OK:
            return REST_AFTER_ERROR_S if outcome.retry_after_s is None else outcome.retry_after_s
        if self._plan.realtime and outcome.playout is not None:
            return max(0.0, outcome.playout.played_out_s - self.elapsed_s())
        return 0.0

    async def _request(self, index: int, scheduled_s: float) -> Outcome:
        """One call that is counted in flight already."""
        try:
            outcome, _ = await listen(self._client, self._plan, index, scheduled_s=scheduled_s, now_s=self.elapsed_s)
        finally:
            self.num_in_flight -= 1
        self.outcomes.append(outcome)
        return outcome

    def _leave_out(self, index: int, scheduled_s: float) -> None:
        message = f"{MAX_IN_FLIGHT} requests were on their way, all that one connection carries."
        self.outcomes.append(
            Outcome(index, Status.UNSENT, scheduled_s, scheduled_s, scheduled_s, error="UNSENT", message=message)
        )
