"""Tokens with which a person lets one tool call pass: for a tenant's conversation, these arguments, once, for a while.

A token is an HMAC, so nothing is stored until it is used; what was used is remembered until it would have expired, in
this process. Whoever holds the key can make tokens, nobody else. The clock is handed in.
"""

import base64
import hashlib
import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from conclave.safety.output.api import ToolCall
from conclave.safety.toolcalls.history import spelt

PREFIX: Final = "tc1"
MAC_BYTES: Final = 24
KEY_BYTES: Final = 32
VALID_S: Final = 900  # a person has to read and decide
MOST_USED: Final = 50_000  # tokens that are remembered; beyond it the oldest, which expire first, are forgotten
MOST_TOKENS: Final = 16  # in one request
TOKEN_CHARS: Final = 128


class Confirmations:
    """Makes tokens and takes them, once each. `now_s` counts seconds since 1970."""

    def __init__(self, key: bytes, now_s: Callable[[], float]) -> None:
        self._key = hashlib.blake2b(b"toolcalls", key=key[:64], digest_size=KEY_BYTES).digest()
        self._now_s = now_s
        self._used: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()  # large answers are read in threads

    def token(self, tenant: str, conversation: str, call: ToolCall) -> tuple[str, int]:
        """A token for this call, and when it expires, in seconds since 1970."""
        expires_s = int(self._now_s()) + VALID_S
        return f"{PREFIX}.{expires_s}.{self._written(self._mac(expires_s, tenant, conversation, call))}", expires_s

    def take(self, token: str, tenant: str, conversation: str, call: ToolCall) -> bool:
        """Whether the token lets this very call pass now; it does so once."""
        parts = token.split(".")
        if len(parts) != 3 or parts[0] != PREFIX or not (parts[1].isascii() and parts[1].isdigit()):  # noqa: PLR2004
            return False
        expires_s = int(parts[1][:16])
        mac = self._mac(expires_s, tenant, conversation, call)
        if not hmac.compare_digest(self._written(mac).encode(), parts[2].encode("utf-8", "replace")):
            return False
        if not self._now_s() < expires_s <= self._now_s() + VALID_S:
            return False
        with self._lock:
            if mac in self._used:
                return False
            self._used[mac] = expires_s
            while self._used and (len(self._used) > MOST_USED or next(iter(self._used.values())) <= self._now_s()):
                self._used.popitem(last=False)
        return True

    def of(self, tenant: str, conversation: str, tokens: Sequence[str]) -> "Confirmed":
        """What one request brought."""
        return Confirmed(self, tenant, conversation, tuple(tokens))

    def _mac(self, expires_s: int, tenant: str, conversation: str, call: ToolCall) -> bytes:
        hashed = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (str(expires_s), tenant, conversation, call.name):
            raw = part.encode("utf-8", "surrogatepass")
            hashed.update(b"%d:" % len(raw) + raw)  # lengths: no two calls are the same bytes
        hashed.update(spelt(call.arguments))
        return hashed.digest()[:MAC_BYTES]

    @staticmethod
    def _written(mac: bytes) -> str:
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


@dataclass(slots=True)
class Confirmed:
    """The confirmations of one request: `allows` a call once, also where a second expert proposes it again."""

    confirmations: Confirmations
    tenant: str
    conversation: str
    tokens: tuple[str, ...] = ()
    _taken: set[tuple[str, bytes]] = field(default_factory=set)

    def allows(self, call: ToolCall) -> bool:
        """Whether a person has confirmed this very call."""
        if not self.tokens:
            return False
        same = (call.name, spelt(call.arguments))
        if same in self._taken:
            return True
        if any(self.confirmations.take(token, self.tenant, self.conversation, call) for token in self.tokens):
            self._taken.add(same)
            return True
        return False

    def token(self, call: ToolCall) -> tuple[str, int]:
        """What lets it pass when the request comes again."""
        return self.confirmations.token(self.tenant, self.conversation, call)
