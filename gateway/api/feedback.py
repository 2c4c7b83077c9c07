"""`POST /v1/feedback`: how good an answer was, said by who got it. Becomes a row of the record; asks no expert.

Only the tenant of a call may rate it; to all others there is no such call. What is said again replaces what was said
before. A comment is what a person wrote: it is kept only where the policy keeps texts.
"""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from conclave.gateway.access.tags import NAME, NAMES_ARE
from conclave.gateway.api import headers
from conclave.gateway.api.body import checked, decode
from conclave.gateway.api.respond import DRAIN_BYTES
from conclave.gateway.call import Head
from conclave.gateway.errors import InvalidRequest, RequestTimeout, TooLarge, Unauthenticated, UnknownCall
from conclave.gateway.followers.calls import KnownCalls
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.record import Recorder

BODY_BYTES: Final = 65_536  # of the longest comment, escaped, and the rest
COMMENT_CHARS: Final = 4_000
THUMBS: Final = {"up": 1.0, "down": 0.0}


class FeedbackBody(Struct, forbid_unknown_fields=True):
    """What is said of an answer: `score` or `thumbs`, and perhaps more."""

    request_id: Annotated[str, Meta(pattern="^req_[0-9a-f]{24}$", description="Of the rated call: its `x-request-id`.")]
    score: Annotated[float, Meta(ge=0, le=1, description="How good the answer was, 1 is best.")] | None = None
    thumbs: Annotated[Literal["up", "down"], Meta(description="`up` is the score 1, `down` is 0.")] | None = None
    label: (
        Annotated[str, Meta(pattern=f"^{NAME.pattern}$", description="A short word to count by; stands in the record.")]
        | None
    ) = None
    comment: (
        Annotated[str, Meta(max_length=COMMENT_CHARS, description="Kept only where the policy keeps texts.")] | None
    ) = None


@dataclass(frozen=True, slots=True)
class Rated:
    """A sound body."""

    request_id: str
    score: float
    label: str | None
    comment: str | None


class Feedback:
    """Answers one request. `take` raises what admission raises, and what is wrong with the body."""

    def __init__(
        self, pipeline: Pipeline, recorder: Recorder, calls: KnownCalls, head: Head, *, request_id: str
    ) -> None:
        self._pipeline = pipeline
        self._recorder = recorder
        self._calls = calls
        self._head = head
        self._id = request_id

    async def take(self, request: Request) -> JSONResponse:
        try:
            grant = await self._pipeline.access.admit(self._head)
        except Unauthenticated as error:
            self._recorder.refused(self._head, error, self._id)
            raise
        rules = self._pipeline.policy.current.rules_for(grant.tenant)
        rated = parse(await _body(request, timeout_s=rules.limits.body_timeout_s))
        if await self._calls.tenant_of(rated.request_id) != grant.tenant:
            raise UnknownCall("there is no call with this request_id", param="request_id")
        said: dict[str, Any] = {"request_id": rated.request_id, "score": rated.score, "label": rated.label}
        kept = {"comment": rated.comment} if rated.comment is not None and rules.keep_text else {}
        self._recorder.rated({**said, "tenant": grant.tenant, "key_id": grant.key_id, **kept})
        about = headers.as_text(headers.request_headers(self._id, grant.rate))
        return JSONResponse({"object": "feedback", **said}, headers=about)


def parse(body: bytes) -> Rated:
    """What was said; raises InvalidRequest with the path of what is wrong."""
    known = checked(decode(body), FeedbackBody)
    if known.label is not None and NAME.fullmatch(known.label) is None:  # a pattern's $ lets a newline pass
        raise InvalidRequest(f"a label is {NAMES_ARE}", param="label")
    if (known.score is None) == (known.thumbs is None):
        raise InvalidRequest("say either score, a number from 0 to 1, or thumbs, up or down", param="score")
    score = known.score if known.score is not None else THUMBS[known.thumbs or "down"]
    return Rated(known.request_id, float(score), known.label, known.comment)


async def _body(request: Request, *, timeout_s: float) -> bytes:
    """The whole body. Raises TooLarge or RequestTimeout; too large a one is read away, so that its client hears it."""
    pieces, size = [], 0
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in request.stream():
                size += len(piece)
                if size <= BODY_BYTES:
                    pieces.append(piece)
                if size > DRAIN_BYTES:
                    break
    except TimeoutError:
        raise RequestTimeout(f"the request body did not arrive within {timeout_s:g} s") from None
    except ClientDisconnect:
        raise InvalidRequest("the client left before its request was whole") from None
    if size > BODY_BYTES:
        raise TooLarge(f"feedback is larger than {BODY_BYTES} bytes")
    return b"".join(pieces)
