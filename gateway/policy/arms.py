"""The A/B test of a policy, compiled: which arm a conversation belongs to. The same conversation is always in the same.

An arm follows from the split's salt, the tenant and the conversation alone, so every replica deals alike and nothing is
remembered. What tells conversations apart is the client's own `conclave.conversation`, else how it began.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from conclave.gateway.call import ModelRequest
from conclave.safety.api import Origin, Segment

if TYPE_CHECKING:
    from conclave.gateway.policy.rules import Rules

EXTENSION: Final = "conclave"  # the field of a body that is Conclave's own
POINT_BYTES: Final = 6  # of a hash, for a number from 0 up to 1, but not 1: a double holds 48 bits exactly
POINTS: Final = 2 ** (8 * POINT_BYTES)


@dataclass(frozen=True, slots=True)
class Arms:
    """The rules of both arms; `share` of the conversations belong to `other`."""

    salt: str
    share: float
    control: "Rules"
    other: "Rules"

    def of(self, tenant: str, conversation: str) -> "Rules":
        """The rules of the arm that this tenant's conversation belongs to."""
        digest = hashlib.blake2b(digest_size=POINT_BYTES)
        for part in (self.salt, tenant, conversation):
            raw = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(raw) + raw)  # lengths: no two triples are the same bytes
        point = int.from_bytes(digest.digest()) / POINTS
        return self.other if point < self.share else self.control

    def named(self, arm: str | None) -> "Rules | None":
        """The rules of the arm with this name."""
        return next((rules for rules in (self.control, self.other) if rules.arm == arm), None)


def conversation_of(request: ModelRequest, segments: Sequence[Segment]) -> str:
    """What stays the same while a conversation goes on: what the client calls it, else its first user message.

    Without either it is empty: such calls of a tenant are one conversation.
    """
    own = request.body.get(EXTENSION)
    named = own.get("conversation") if isinstance(own, dict) else None
    if isinstance(named, str) and named:
        return f"named:{named}"
    first = next((one for one in segments if one.origin is Origin.USER and one.text.strip()), None)
    return f"begins:{first.text}" if first is not None else ""
