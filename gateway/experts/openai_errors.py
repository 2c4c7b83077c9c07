"""What an OpenAI-compatible server's errors mean to us: an HTTP status or an error object -> ExpertFailed.

Only the verdict on the request itself (400, 413, 422) carries the server's own words, bounded and cleared of our key.
Every other message is ours, so that no address, account or key of the operator reaches a client.
"""

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from conclave.gateway.call import Chunk
from conclave.gateway.errors import ExpertFailed

REJECTED: Final = frozenset({400, 413, 422})
RATE_LIMITED: Final = 429
MESSAGE_CHARS: Final = 2000
LABEL_CHARS: Final = 100
RETRY_AFTER_S: Final = 86_400.0  # no server is believed that wants to be left alone for more than a day
TOO_LONG: Final = "context_length_exceeded"
MOSTLY: Final = {
    401: " (it did not take the key of its policy entry)",
    403: " (it did not take the key of its policy entry)",
    404: " (it does not know the model or the path: see the expert's model and base_url)",
}


def status_failure(
    status: int, headers: Mapping[str, str], body: bytes, *, wall_s: float, api_key: str | None
) -> ExpertFailed:
    """The failure that an HTTP status other than 2xx stands for. `wall_s` is the time of day, seconds since 1970."""
    retry_after_s = _retry_after_s(headers, wall_s=wall_s)
    error = _error_object(body)
    code = _label(error.get("code"))
    if status == RATE_LIMITED:
        return ExpertFailed(
            "the expert is rate limited",
            kind="rate_limited",
            upstream_status=status,
            code=code,
            retry_after_s=retry_after_s,
        )
    if status in REJECTED:
        message = error.get("message")
        if not isinstance(message, str) or not message:
            message = f"the expert rejected the request (HTTP {status})"
        too_long = code == TOO_LONG or "maximum context length" in message
        return ExpertFailed(
            _without(api_key, message)[:MESSAGE_CHARS],
            kind="rejected",
            upstream_status=status,
            final=not too_long,  # an expert with a larger window may still answer
            param=_label(error.get("param")),
            code=TOO_LONG if too_long else code,
        )
    return ExpertFailed(answered(status), kind="status", upstream_status=status, retry_after_s=retry_after_s)


def answered(status: int) -> str:
    """A status in words, and what it mostly means; never the server's own words, which may name the account."""
    return f"the expert answered HTTP {status}{MOSTLY.get(status, '')}"


def error_event(chunk: Chunk) -> ExpertFailed | None:
    """The failure that a 2xx answer's JSON stands for, if it is or carries an error object."""
    try:
        event = chunk.event
    except ExpertFailed as malformed:
        return malformed
    error = event.get("error")
    if not error and event.get("object") != "error":
        return None
    code = _label(error.get("code")) if isinstance(error, dict) else None
    return ExpertFailed("the expert reported an error in its answer", kind="error_event", code=code)


def not_an_answer(body: bytes) -> ExpertFailed:
    """The failure of a body that should have been an answer: an error object, or something else altogether."""
    error = error_event(Chunk(body))
    return error or ExpertFailed("the expert's answer is nothing of the kind asked for", kind="malformed")


def _error_object(body: bytes) -> dict[str, Any]:
    """`{"error": {...}}` (OpenAI), `{"error": "..."}` (Ollama), `{"message": ...}`, `{"detail": ...}`: as the first."""
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error", parsed)
    if isinstance(error, str):
        return {"message": error}
    if not isinstance(error, dict):
        return {}
    return error if "message" in error else {**error, "message": error.get("detail")}


def _label(value: object) -> str | None:
    """A code or a parameter's name as a short string; some servers send numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value[:LABEL_CHARS] if isinstance(value, str) and value else None


def _retry_after_s(headers: Mapping[str, str], *, wall_s: float) -> float | None:
    """`retry-after-ms`, then `retry-after` in seconds or as an HTTP date; None where neither makes sense."""
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return min(milliseconds / 1000, RETRY_AFTER_S)
    value = headers.get("retry-after")
    seconds = _seconds(value)
    if seconds is None and value:
        try:
            seconds = max(0.0, parsedate_to_datetime(value).timestamp() - wall_s)
        except (ValueError, OverflowError):
            return None
    return None if seconds is None else min(seconds, RETRY_AFTER_S)


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _without(api_key: str | None, message: str) -> str:
    return message.replace(api_key, "[key]") if api_key else message
