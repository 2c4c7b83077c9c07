"""Opens ONE expert: chooses among its deployments, and retries what failed in transport before the answer began.

Decides which deployment is asked, which failures count against it (`deployment.py`), and when a second one is asked
in its place: after a connection that failed or ended, HTTP 5xx, and for a 429 only another deployment. A request that
the upstream calls bad, a first byte that never came (the time is spent) and anything after the first chunk are not
retried here: another *expert* is `next_step`'s business.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from conclave.gateway.call import SILENCE, Attempt, Chunk
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.experts.api import Expert, Upstream
from conclave.gateway.experts.breaker import Breaker
from conclave.gateway.experts.deployment import Deployment, DeploymentState, Seat, Table
from conclave.gateway.prompt import Prompt

__all__ = ["Deployment", "DeploymentState", "Pool", "PoolEntry", "PooledUpstream"]

BACKOFF_S: Final = 0.05  # times 0.5-1.5, doubled each time; only before the same deployment is asked again
RETRIED: Final = frozenset({"connect", "cut", "rate_limited"})  # and HTTP 5xx
SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """One expert's deployments, how often a call is asked again, and when a deployment's breaker opens."""

    deployments: Sequence[Deployment]
    transport_retries: int = 1
    failures_to_open: int = 5
    open_s: float = 15.0

    def table(self) -> Table:
        return Table(
            [
                Seat(one, Breaker(failures_to_open=self.failures_to_open, open_s=self.open_s))
                for one in self.deployments
            ],
            transport_retries=self.transport_retries,
        )


class Pool:
    """All experts by name; deployments alone stand for an entry with the usual settings."""

    def __init__(
        self,
        experts: Mapping[str, PoolEntry | Sequence[Deployment]],
        *,
        now_s: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._tables = {
            name: (entry if isinstance(entry, PoolEntry) else PoolEntry(entry)).table()
            for name, entry in experts.items()
        }
        self.now_s = now_s
        self.sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311  jitter

    @property
    def tables(self) -> Mapping[str, Table]:
        """The experts' deployments by name, with what is known of their health."""
        return self._tables

    def beside(self, tables: Mapping[str, Table]) -> "Pool":
        """These tables, shared with the pool that they come from, and this pool's own."""
        joined = Pool({}, now_s=self.now_s, rng=self._rng, sleep=self.sleep)
        joined._tables = {**tables, **self._tables}
        return joined

    def open(self, name: str, prompt: Prompt, *, deadline_s: float, late_is_failure: bool = False) -> "PooledUpstream":
        """Nothing is chosen or sent before the first `__anext__`, which also says if there is nobody to ask.

        `late_is_failure`: the time is what the expert was given, not what the client had left; one that needs more has
        failed.
        """
        table = self._tables.get(name) or Table(())
        return PooledUpstream(self, name, table, prompt, deadline_s, late_is_failure=late_is_failure)

    def states(self) -> Sequence[DeploymentState]:
        now_s = self.now_s()
        return [
            DeploymentState(
                name, seat.deployment.label, seat.breaker.state(now_s), max(0.0, seat.cools_until_s - now_s)
            )
            for name, table in self._tables.items()
            for seat in table.seats
        ]

    async def aclose(self) -> None:
        """Give back what the experts hold open; each once, and all of them even if one cannot."""
        experts = _distinct(seat.deployment.expert for table in self._tables.values() for seat in table.seats)
        failed = await asyncio.gather(*(one.aclose() for one in experts), return_exceptions=True)
        for error in failed:
            if error is not None:
                raise error

    def backoff_s(self, retries: int) -> float:
        return BACKOFF_S * 2.0**retries * self._rng.uniform(0.5, 1.5)


