"""What the errors of providers behind litellm mean to us: a status, an error event or an exception -> ExpertFailed.

As in `openai_errors`, only the verdict on the request itself carries the provider's words, and none of litellm's own,
which quote addresses, keys and prompts. A 400 that is the operator's (a bad key, no credit) is not the client's.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from conclave.gateway.errors import ExpertFailed
from conclave.gateway.experts.openai_errors import MESSAGE_CHARS, TOO_LONG, answered, status_failure

TOO_MANY: Final = re.compile(
    r"(?i)prompt is too long|exceeds? (?:the )?(?:context (?:limit|window|length)|maximum (?:number of tokens|context))"
    r"|input token count|too many (?:input )?tokens|context[ _]length"
)
OPERATORS: Final = re.compile(  # whole phrases, since a message may quote the request
    r"(?i)api[ -]key (?:not valid|expired|not found|is invalid)|invalid (?:x-)?api[ -]key|credit balance is too low"
    r"|location is not supported|has not been used in project|organi[sz]ation has been disabled"
)
ADDRESS: Final = re.compile(r"(?i)\b(?:https?|wss?)://\S+")
BEHIND: Final = re.compile(r"litellm\.\w+: \w+Exception - ([^{\n]+)")
DELAY: Final = re.compile(r"^(\d{1,6}(?:\.\d{1,9})?)s$")  # google.rpc.RetryInfo
TIMEOUTS: Final = ("Timeout", "APITimeoutError")
BROKEN: Final = ("APIConnectionError", "ClientError", "ReadError", "RemoteProtocolError")
ELSEWHERE: Final = {  # rejections that another expert may not share
    "ContextWindowExceededError": TOO_LONG,
    "UnsupportedParamsError": "unsupported_parameter",
    "ImageFetchError": "unsupported_url",
}
CONTENT_POLICY: Final = "content_policy_violation"
BAD: Final = frozenset({400, 413, 422})
RATE_LIMITED: Final = 429


def provider_failure(
    status: int, headers: Mapping[str, str], body: bytes, *, wall_s: float, api_key: str | None
) -> ExpertFailed:
    """The failure that a provider's HTTP status other than 2xx stands for."""
    failure = status_failure(status, headers, body, wall_s=wall_s, api_key=api_key)
    error = _error_object(body)
    if failure.kind == "rate_limited" and failure.retry_after_s is None:
        failure.retry_after_s = _retry_delay_s(error)
    if failure.kind != "rejected":
        return failure
    return _verdict(failure.message, status=status, code=_code(error))


def event_failure(event: Mapping[str, Any]) -> ExpertFailed:
    """The failure that an error object in a 200 answer stands for."""
    error = event.get("error")
    code = _code(error) if isinstance(error, dict) else None
    return ExpertFailed("the expert reported an error in its answer", kind="error_event", code=code)


def exception_failure(error: Exception, *, begun: bool, secrets: tuple[str, ...]) -> ExpertFailed:
    """The failure that an exception of litellm's stands for. `begun`: a part of the answer has come."""
    inner = getattr(error, "original_exception", None)
    if type(error).__name__ == "MidStreamFallbackError" and isinstance(inner, Exception):
        error, begun = inner, True
    name = type(error).__name__
    if name in TIMEOUTS:
        return ExpertFailed("the expert took too long", kind="stalled" if begun else "first_byte")
    if begun:
        kind = "cut" if name in BROKEN else "error_event"
        return ExpertFailed("the expert failed in the middle of its answer", kind=kind, code=name)
    if name in BROKEN:
        return ExpertFailed("the expert could not be reached", kind="connect")
    return _refusal(error, name, _cleared(_words(error), secrets))


def _refusal(error: Exception, name: str, words: str) -> ExpertFailed:
    """Of an exception that stands for an answer without a word of the model's."""
    status = _status(error)
    if status == RATE_LIMITED:
        return status_failure(status, _headers(error), b"", wall_s=0.0, api_key=None)
    if name in ELSEWHERE:
        return ExpertFailed(words, kind="rejected", upstream_status=status, code=ELSEWHERE[name])
    if name == "ContentPolicyViolationError":
        return ExpertFailed(words, kind="rejected", upstream_status=status, final=True, code=CONTENT_POLICY)
    if status in BAD:
        return _verdict(words, status=status, code=None)
    if status is not None:
        return ExpertFailed(answered(status), kind="status", upstream_status=status)
    return ExpertFailed("the expert's provider library could not serve the call", kind="malformed")


def _verdict(words: str, *, status: int, code: str | None) -> ExpertFailed:
    """Of a provider that calls the request itself wrong, if that is what it says."""
    if TOO_MANY.search(words):
        return ExpertFailed(_cleared(words, ()), kind="rejected", upstream_status=status, code=TOO_LONG)
    if OPERATORS.search(words):  # another expert has another account
        return ExpertFailed(answered(status), kind="status", upstream_status=status, code=code)
    return ExpertFailed(_cleared(words, ()), kind="rejected", upstream_status=status, final=True, code=code)


def _error_object(body: bytes) -> Mapping[str, Any]:
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    if isinstance(parsed, list) and parsed:  # Gemini, asked without `alt=sse`
        parsed = parsed[0]
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return error if isinstance(error, dict) else {}


def _code(error: Mapping[str, Any]) -> str | None:
    """`overloaded_error` (Anthropic's type), `RESOURCE_EXHAUSTED` (Google's status)."""
    for name in ("status", "type", "code"):
        if isinstance(error.get(name), str):
            return str(error[name])[:100]
    return None


def _retry_delay_s(error: Mapping[str, Any]) -> float | None:
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        found = DELAY.match(str(detail.get("retryDelay"))) if isinstance(detail, dict) else None
        if found:
            return float(found[1])
    return None


def _status(error: Exception) -> int | None:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def _headers(error: Exception) -> Mapping[str, str]:
    """The answer's headers, which litellm keeps in one place or another."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("litellm_response_headers", "headers"):
            headers = getattr(holder, name, None)
            if isinstance(headers, Mapping) and headers:
                return {str(key).lower(): str(value) for key, value in headers.items()}
    return {}


def _words(error: Exception) -> str:
    """The provider's own words: of the error object that it sent, or what stands behind litellm's own."""
    sent, message = getattr(error, "body", None), str(error)
    if not isinstance(sent, dict):
        start = message.find("{")
        sent = _error_object(message[start : message.rfind("}") + 1].encode()) if start >= 0 else {}
    said = sent.get("message")
    if isinstance(said, str) and said:
        return said
    behind = BEHIND.match(message)
    return behind[1] if behind else "the expert rejected the request"


def _cleared(words: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        words = words.replace(secret, "[key]")
    return ADDRESS.sub("[address]", words)[:MESSAGE_CHARS]
