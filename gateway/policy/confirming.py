"""What waits for a person, a tool call or a request: what the client is told, and which confirmations it brought.

The caller sees a call as it would have got it, cut short; no log and no record does. Of a request it sees the places.
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import ConfirmationRequired, InvalidRequest
from conclave.gateway.guard import Confirm
from conclave.gateway.policy.arms import EXTENSION, conversation_of
from conclave.gateway.policy.screening import Screened
from conclave.safety.api import Finding, Origin, Segment
from conclave.safety.detect.crescendo import NAME as CRESCENDO
from conclave.safety.detect.turns import JOINED
from conclave.safety.output.api import Ruling, ToolCall
from conclave.safety.toolcalls.confirm import KEY_BYTES, MOST_TOKENS, TOKEN_CHARS, Confirmations, Confirmed, Flagged

if TYPE_CHECKING:
    from conclave.gateway.access.scope import Grant

FIELD: Final = f"{EXTENSION}.confirmed"
SHOWN_CHARS: Final = 4_096  # of a call's arguments: what a person reads before saying yes
NAME_CHARS: Final = 128
MOST_REASONS: Final = 8
MESSAGE: Final = re.compile(r"messages\[(\d+)\]")


def confirmed_of(
    request: ModelRequest, segments: Sequence[Segment], grant: "Grant", confirmations: Confirmations
) -> Confirmed:
    """The confirmations that a request brought; raises InvalidRequest for what are none."""
    own = request.body.get(EXTENSION)
    tokens = own.get("confirmed") if isinstance(own, dict) else None
    if tokens is None:
        tokens = []
    if not isinstance(tokens, list) or len(tokens) > MOST_TOKENS or not all(map(_is_token, tokens)):
        words = f"{FIELD} must be a list of up to {MOST_TOKENS} tokens of earlier errors `confirmation_required`"
        raise InvalidRequest(words, param=FIELD)
    return confirmations.of(grant.tenant, conversation_of(request, segments), tokens, key_id=grant.key_id)


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
            "reasons": _reasons(ruling.acted),
        }
        words = f"a tool call of this answer needs a confirmation ({kinds}); the incident is {incident}"
        return ConfirmationRequired(words, param=place, about=about)

    return confirm


def settled(screened: Screened, segments: Sequence[Segment], confirmed: Confirmed, *, incident: str) -> Screened:
    """What was screened, less what a person has let pass; `waits` is the error where there is something left.

    `segments` are the request's texts as they were looked at, before anything was cut out of them.
    """
    waiting = screened.waiting
    if not waiting:
        return screened
    flagged = list(_flagged(waiting, segments))
    kinds = tuple(dict.fromkeys(one.kind for one in waiting))
    if confirmed.lets(flagged):
        return replace(screened, verdict=replace(screened.verdict, action=screened.otherwise, confirmed=kinds))
    token, expires_s = confirmed.token_of(flagged)
    about: dict[str, Any] = {
        "token": token,
        "expires_at": expires_s,
        "tool": None,
        "arguments": None,
        "truncated": False,
        "reasons": _reasons(waiting),
    }
    words = f"this request needs a confirmation ({', '.join(kinds)}); the incident is {incident}"
    return replace(screened, waits=ConfirmationRequired(words, param=waiting[0].place or None, about=about))


def _reasons(found: Sequence[Finding]) -> list[dict[str, Any]]:
    return [
        {"kind": one.kind, "place": one.place or None, "start": one.start, "end": one.end, "text": one.remedy}
        for one in found[:MOST_REASONS]
    ]


def _flagged(waiting: Sequence[Finding], segments: Sequence[Segment]) -> Iterator[Flagged]:
    """The texts that something was found in; what several turns show together is in all that the user said."""
    by_place = {segment.place: segment for segment in segments}
    answered = max((_message(one) for one in segments if one.origin is Origin.ASSISTANT), default=-1)
    found: dict[tuple[str, bool], list[Finding]] = {}
    for one in waiting:
        found.setdefault((one.place, one.view == JOINED or one.check == CRESCENDO), []).append(one)
    for (place, joint), findings in found.items():
        segment = by_place[place]
        if joint:
            said = "\0".join(one.text for one in segments if one.origin is Origin.USER)
            yield Flagged(replace(segment, text=said), tuple(findings))
        else:
            yield Flagged(segment, tuple(findings), past=_message(segment) < answered)


def _message(segment: Segment) -> int:
    """The number of its message; what is sent with every turn, such as tools, comes before all of them."""
    found = MESSAGE.match(segment.place)
    return int(found[1]) if found is not None else -1
