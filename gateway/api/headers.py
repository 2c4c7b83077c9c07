"""The response headers: what the gateway says of a request beside its answer. Never user text."""

import os
import random
from functools import cache
from typing import Final, TypeAlias

from conclave.gateway.access.scope import RateState
from conclave.gateway.call import Call
from conclave.gateway.errors import ConclaveError

Headers: TypeAlias = list[tuple[bytes, bytes]]

PLAIN: Final = (b"content-type", b"application/json")
CLOSE: Final = (b"connection", b"close")
STREAM: Final[Headers] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
FINDINGS_CHARS: Final = 256  # kinds of findings are ours, and short
EXPLAINED: Final = {
    key: f"x-conclave-{key}".encode() for key in ("expert", "category", "confidence", "reason", "policy", "escalated")
}


def new_id() -> str:
    """A request's id: in the answer, the record and the log."""
    return f"req_{_random().getrandbits(96):024x}"


@cache
def _random() -> random.Random:
    return random.Random(os.urandom(32))  # noqa: S311  an id is unique, not secret


def call_headers(call: Call) -> Headers:
    """Request id, rate limit and, as far as it is known, which expert answers and why."""
    headers = request_headers(call.id, call.grant.rate if call.grant is not None else None)
    explained = call.explain()
    headers += [
        (name, _written(explained[key]).encode("latin-1", "replace"))
        for key, name in EXPLAINED.items()
        if key in explained
    ]
    if (retrieval := call.retrieval) is not None:
        headers.append((b"x-conclave-retrieval", retrieval.encode()))
    if findings := call.findings:
        headers.append((b"x-conclave-findings", ",".join(findings)[:FINDINGS_CHARS].encode()))
    return headers


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def request_headers(request_id: str, rate: RateState | None = None) -> Headers:
    """What every answer carries."""
    headers = [(b"x-request-id", request_id.encode())]
    return headers if rate is None else headers + rate_headers(rate)


def rate_headers(rate: RateState) -> Headers:
    """The `x-ratelimit-*-requests` headers of the OpenAI API."""
    return [
        (b"x-ratelimit-limit-requests", b"%d" % rate.limit),
        (b"x-ratelimit-remaining-requests", b"%d" % rate.remaining),
        (b"x-ratelimit-reset-requests", duration(rate.reset_s).encode()),
    ]


def error_headers(error: ConclaveError) -> Headers:
    """Whether a retry can help, which the OpenAI SDKs obey before they look at the status, and when."""
    headers = [(b"x-should-retry", b"true" if error.retry else b"false")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after-ms", b"%d" % max(1, round(error.retry_after_s * 1000))))
        headers.append((b"retry-after", b"%d" % max(1, -int(-error.retry_after_s // 1))))
    if error.status == 401:  # noqa: PLR2004  an HTTP status
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def message(line: bytes, headers: Headers, body: bytes) -> bytes:
    """A whole answer as it stands on the wire; `line` is its status line."""
    return b"%b%b\r\n%b" % (line, b"".join([b"%b: %b\r\n" % field for field in headers]), body)


def as_text(headers: Headers) -> dict[str, str]:
    """As Starlette's responses take them."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def duration(seconds: float) -> str:
    """A duration as the OpenAI API writes it: `12ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    if seconds < 60:  # noqa: PLR2004  a minute
        return f"{seconds:.3g}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s"
