"""Reads the body of `POST /v1/chat/completions`: what is asked, or one sentence on what is wrong with it.

What this expert cannot do and what would change the answer (tools, images, JSON schemas, several answers, penalties)
is refused, never dropped. Fields that change nothing here (`user`, `store`, `metadata`, ...) are let pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from conclave.moe.errors import InvalidRequest, Unsupported

STOPS_MAX: Final = 4  # as OpenAI's API
STOP_CHARS: Final = 256
MESSAGES_MAX: Final = 1000
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Inner = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31)]


class Text(msgspec.Struct):
    """A text part of a message."""

    type: str
    text: str = ""


class Said(msgspec.Struct):
    """One message."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Text] | None = None
    tool_calls: list[Any] | None = None


class MoeOptions(msgspec.Struct, forbid_unknown_fields=True):
    """`conclave.moe` of a request."""

    policy: str | dict[str, Any] | None = None
    experts_max: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    experts: Annotated[list[Inner], msgspec.Meta(min_length=1, max_length=4096)] | None = None  # the only ones to use


class Extension(msgspec.Struct):
    """`conclave` of a request; what else it holds is for the gateway."""

    moe: MoeOptions | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Format(msgspec.Struct):
    type: str = "text"


class Body(msgspec.Struct):
    """The fields that are looked at."""

    model: str
    messages: Annotated[list[Said], msgspec.Meta(min_length=1, max_length=MESSAGES_MAX)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    conclave: Extension | None = None
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: Format | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None
    modalities: list[str] | None = None
    continue_final_message: bool | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A chat that is to be continued. None: as the checkpoint and the server have it."""

    model: str
    messages: tuple[dict[str, str], ...]
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None  # None: no logprobs
    policy: dict[str, Any] | str | None = None
    experts_max: int | None = None
    experts: tuple[int, ...] | None = None


def read(body: bytes) -> Ask:
    """The request in `body`. Raises InvalidRequest or Unsupported."""
    try:
        given = msgspec.json.decode(body, type=Body)
    except msgspec.ValidationError as wrong:
        raise InvalidRequest(f"the request does not fit: {wrong}", param=_place(str(wrong))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise InvalidRequest(f"the body is no JSON: {wrong}") from None
    _refuse_what_we_cannot(given)
    moe = (given.conclave.moe if given.conclave else None) or MoeOptions()
    options = given.stream_options
    return Ask(
        model=given.model,
        messages=tuple({"role": said.role, "content": _text(said, at)} for at, said in enumerate(given.messages)),
        stream=bool(given.stream),
        include_usage=bool(options and options.include_usage),
        max_tokens=given.max_completion_tokens or given.max_tokens,
        temperature=given.temperature,
        top_p=given.top_p,
        seed=given.seed,
        stop=_stops(given.stop),
        top_logprobs=_logprobs(given),
        policy=moe.policy,
        experts_max=moe.experts_max,
        experts=tuple(moe.experts) if moe.experts is not None else None,
    )


def _refuse_what_we_cannot(given: Body) -> None:
    form = given.response_format.type if given.response_format else "text"
    wanted = {
        "n": given.n not in {None, 1},
        "tools": bool(given.tools),
        "functions": bool(given.functions),
        "response_format": form != "text",
        "presence_penalty": bool(given.presence_penalty),
        "frequency_penalty": bool(given.frequency_penalty),
        "logit_bias": bool(given.logit_bias),
        "continue_final_message": bool(given.continue_final_message),
        "modalities": given.modalities not in (None, ["text"]),
    }
    for name, asked in wanted.items():
        if asked:
            raise Unsupported(f"this expert answers with one plain text; it has no {name}", param=name)


def _text(said: Said, at: int) -> str:
    place = f"messages[{at}].content"
    if said.tool_calls:
        raise Unsupported("this expert reads no tool calls", param=f"messages[{at}].tool_calls")
    parts: Sequence[Text] = [Text("text", said.content or "")] if not isinstance(said.content, list) else said.content
    for part in parts:
        if part.type != "text":
            raise Unsupported(f"this expert reads text, no part of type {part.type[:40]!r}", param=place)
    return "\n".join(part.text for part in parts)


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > STOPS_MAX or any(not 1 <= len(text) <= STOP_CHARS for text in stops):
        raise InvalidRequest(f"stop takes up to {STOPS_MAX} texts of 1 to {STOP_CHARS} characters each", param="stop")
    return stops


def _logprobs(given: Body) -> int | None:
    if given.top_logprobs is not None and not given.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    return (given.top_logprobs or 0) if given.logprobs else None


def _place(message: str) -> str | None:
    """The field of `... - at `$.stop[0]``."""
    _, found, place = message.rpartition("at `$.")
    return place.rstrip("`") if found else None
