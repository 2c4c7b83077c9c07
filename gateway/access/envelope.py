"""(1) The signed envelope of a call, once its body is there: is it sound, of this body, of now, and used for the first
time? What it must be is the policy's to say (`policy/envelope.py`), how it is read `safety/boundary/envelope.py`'s.

A refusal says which rule was broken, and repeats nothing of the envelope. It fails closed: a number of use that cannot
be told from a used one is refused.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from conclave.gateway.errors import Forbidden, Unavailable
from conclave.gateway.policy.envelope import Seals
from conclave.gateway.state.nonces import LocalNonces, Nonces
from conclave.safety.boundary.envelope import HEADER, Envelope, EnvelopeError, Rule, open_header

CODE: Final = "bad_envelope"
IN_TURN_BYTES: Final = 256 * 1024  # a body up to this is hashed within 0.3 ms


class Head(Protocol):
    """What is looked at of the headers."""

    @property
    def envelope(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the record keeps of a sound envelope."""

    kid: str
    ts: int
    nonce: str


class Unseal:
    """Opens the envelopes of all tenants; what was used once is used up for all of them."""

    def __init__(self, nonces: Nonces | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._nonces = nonces if nonces is not None else LocalNonces(now=now)
        self._now = now

    async def __call__(self, seals: Seals, head: Head, body: bytes) -> Sealed | None:
        """Who signed the body; None if nobody did and nobody had to. Raises Forbidden or Unavailable."""
        if seals.mode == "off" or (head.envelope is None and seals.mode == "optional"):
            return None
        try:
            if len(body) > IN_TURN_BYTES:
                envelope = await asyncio.to_thread(self._open, seals, head, body)
            else:
                envelope = self._open(seals, head, body)
        except EnvelopeError as error:
            raise _bad(error.message, error.rule) from None
        await self._use(envelope, seals.window_s)
        return Sealed(envelope.kid, envelope.ts, envelope.nonce)

    def _open(self, seals: Seals, head: Head, body: bytes) -> Envelope:
        return open_header(head.envelope, body, keys=seals.keys, now_s=self._now(), window_s=seals.window_s)

    async def _use(self, envelope: Envelope, window_s: float) -> None:
        """The last step, so that nobody but the signer can use a number up."""
        name = f"{envelope.kid}:{envelope.nonce}"
        match await self._nonces.use(name, by=envelope.kid, from_s=envelope.ts, until_s=envelope.ts + window_s):
            case "again":
                raise _bad("the envelope's nonce was used before: sign each call anew", "replay")
            case "unsure":
                raise _bad("the envelope was signed before this gateway can remember: sign anew", "replay")
            case "full":
                raise Unavailable("too many signed calls at once to remember them; try again later")


def _bad(message: str, rule: Rule) -> Forbidden:
    """`param` names the rule for programs."""
    return Forbidden(message, param=f"{HEADER}.{rule}", code=CODE)
