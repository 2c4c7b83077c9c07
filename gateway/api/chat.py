"""The dialect of `POST /v1/chat/completions`: a body is checked against the OpenAI API and becomes a ModelRequest.

Known fields are checked for type and range; unknown ones travel on to the expert as they are. Which kinds of content
parts may pass is for the policy to say.
"""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from conclave.gateway.api.body import ModelName, StreamOptions, checked, decode
from conclave.gateway.call import ModelRequest
from conclave.gateway.policy.rules import PART_NEEDS

FORMAT_NEEDS: Final = {"json_object": "json_mode", "json_schema": "json_schema"}
TOOL_ROLES: Final = frozenset({"tool", "function"})  # who reports what a tool did
HISTORY: Final = frozenset({"tool_calls", "function_call", "audio"})  # what an assistant did beside speaking


class Part(Struct):
    """One content part of a message."""

    type: str
    text: str | None = None


class Message(Struct):
    """One message; what else it holds goes on to the expert unseen."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ResponseFormat(Struct):
    """The shape of the answer; the schema itself is the expert's to check."""

    type: Literal["text", "json_object", "json_schema"]


class ChatBody(Struct):
    """The fields of chat.completions that the gateway reads or bounds; others go on to the expert."""

    model: ModelName
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=0)] | None = None
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
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    conclave: dict[str, Any] | None = None


def parse(body: bytes) -> ModelRequest:
    """A request from the body's bytes; raises InvalidRequest with the path of what is wrong."""
    raw = decode(body)
    known = checked(raw, ChatBody)
    return ModelRequest(
        body=raw,
        model=known.model,
        stream=bool(known.stream),
        include_usage=bool(known.stream_options and known.stream_options.include_usage),
        needs=frozenset(_needs(known, raw["messages"])),
    )


def _needs(body: ChatBody, messages: list[dict[str, Any]]) -> set[str]:
    """The capabilities that an expert must have to do what was asked."""
    needs: set[str] = set()
    if body.tools or body.functions:
        needs.add("tools")
    if body.n is not None and body.n > 1:
        needs.add("n")
    if body.logprobs:
        needs.add("logprobs")
    if body.response_format is not None and body.response_format.type in FORMAT_NEEDS:
        needs.add(FORMAT_NEEDS[body.response_format.type])
    if body.audio or (body.modalities and "audio" in body.modalities):
        needs.add("audio")
    parts = [part for message in body.messages if isinstance(message.content, list) for part in message.content]
    needs |= {PART_NEEDS[part.type] for part in parts if part.type in PART_NEEDS}
    if not (HISTORY.isdisjoint(set().union(*messages)) and TOOL_ROLES.isdisjoint([one.role for one in body.messages])):
        needs |= {need for message in messages for need in _needs_of_history(message)}
    return needs


def _needs_of_history(message: dict[str, Any]) -> set[str]:
    """An expert without tools, or ears, would not know what to make of what was called, or said, before."""
    calls = message["role"] in TOOL_ROLES or message.get("tool_calls") or message.get("function_call")
    return ({"tools"} if calls else set()) | ({"audio"} if message.get("audio") else set())
