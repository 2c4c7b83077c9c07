"""The dialect of `POST /v1/chat/completions`: a body is checked against the OpenAI API and becomes a ModelRequest.

Known fields are checked for type and range; unknown ones travel on to the expert as they are. Which kinds of content
parts may pass is for the policy to say.
"""

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from conclave.gateway.call import JSON, ModelRequest
from conclave.gateway.errors import InvalidRequest
from conclave.gateway.policy.rules import PART_NEEDS

PARAM: Final = re.compile(r" - at `\$\.?(.*)`$")  # msgspec ends its messages with the path of the wrong value


class Part(Struct):
    """One content part of a message."""

    type: str
    text: str | None = None


class Message(Struct):
    """One message; what else it holds goes on to the expert unseen."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class StreamOptions(Struct):
    include_usage: bool | None = None


class ResponseFormat(Struct):
    type: Literal["text", "json_object", "json_schema"]


class Body(Struct):
    """The fields of chat.completions that the gateway reads or bounds."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None
    tools: list[dict[str, Any]] | None = None
    functions: list[dict[str, Any]] | None = None
    response_format: ResponseFormat | None = None
    conclave: dict[str, Any] | None = None


def parse(body: bytes) -> ModelRequest:
    """A request from the body's bytes; raises InvalidRequest with the path of what is wrong."""
    raw = _decode(body)
    try:
        checked = msgspec.convert(raw, Body)
    except msgspec.ValidationError as error:
        found = PARAM.search(str(error))
        raise InvalidRequest(str(error), param=found[1] if found else None) from error
    return ModelRequest(
        body=raw,
        model=checked.model,
        stream=bool(checked.stream),
        include_usage=bool(checked.stream_options and checked.stream_options.include_usage),
        needs=frozenset(_needs(checked)),
    )


def _decode(body: bytes) -> dict[str, Any]:
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


def _needs(body: Body) -> list[str]:
    """The capabilities that an expert must have to do what was asked."""
    asked = {
        "tools": body.tools or body.functions,
        "n": body.n and body.n > 1,
        "logprobs": body.logprobs,
        "json_mode": body.response_format and body.response_format.type == "json_object",
        "json_schema": body.response_format and body.response_format.type == "json_schema",
    }
    parts = [part for message in body.messages if isinstance(message.content, list) for part in message.content]
    needed = {PART_NEEDS[part.type] for part in parts if part.type in PART_NEEDS}
    return [need for need, wanted in asked.items() if wanted] + sorted(needed)
