"""What a provider's own wire format is to the upstreams that speak it over the gateway's connections.

    Dialect.question(litellm, prompt) -> Question    where to, what, and how to read the answer
    Question.reader.read(payload)     -> chunks      of one SSE event, as chat.completions
    Question.whole(body)              -> chunk       of a plain answer

litellm's classes for the provider do the translating; its transport, its stream wrapper and its logging, which cost
1 ms a chunk, are not used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from conclave.gateway.call import Chunk
from conclave.gateway.prompt import Prompt


class EventReader(Protocol):
    """Reads one stream's events in order. `over` once the provider has said that its answer is whole."""

    over: bool

    def read(self, payload: bytes) -> Sequence[Chunk]:
        """The chunks of one event's data; none for a ping. Raises ExpertFailed for an error event."""
        ...


@dataclass(frozen=True, slots=True, repr=False)  # the headers hold the key
class Question:
    """One request in a provider's format. `reader` serves a stream, `whole` a plain answer."""

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    reader: EventReader
    whole: Callable[[bytes], Chunk]


class Dialect(Protocol):
    """One provider's format, for one deployment."""

    def question(self, litellm: ModuleType, prompt: Prompt, *, created: int) -> Question:
        """Pure, and the CPU's work alone. `created` is the time of day. Raises ExpertFailed for what it cannot say."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Account:
    """The deployment that a dialect speaks for. `defaults` are parameters that a request may override."""

    model: str
    api_key: str
    base_url: str
    defaults: Mapping[str, Any]
    drop: bool
