"""What is remembered from one call of a conversation to the next: who answered, and what its turns were about.

Kept in memory, bounded, under keyed hashes of the tenant and the text. It is lost with the process and unknown to other
replicas: then the choice follows from the request alone, which tells the same story but for what chance has done to it
(a fallback, an escalation). Never decides anything.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from threading import Lock
from typing import Any, Final

from conclave.gateway.call import ModelRequest
from conclave.gateway.policy.arms import conversation_of
from conclave.router.api import Classification
from conclave.safety.api import Segment

MOST_ANSWERS: Final = 20_000  # conversations, and calls of tools in them: 6 MB
MOST_TEXTS: Final = 5_000  # classifications of 14 numbers: 8 MB
KEEP_S: Final = 3600.0  # after its last answer a conversation is over, or may as well begin anew
DIGEST_BYTES: Final = 16
TOOL_ROLES: Final = frozenset({"tool", "function"})

Classify = Callable[[str], Classification]


class Conversations:
    """One for all calls of a process; `of` gives a call its thread, `note` remembers who answered."""

    def __init__(
        self,
        *,
        most: int = MOST_ANSWERS,
        most_texts: int = MOST_TEXTS,
        keep_s: float = KEEP_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keyed = blake2b(key=secrets.token_bytes(32), digest_size=DIGEST_BYTES)
        self._most, self._most_texts, self._keep_s, self._now_s = most, most_texts, keep_s, now_s
        self._answered: OrderedDict[bytes, tuple[str, float]] = OrderedDict()  # expert, and when; the oldest first
        self._classified: OrderedDict[bytes, Classification] = OrderedDict()
        self._turn = Lock()  # of its two steps: a slow classifier runs in threads

    def of(self, tenant: str, request: ModelRequest, segments: Sequence[Segment]) -> "Thread":
        """Where a call stands in its conversation."""
        if request.operation != "chat":
            return NO_THREAD
        key = self._digest(tenant, conversation_of(request, segments))
        loop = open_loop(request.body.get("messages"))
        before = self._find(self._digest(key, loop.call_id)) if loop.call_id is not None else None
        return Thread(
            before=before or (self._find(key) if loop.goes_on else None),
            open_loop=loop.open,
            key=key,
            memo=lambda text, classify, about: self._classify(self._digest(tenant, about, text), text, classify),
        )

    def note(self, thread: "Thread", expert: str, call_ids: Iterable[str] = ()) -> None:
        """`expert` answered here, and called these tools."""
        if thread.key is None:
            return
        for key in (thread.key, *(self._digest(thread.key, name) for name in call_ids)):
            self._answered[key] = expert, self._now_s()
            self._answered.move_to_end(key)
        while len(self._answered) > self._most:
            self._answered.popitem(last=False)

    def _find(self, key: bytes) -> str | None:
        expert, since_s = self._answered.get(key, (None, 0.0))
        return expert if self._now_s() - since_s <= self._keep_s else None

    def _classify(self, key: bytes, text: str, classify: Classify) -> Classification:
        with self._turn:
            if (found := self._classified.get(key)) is not None:
                self._classified.move_to_end(key)
                return found
        found = classify(text)
        with self._turn:
            self._classified[key] = found
            if len(self._classified) > self._most_texts:
                self._classified.popitem(last=False)
        return found

    def _digest(self, *parts: str | bytes) -> bytes:
        hashed = self._keyed.copy()
        for part in parts:
            raw = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
            hashed.update(b"%d:" % len(raw))
            hashed.update(raw)
        return hashed.digest()


def _afresh(text: str, classify: Classify, _: str) -> Classification:
    return classify(text)


@dataclass(frozen=True, slots=True)
class Thread:
    """Where one call stands in its conversation.

    `before`: the expert that answered last; None if that is not known, or this is the first turn. `memo` classifies a
    text, or remembers how; its third argument names the classifier. `key` is where `note` remembers the answer.
    """

    before: str | None = None
    open_loop: bool = False
    key: bytes | None = None
    memo: Callable[[str, Classify, str], Classification] = field(default=_afresh, repr=False)


NO_THREAD: Final = Thread()


@dataclass(frozen=True, slots=True)
class Loop:
    """`open`: an assistant called tools, and nobody but them has spoken since, or not all have. `call_id`: of one call.

    `goes_on`: an assistant has answered before, so there is a conversation.
    """

    open: bool = False
    call_id: str | None = None
    goes_on: bool = False


NO_LOOP: Final = Loop()


def open_loop(messages: object) -> Loop:
    """How far the tool calls of the last assistant message have come."""
    if not isinstance(messages, list) or len(messages) == 1:
        return NO_LOOP
    spoken, answered, results = False, set[str](), False
    for message in reversed(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if isinstance(role, str) and role in TOOL_ROLES:
            results = True
            if isinstance(name := message.get("tool_call_id"), str):
                answered.add(name)
        elif role == "assistant":
            ids = _call_ids(message)
            legacy = bool(message.get("function_call"))
            waiting = any(name not in answered for name in ids) or (legacy and not results)
            called = bool(ids or legacy or message.get("tool_calls"))
            is_open = called and (waiting or not spoken)
            return Loop(is_open, ids[0] if ids and is_open else None, goes_on=True)
        elif role == "user":
            spoken = spoken or not results  # a word before the results does not end the loop
    return Loop(open=results and not spoken)


def _call_ids(message: Mapping[str, Any]) -> list[str]:
    calls = message.get("tool_calls")
    ids = [call.get("id") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return [name for name in ids if isinstance(name, str)]
