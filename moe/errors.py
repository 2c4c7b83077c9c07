"""Everything that can go wrong with a call of the local expert, and what its client is told about it.

    ExpertError
    ├── Refused               the client's own doing; the same call again cannot help
    │   ├── InvalidRequest    400  malformed JSON, wrong types, a policy that is not offered
    │   ├── Unsupported       400  what this expert cannot do: tools, images, JSON schemas, several answers
    │   ├── ContextExceeded   400  the conversation does not fit the model
    │   ├── Unauthenticated   401  no key, or a wrong one
    │   ├── NotFound          404  no such path or model
    │   ├── NotAllowed        405  the path is asked with another method
    │   ├── RequestTimeout    408  the body did not arrive in time
    │   └── TooLarge          413  the body is larger than the server reads
    ├── Overloaded            429  as many calls run and wait as the server was started for
    ├── NotFinite             500  the model's scores were no numbers; other calls go on
    ├── InternalError         500  a bug; the log has the trace
    ├── OutOfMemory           503  no room for this call's cache; other calls go on
    ├── Stopping              503  the server is shutting down
    └── DeadlineExceeded      504  the call took longer than the server allows

The envelope and `x-should-retry` are those of the gateway, which reads them.
"""

import traceback
from pathlib import Path
from typing import Any, ClassVar


class ExpertError(Exception):
    """A failure with an HTTP status, an OpenAI error type and code, and a word on whether a retry can help."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    retry: ClassVar[bool] = False
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def envelope(self) -> dict[str, Any]:
        """The OpenAI error body: all four keys, `param` nullable."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def where(error: BaseException) -> str:
    """For the log: where it was raised. Its message is not for it: that may quote what was being worked on."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)


class Refused(ExpertError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidRequest(Refused):
    pass


class Unsupported(Refused):
    code = "unsupported_by_expert"


class ContextExceeded(Refused):
    code = "context_length_exceeded"


class Unauthenticated(Refused):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class NotFound(Refused):
    status = 404
    code = "not_found"


class UnknownModel(NotFound):
    code = "model_not_found"


class NotAllowed(Refused):
    status = 405
    code = "method_not_allowed"


class RequestTimeout(Refused):
    status = 408
    code = "request_timeout"


class TooLarge(Refused):
    status = 413
    code = "request_too_large"


class Overloaded(ExpertError):
    status = 429
    type = "rate_limit_error"
    code = "overloaded"
    retry = True
    retry_after_s = 1


class NotFinite(ExpertError):
    code = "logits_not_finite"


class InternalError(ExpertError):
    retry = True


class OutOfMemory(ExpertError):
    status = 503
    code = "out_of_memory"
    retry = True
    retry_after_s = 1


class Stopping(ExpertError):
    status = 503
    code = "unavailable"
    retry = True


class DeadlineExceeded(ExpertError):
    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"
    retry = True
