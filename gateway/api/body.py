"""What the bodies of all dialects share: JSON is read here, and checked against a struct of known fields.

A number that JSON can write keeps its value, however long an integer is (up to 4,300 digits); `NaN`, numbers that no
double holds and lone surrogates are refused. Of a key that is given twice the last value counts, and is the only one
that an expert is sent: nobody behind the gateway can read another request than was checked here.
"""

import re
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from conclave.gateway.call import JSON
from conclave.gateway.errors import InvalidRequest

PARAM: Final = re.compile(r" - at `\$\.?(.*)`$")  # msgspec ends its messages with the path of the wrong value
MISSING: Final = re.compile(r"Object missing required field `(\w+)`")  # and the path is that of the object
MOST_INPUTS: Final = 2048  # texts in one request, as OpenAI has it

Known = TypeVar("Known", bound=Struct)
ModelName = Annotated[str, Meta(min_length=1, max_length=256)]
TokenId = Annotated[int, Meta(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Meta(min_length=1)]
Inputs = str | Annotated[list[str | TokenId | TokenIds], Meta(min_length=1)]  # `check_inputs` refuses a mixture


class StreamOptions(Struct):
    """What a stream tells beside the answer."""

    include_usage: bool | None = None


def decode(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; raises InvalidRequest."""
    if not body.strip():
        raise InvalidRequest("the request body is empty; a JSON object is needed", code="invalid_json")
    try:
        raw = JSON.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the request body is not valid JSON: {error}", code="invalid_json") from error
    except RecursionError as error:
        raise InvalidRequest("the request body is nested too deeply", code="invalid_json") from error
    if not isinstance(raw, dict):
        raise InvalidRequest("the request body must be a JSON object", code="invalid_json")
    return raw


def checked(raw: dict[str, Any], known: type[Known]) -> Known:
    """The known fields of a body; raises InvalidRequest with the path of what is wrong."""
    try:
        return msgspec.convert(raw, known)
    except msgspec.ValidationError as error:
        matches = PARAM.search(str(error)), MISSING.match(str(error))
        path = ".".join(match[1] for match in matches if match and match[1])
        raise InvalidRequest(str(error), param=path or None) from error


def check_inputs(inputs: str | list[Any], *, param: str) -> None:
    """Refuse a mixture of texts and token ids, and more texts than one request may have."""
    if isinstance(inputs, str):
        return
    if len({type(one) for one in inputs}) > 1:
        raise InvalidRequest(
            f"{param} must hold texts, or token ids, or lists of token ids, and not a mixture of them", param=param
        )
    if not isinstance(inputs[0], int) and len(inputs) > MOST_INPUTS:
        raise InvalidRequest(f"{param} holds more than {MOST_INPUTS} texts ({len(inputs)})", param=param)
