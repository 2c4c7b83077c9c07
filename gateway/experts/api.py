"""What an expert is to the gateway: something that opens an upstream for a prompt.

    Expert.open(prompt, ...) -> Upstream          returns at once; nothing is sent before the first `__anext__`
    Upstream.__anext__()     -> Chunk             SILENCE after 10 s without a byte; StopAsyncIteration at the end
    Upstream.close()                              a plain call, idempotent, from any state

An upstream is a class, not a generator: a nested generator closed at a `yield` would be recorded before its connection
is closed, and no `finally` here may await (PIPELINE, measured). First-byte and idle limits live here only.
"""

from typing import Protocol, Self

from conclave.gateway.call import Attempt, Chunk
from conclave.gateway.prompt import Prompt


class Upstream(Protocol):
    """One answer on its way. Raises ExpertFailed from `__anext__`.

    `attempt` is kept up to date as it goes; `ended_s` is set when the answer is whole or has failed, before `close`.
    """

    attempt: Attempt

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Chunk: ...
    def close(self) -> None: ...


class Expert(Protocol):
    """One place that can answer: one deployment of one model. `name` is unique and stands in records and metrics."""

    name: str

    def open(self, prompt: Prompt, *, deadline_s: float) -> Upstream:
        """Prepare to ask. `deadline_s` is on the monotonic clock; past it `__anext__` raises DeadlineExceeded."""
        ...

    async def aclose(self) -> None:
        """Give back what the expert holds open between calls (connection pools)."""
        ...
