"""Where an OpenAI-compatible expert is reached, how long it may take, and what its upstreams leave behind."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from conclave.gateway.call import Operation

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

CONNECT_S: Final = 5.0
PATHS: Final[Mapping[Operation, str]] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
    "moderations": "/moderations",
}


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long an expert may take, all in seconds. The call's own deadline stands above each of them.

    A plain answer is sent when it is whole, so its first byte comes late: it has a limit of its own.
    """

    connect_s: float = CONNECT_S  # TCP and TLS of a new connection
    first_byte_s: float = 60.0  # a stream's first byte, from the beginning
    plain_s: float = 300.0  # a plain answer's first byte, from the beginning
    idle_s: float = 60.0  # between two bytes, once one came
    silence_s: float = 10.0  # after which a stream's reader hears SILENCE
    linger_s: float = 1.0  # from `[DONE]` to the body's end, for the connection to be used again; nobody waits for it

    def __post_init__(self) -> None:
        for name in ("connect_s", "first_byte_s", "plain_s", "idle_s", "silence_s", "linger_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0 seconds")


class Lingering:
    """Whole answers whose bodies have not ended yet: soon their connections are free for reuse, or closed."""

    def __init__(self, linger_s: float) -> None:
        self._linger_s = linger_s
        self._late: dict[ClientResponse, asyncio.TimerHandle] = {}

    def add(self, response: "ClientResponse") -> None:
        """Nobody waits for the body's end; aiohttp gives the connection back when it comes."""
        if not response.content.is_eof():
            self._late[response] = asyncio.get_running_loop().call_later(self._linger_s, self._close, response)
            response.content.on_eof(lambda: self._forget(response))

    def close(self) -> None:
        for response in tuple(self._late):
            self._close(response)

    def _close(self, response: "ClientResponse") -> None:
        self._forget(response)
        response.close()

    def _forget(self, response: "ClientResponse") -> None:
        late = self._late.pop(response, None)
        if late is not None:
            late.cancel()


@dataclass(frozen=True, slots=True, repr=False)  # holds the key
class Endpoint:
    """One model of one server, as its upstreams see it."""

    expert: str
    host: str
    url: str  # up to and with `/v1`
    model: str
    api_key: str | None
    headers: Mapping[str, str]
    session: Callable[[], "ClientSession"]
    limits: TimeLimits
    stream_usage: bool
    lingering: Lingering
    now_s: Callable[[], float]
    wall_s: Callable[[], float]

    def url_of(self, operation: Operation) -> str:
        """Where an operation is asked for."""
        return self.url + PATHS[operation]