class PooledUpstream:
    """One expert's answer. A client that leaves midway counts neither for nor against the deployment."""

    __slots__ = (
        "_deadline_s",
        "_inner",
        "_late_is_failure",
        "_next",
        "_pool",
        "_prompt",
        "_seat",
        "_table",
        "_ticket",
        "_tried",
        "attempt",
    )

    def __init__(  # noqa: PLR0913  made by `Pool.open` alone
        self, pool: Pool, name: str, table: Table, prompt: Prompt, deadline_s: float, *, late_is_failure: bool = False
    ) -> None:
        self._pool = pool
        self._table = table
        self._prompt = prompt
        self._deadline_s = deadline_s
        self._late_is_failure = late_is_failure
        self._inner: Upstream | None = None
        self._seat: Seat | None = None
        self._ticket = 0
        self._tried: list[Seat] = []
        self._next: Callable[[], Coroutine[Any, Any, Chunk]] = self._begin
        self.attempt = Attempt(name, pool.now_s())

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Chunk]:
        """After the first chunk the upstream's own coroutine: what this class costs is one call, not one more await."""
        return self._next()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle(error)
        self._next = _over

    def close(self) -> None:
        self._settle(None)
        self._next = _over

    async def _begin(self) -> Chunk:
        """The first chunk, from the first deployment that has one."""
        while True:
            try:
                inner = self._inner or self._take()
                chunk = await inner.__anext__()
            except ExpertFailed as error:
                self._settle(error)
                await self._pause_or_raise(error)
                continue
            if chunk is not SILENCE and inner is self._inner:
                self._next = inner.__anext__
                self._note(inner.attempt)
            return chunk

    def _take(self) -> Upstream:
        now_s = self._pool.now_s()
        seat = self._table.next(now_s, self._tried)
        if seat is None:
            refusal = self._table.refusal(now_s)
            self.attempt.failure, self.attempt.ended_s = refusal.kind, now_s
            raise refusal
        self._ticket = seat.breaker.admit(now_s)
        self._seat = seat
        self._tried.append(seat)
        self._inner = seat.deployment.expert.open(self._prompt, deadline_s=self._deadline_s)
        self.attempt.deployment = seat.deployment.label
        self.attempt.failure = None
        return self._inner

    async def _pause_or_raise(self, error: ExpertFailed) -> None:
        """Return when another try is due; raise the error if none is."""
        retried = error.kind in RETRIED or (error.kind == "status" and (error.upstream_status or 0) >= SERVER_ERROR)
        if not retried or error.final or self.attempt.transport_retries >= self._table.transport_retries:
            raise error
        if error.kind == "cut" and self.attempt.first_byte_s is not None:  # it answered, and will be paid
            raise error
        if self._next is _over:  # closed meanwhile
            raise error
        now_s = self._pool.now_s()
        waiting = [seat for seat in self._table.seats if seat.wait_s(now_s) <= 0]
        if not waiting:
            raise error
        if all(seat in self._tried for seat in waiting):
            pause_s = self._pool.backoff_s(self.attempt.transport_retries)
            if now_s + pause_s >= self._deadline_s:
                raise error
            await self._pool.sleep(pause_s)
        self.attempt.transport_retries += 1

    def _settle(self, error: BaseException | None) -> None:
        """Close the upstream and tell its deployment how it went. `error` is what ended the reading, if any did."""
        inner, seat = self._inner, self._seat
        if inner is None or seat is None:
            return
        self._inner = self._seat = None
        whole = inner.attempt.ended_s is not None and error is None
        inner.close()
        failed = error if isinstance(error, ExpertFailed) else None
        self._note(inner.attempt)
        if failed is not None:  # the upstream's own failure, or what its reader found in its answer
            self.attempt.failure = failed.kind
        if self.attempt.failure is not None:
            seat.failed(
                self.attempt.failure,
                self._ticket,
                self._pool.now_s(),
                server_error=self.attempt.failure == "status" and (self.attempt.upstream_status or 0) >= SERVER_ERROR,
                retry_after_s=failed.retry_after_s if failed is not None else None,
            )
        elif self._late_is_failure and isinstance(error, DeadlineExceeded):
            seat.breaker.failed(self._ticket, self._pool.now_s())
        elif whole:
            seat.breaker.succeeded(self._ticket)
        else:
            seat.breaker.abandoned(self._ticket)

    def _note(self, inner: Attempt) -> None:
        attempt = self.attempt
        attempt.model = inner.model
        attempt.first_byte_s = inner.first_byte_s
        attempt.ended_s = inner.ended_s
        attempt.upstream_status = inner.upstream_status
        attempt.failure = inner.failure


async def _over() -> Chunk:
    raise StopAsyncIteration


def _distinct(experts: Iterable[Expert]) -> Sequence[Expert]:
    return list({id(one): one for one in experts}.values())
