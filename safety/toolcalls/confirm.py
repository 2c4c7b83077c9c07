"""Tokens with which a person lets something pass, once and for a while: a tool call, or what checks found in a request.

A token for a call is for a tenant's conversation and these arguments; one for a request is for the key, too, and for
these findings in these texts. It is an HMAC, so nothing is stored until it is used; what was used is remembered until
it would have expired, in this process. Whoever holds the key can make tokens, nobody else. The clock is handed in.
"""

import base64
import hashlib
import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from conclave.safety.api import Finding, Segment
from conclave.safety.output.api import ToolCall
from conclave.safety.toolcalls.history import spelt

CALL: Final = "tc1"  # how the token of a tool call begins,
REQUEST: Final = "rq1"  # and that of a request
MAC_BYTES: Final = 24
KEY_BYTES: Final = 32
VALID_S: Final = 900  # a person has to read and decide
MOST_USED: Final = 50_000  # tokens that are remembered; beyond it the oldest, which expire first, are forgotten
MOST_TOKENS: Final = 16  # in one request
TOKEN_CHARS: Final = 128
PASSED_S: Final = 86_400  # how long a confirmed text stays so in its conversation's history
MOST_PASSED: Final = 20_000  # such texts, in all


@dataclass(frozen=True, slots=True)
class Flagged:
    """A text of a request, and what checks found in it that a person has to let pass.

    `past`: an answer follows it in the conversation, so that it was let pass before, if anybody did.
    """

    segment: Segment
    findings: tuple[Finding, ...]
    past: bool = False

    @property
    def parts(self) -> Sequence[bytes]:
        """What tells it from any other: the same text with the same findings, wherever it stands."""
        found = sorted(f"{one.check} {one.kind} {one.view} {one.start} {one.end}" for one in self.findings)
        return [_raw(one) for one in (self.segment.origin, self.segment.text, *found)]


class Confirmations:
    """Makes tokens and takes them, once each. `now_s` counts seconds since 1970."""

    def __init__(self, key: bytes, now_s: Callable[[], float]) -> None:
        self._key = hashlib.blake2b(b"toolcalls", key=key[:64], digest_size=KEY_BYTES).digest()
        self._now_s = now_s
        self._used: OrderedDict[bytes, float] = OrderedDict()
        self._passed: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()  # large answers are read in threads

    def token(self, kind: str, parts: Sequence[bytes]) -> tuple[str, int]:
        """A token for what these parts are, and when it expires, in seconds since 1970."""
        expires_s = int(self._now_s()) + VALID_S
        return f"{kind}.{expires_s}.{_written(self._mac(kind, expires_s, parts))}", expires_s

    def take(self, token: str, kind: str, parts: Sequence[bytes]) -> bool:
        """Whether the token lets this very thing pass now; it does so once."""
        said = token.split(".")
        if len(said) != 3 or said[0] != kind or not (said[1].isascii() and said[1].isdigit()):  # noqa: PLR2004
            return False
        expires_s = int(said[1][:16])
        mac = self._mac(kind, expires_s, parts)
        if not hmac.compare_digest(_written(mac).encode(), said[2].encode("utf-8", "replace")):
            return False
        if not self._now_s() < expires_s <= self._now_s() + VALID_S:
            return False
        with self._lock:
            if mac in self._used:
                return False
            self._note(self._used, mac, expires_s, MOST_USED)
        return True

    def passed(self, parts: Sequence[bytes]) -> bool:
        """Whether a text was confirmed lately."""
        until_s = self._passed.get(self._mac(REQUEST, 0, parts))
        return until_s is not None and until_s > self._now_s()

    def let_pass(self, parts: Sequence[bytes]) -> None:
        """A text was confirmed: it stays so for a while."""
        with self._lock:
            self._note(self._passed, self._mac(REQUEST, 0, parts), self._now_s() + PASSED_S, MOST_PASSED)

    def of(self, tenant: str, conversation: str, tokens: Sequence[str], *, key_id: str | None = None) -> "Confirmed":
        """What one request brought."""
        return Confirmed(self, tenant, conversation, tuple(tokens), key_id)

    def _note(self, where: OrderedDict[bytes, float], mac: bytes, until_s: float, most: int) -> None:
        where[mac] = until_s
        where.move_to_end(mac)
        while where and (len(where) > most or next(iter(where.values())) <= self._now_s()):
            where.popitem(last=False)

    def _mac(self, kind: str, expires_s: int, parts: Sequence[bytes]) -> bytes:
        hashed = hmac.new(self._key, digestmod=hashlib.sha256)
        for raw in (_raw(kind), _raw(str(expires_s)), *parts):
            hashed.update(b"%d:" % len(raw) + raw)  # lengths: no two lists of parts are the same bytes
        return hashed.digest()[:MAC_BYTES]


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _written(mac: bytes) -> str:
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


@dataclass(slots=True)
class Confirmed:
    """The confirmations of one request: `allows` a call once, also where a second expert proposes it again."""

    confirmations: Confirmations
    tenant: str
    conversation: str
    tokens: tuple[str, ...] = ()
    key_id: str | None = None
    _taken: set[tuple[str, bytes]] = field(default_factory=set)

    def allows(self, call: ToolCall) -> bool:
        """Whether a person has confirmed this very call."""
        if not self.tokens:
            return False
        same = (call.name, spelt(call.arguments))
        if same in self._taken:
            return True
        if self._take(CALL, self._of_call(call)):
            self._taken.add(same)
            return True
        return False

    def token(self, call: ToolCall) -> tuple[str, int]:
        """What lets it pass when the request comes again."""
        return self.confirmations.token(CALL, self._of_call(call))

    def lets(self, flagged: Iterable[Flagged]) -> bool:
        """Whether a person has confirmed all that was found in the request: now, or before an answer that follows it.

        What is confirmed now stays so in this conversation's history.
        """
        texts = [(one, self._of_text(one)) for one in flagged]
        fresh = [parts for one, parts in texts if not (one.past and self.confirmations.passed(parts))]
        if not fresh:
            return True
        if not self._take(REQUEST, _all_of(fresh)):
            return False
        for _, parts in texts:
            self.confirmations.let_pass(parts)
        return True

    def token_of(self, flagged: Iterable[Flagged]) -> tuple[str, int]:
        """What lets the request pass when it comes again."""
        texts = [(one, self._of_text(one)) for one in flagged]
        fresh = [parts for one, parts in texts if not (one.past and self.confirmations.passed(parts))]
        return self.confirmations.token(REQUEST, _all_of(fresh))

    def _take(self, kind: str, parts: Sequence[bytes]) -> bool:
        return any(self.confirmations.take(token, kind, parts) for token in self.tokens)

    def _of_call(self, call: ToolCall) -> Sequence[bytes]:
        return [_raw(self.tenant), _raw(self.conversation), _raw(call.name), spelt(call.arguments)]

    def _of_text(self, one: Flagged) -> Sequence[bytes]:
        owner = "" if self.key_id is None else f"key {self.key_id}"  # no key is no key's name
        return [_raw(self.tenant), _raw(owner), _raw(self.conversation), *one.parts]


def _all_of(texts: Iterable[Sequence[bytes]]) -> Sequence[bytes]:
    """The parts of several texts, whatever their order."""
    return sorted(hashlib.sha256(b"".join(b"%d:" % len(raw) + raw for raw in parts)).digest() for parts in texts)
