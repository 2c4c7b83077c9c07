"""The dialect of `POST /v1/completions`, the older way to ask: one text in, its continuation out.

Experts with the capability `completions` are asked as the client wrote. All others are asked the prompt as a chat with
one message, and `as_text` makes text completions of what they say. What a chat cannot do (several prompts, token ids,
`suffix`, `echo`, `best_of`, `logprobs`) makes `completions` a need: it is never dropped. What only a chat can do
(tools, sound, a shape for the answer) is refused: it would reach an expert of which nobody asked whether it can.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from conclave.gateway.api.body import Inputs, ModelName, StreamOptions, check_inputs, checked, decode
from conclave.gateway.api.chat import ChatBody
from conclave.gateway.call import END, SILENCE, Chunk, ModelRequest
from conclave.gateway.errors import InvalidRequest

CHAT_ID: Final = "chatcmpl-"
TEXT_ID: Final = "cmpl-"
OBJECT: Final = "text_completion"  # of plain answers and of a stream's events alike


class CompletionsBody(Struct):
    """The fields of completions that the gateway reads or bounds; others go on to the expert."""

    model: ModelName
    prompt: Inputs
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    suffix: str | None = None
    echo: bool | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, Meta(ge=0, le=128)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None
    conclave: dict[str, Any] | None = None


CHAT_ONLY: Final = tuple(name for name in ChatBody.__struct_fields__ if name not in CompletionsBody.__struct_fields__)


def parse(body: bytes) -> ModelRequest:
    """A request from the body's bytes; raises InvalidRequest with the path of what is wrong."""
    raw = decode(body)
    known = checked(raw, CompletionsBody)
    check_inputs(known.prompt, param="prompt")
    _refuse_chat(raw)
    return ModelRequest(
        body=raw,
        model=known.model,
        stream=bool(known.stream),
        include_usage=bool(known.stream_options and known.stream_options.include_usage),
        needs=frozenset(_needs(known)),
        operation="completions",
    )


def _refuse_chat(raw: dict[str, Any]) -> None:
    for name in CHAT_ONLY:
        if raw.get(name) is not None:
            raise InvalidRequest(f"text completions have no {name}: ask /v1/chat/completions", param=name)


def _needs(body: CompletionsBody) -> list[str]:
    """`completions` if a chat could not do what was asked; several answers need an expert that gives them."""
    beyond_chat = (
        not (isinstance(body.prompt, str) or (len(body.prompt) == 1 and isinstance(body.prompt[0], str)))
        or body.suffix
        or body.echo
        or (body.best_of or 1) > 1
        or body.logprobs is not None
        or body.max_tokens == 0  # with `echo`: score the prompt
    )
    needs = ["completions"] if beyond_chat else []
    return [*needs, "n"] if (body.n or 1) > 1 and not beyond_chat else needs


def as_text(chunk: Chunk) -> Chunk:
    """A chunk of a chat's answer as text completions have it; a native one as it is.

    Usage, finish reasons and the `conclave` object stay. Reasoning is no part of the text, a refusal is.
    """
    if chunk is SILENCE or chunk is END or chunk.event.get("object") == OBJECT:
        return chunk
    event = {**chunk.event, "object": OBJECT}
    if isinstance(event.get("id"), str):
        event["id"] = TEXT_ID + event["id"].removeprefix(CHAT_ID).removeprefix(TEXT_ID)
    event["choices"] = [_choice(choice) for choice in event["choices"]]
    return Chunk(msgspec.json.encode(event))


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    said = choice.get("message", choice.get("delta"))
    if not isinstance(said, dict):
        return choice  # a server that gives its text completions another name
    text = said.get("content") or said.get("refusal")
    return {
        "index": choice.get("index", 0),
        "text": text if isinstance(text, str) else "",
        "logprobs": None,
        "finish_reason": choice.get("finish_reason"),
    }
