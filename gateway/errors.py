"""Everything that can go wrong with a call, and what the client is told about it.

    ConclaveError
    ├── Refused                    the client's own doing; a retry of the same call cannot help
    │   ├── InvalidRequest         400  malformed JSON, wrong types, limits of shape
    │   ├── Unsupported            400  no expert in reach can do what was asked (tools, images, ...)
    │   ├── Unauthenticated        401  no key, an unknown, expired or revoked one
    │   ├── Forbidden              403  the key's scope does not reach that far
    │   ├── Blocked                403  a defence of the policy found something in the request or the answer
    │   │   └── ConfirmationRequired  403  a tool call, or the request, waits for a person; the error has a token
    │   ├── NoEvidence             422  policy wants documents for the answer, and there are none to be relied on
    │   ├── Abstained              422  the expert does not know, no document helps, and policy wants no guess
    │   ├── UnknownModel           404
    │   ├── UnknownCall            404  there is no such call, or it is somebody else's
    │   ├── RequestTimeout         408  the body did not arrive in time
    │   ├── TooLarge               413
    │   ├── RateLimited            429  carries an honest retry-after
    │   └── Overloaded             429  this replica has more calls than it can serve; the same
    ├── Unavailable                503  full disk, draining: this replica cannot take the call
    ├── ExpertFailed               one expert's failure; `next_step` may name another
    ├── NoExpertLeft               502  every step failed
    │   └── Interrupted            502  the answer had begun, broke off, and nobody could continue it
    ├── DeadlineExceeded           504  the call's own time is up
    └── InternalError              500  a bug of ours; the log has the trace under the request id

Endpoints raise; `gateway/api/respond.py` makes the envelope. `retry` is sent as `x-should-retry`, which the OpenAI SDKs
obey before they look at the status (CONVENTIONS: a refusal that is retried is paid three times).
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class ConclaveError(Exception):
    """A failure with an HTTP status, an OpenAI error type and code, and a word on whether a retry can help."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None
    retry: ClassVar[bool] = False

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code
        self.retry_after_s = retry_after_s

    def envelope(self) -> dict[str, Any]:
        """The OpenAI error body: all four keys, the last two nullable."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class Refused(ConclaveError):
    status = 400
    type = "invalid_request_error"


class InvalidRequest(Refused):
    code = "invalid_request"


class Unsupported(Refused):
    code = "unsupported_by_expert"


class Unauthenticated(Refused):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(Refused):
    status = 403
    type = "permission_error"
    code = "forbidden"


class Blocked(Refused):
    status = 403
    type = "permission_error"
    code = "blocked_by_policy"


class ConfirmationRequired(Blocked):
    """A tool call, or a request, that waits for a person: `about` says why, and what lets it pass the next time."""

    code = "confirmation_required"

    def __init__(self, message: str, *, param: str | None = None, about: Mapping[str, Any]) -> None:
        super().__init__(message, param=param)
        self.about = about

    def envelope(self) -> dict[str, Any]:
        """The error body; beside the four keys a `conclave` object."""
        body = super().envelope()
        return {"error": {**body["error"], "conclave": {"confirmation": self.about}}}


class NoEvidence(Refused):
    status = 422
    code = "no_evidence"


class Abstained(Refused):
    status = 422
    code = "abstained"


class UnknownModel(Refused):
    status = 404
    code = "model_not_found"


class UnknownCall(Refused):
    status = 404
    code = "request_not_found"


class RequestTimeout(Refused):
    status = 408
    code = "request_timeout"


class TooLarge(Refused):
    status = 413
    code = "request_too_large"


class RateLimited(Refused):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    retry = True


class Overloaded(Refused):
    status = 429
    type = "rate_limit_error"
    code = "overloaded"
    retry = True


class Unavailable(ConclaveError):
    status = 503
    code = "unavailable"
    retry = True


class ExpertFailed(ConclaveError):
    """One expert could not serve the call.

    `kind` is a bounded label for records and metrics (`FAILURE_KINDS`). `upstream_status` is the HTTP status that the
    expert answered with, if it did. `final` means that another expert would fail on the same request too (the
    upstream's 400): the client then gets the upstream's own words.
    """

    status = 502
    code = "expert_failed"
    retry = True

    def __init__(  # noqa: PLR0913  each is a separate fact of the failure, all keyword-only
        self,
        message: str,
        *,
        kind: str,
        upstream_status: int | None = None,
        final: bool = False,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code, retry_after_s=retry_after_s)
        if kind not in FAILURE_KINDS:
            raise ValueError(f"unknown failure kind {kind!r}; known: {', '.join(sorted(FAILURE_KINDS))}")
        self.kind = kind
        self.upstream_status = upstream_status
        self.final = final


FAILURE_KINDS = frozenset(
    {
        "connect",  # refused, reset, DNS, TLS: no byte came
        "status",  # an HTTP status >= 400
        "rate_limited",  # 429, with retry_after_s where the upstream said so
        "first_byte",  # nothing within the first-byte limit
        "stalled",  # silence past the idle limit, after the first byte
        "cut",  # the connection ended before the answer did
        "malformed",  # bytes that are no chat.completion
        "error_event",  # an error object inside the stream
        "late",  # too slow or too large for an answer on trial, or time was up and an answer on trial was there
        "rejected",  # the upstream calls the request itself invalid (final)
        "breaker_open",  # not tried: too many failures just now
        "no_deployment",  # every deployment cools down
    }
)


class NoExpertLeft(ConclaveError):
    status = 502
    code = "no_expert_left"
    retry = True


class Interrupted(NoExpertLeft):
    code = "answer_interrupted"


class UpstreamRejected(Refused):
    """The upstream's verdict on the request itself (its 400, 413, 422), passed on in its own words."""

    code = "upstream_rejected"


class DeadlineExceeded(ConclaveError):
    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"
    retry = True


class InternalError(ConclaveError):
    code = "internal_error"
    retry = True
