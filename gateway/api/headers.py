"""The response headers: what the gateway says of a call beside its answer. Never user text."""

from typing import Final, TypeAlias

from conclave.gateway.access.scope import RateState
from conclave.gateway.call import Call
from conclave.gateway.errors import ConclaveError

Headers: TypeAlias = list[tuple[bytes, bytes]]

PLAIN: Final = (b"content-type", b"application/json")
STREAM: Final[Headers] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
EXPLAINED: Final = {
    key: f"x-conclave-{key}".encode() for key in ("expert", "category", "confidence", "reason", "policy")
}


def call_headers(call: Call) -> Headers:
    """Request id, rate limit and, as far as it is known, which expert answers and why."""
    headers = [(b"x-request-id", call.id.encode())]
    explained = call.explain()
    headers += [
        (name, str(explained[key]).encode("latin-1", "replace")) for key, name in EXPLAINED.items() if key in explained
    ]
    if call.grant is not None and call.grant.rate is not None:
        headers += rate_headers(call.grant.rate)
    return headers


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


def duration(seconds: float) -> str:
    """A duration as the OpenAI API writes it: `12ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    if seconds < 60:  # noqa: PLR2004  a minute
        return f"{seconds:.3g}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s"
