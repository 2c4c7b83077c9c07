"""A tool call that waits for a person: what the client is told of it, and which confirmations its request brought.

The caller sees the call as it would have got it, cut short; no log and no record does.
"""

import os
import time
from collections.abc import Sequence
from typing import Any, Final

from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import ConfirmationRequired, InvalidRequest
from conclave.gateway.guard import Confirm
from conclave.gateway.policy.arms import EXTENSION, conversation_of
from conclave.safety.api import Segment
from conclave.safety.output.api import Ruling, ToolCall
from conclave.safety.toolcalls.confirm import KEY_BYTES, MOST_TOKENS, TOKEN_CHARS, Confirmations, Confirmed

FIELD: Final = f"{EXTENSION}.confirmed"
SHOWN_CHARS: Final = 4_096  # of a call's arguments: what a person reads before saying yes
NAME_CHARS: Final = 128
MOST_REASONS: Final = 8


def confirmed_of(
    request: ModelRequest, segments: Sequence[Segment], *, tenant: str, confirmations: Confirmations
) -> Confirmed:
    """The confirmations that a request brought; raises InvalidRequest for what are none."""
    own = request.body.get(EXTENSION)
    tokens = own.get("confirmed") if isinstance(own, dict) else None
    if tokens is None:
        tokens = []
    if not isinstance(tokens, list) or len(tokens) > MOST_TOKENS or not all(map(_is_token, tokens)):
        words = f"{FIELD} must be a list of up to {MOST_TOKENS} tokens of earlier errors `confirmation_required`"
        raise InvalidRequest(words, param=FIELD)
    return confirmations.of(tenant, conversation_of(request, segments), tokens)


def new_confirmations() -> Confirmations:
    """With a key that ends with this process: for tests, and wherever no other replica takes the tokens."""
    return Confirmations(os.urandom(KEY_BYTES), time.time)


def _is_token(token: object) -> bool:
    return isinstance(token, str) and 0 < len(token) <= TOKEN_CHARS


def confirming(confirmed: Confirmed, *, incident: str) -> Confirm:
    """Makes the error of a call that waits."""

    def confirm(call: ToolCall, ruling: Ruling, place: str, shown: str) -> ConfirmationRequired:
        token, expires_s = confirmed.token(call)
        kinds = ", ".join(dict.fromkeys(finding.kind for finding in ruling.acted))
        about: dict[str, Any] = {
            "token": token,
            "expires_at": expires_s,
            "tool": call.name[:NAME_CHARS],
            "arguments": shown[:SHOWN_CHARS],
            "truncated": len(shown) > SHOWN_CHARS,
            "reasons": [
                {"kind": one.kind, "place": one.place or None, "start": one.start, "end": one.end, "text": one.remedy}
                for one in ruling.acted[:MOST_REASONS]
            ],
        }
        words = f"a tool call of this answer needs a confirmation ({kinds}); the incident is {incident}"
        return ConfirmationRequired(words, param=place, about=about)

    return confirm
