"""Takes the messages, or the bare inputs, of a request apart: every text with its origin, folded view and place.

Pure functions over plain values, in one pass. They refuse what is no list of messages and no input; they never judge
what a text says and never drop one. A caller may say which of its own texts are data (`declared`); nothing that anybody
says makes data anything else.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from conclave.safety.api import Origin, Segment
from conclave.safety.boundary.caps import BoundaryError, Caps, check_shape, check_utf8
from conclave.safety.boundary.normalise import fold

ORIGINS: Final[Mapping[str, Origin]] = {
    "system": Origin.SYSTEM,
    "developer": Origin.DEVELOPER,
    "user": Origin.USER,
    "assistant": Origin.ASSISTANT,
    "tool": Origin.TOOL,
    "function": Origin.TOOL,  # what `tool` was called before
}
TOKEN_IDS: Final = 300_000  # in one request, as OpenAI has it; they are numbers, no text that anything here could read
TEXT_PARTS: Final[Mapping[str, str]] = {"text": "text", "refusal": "refusal"}  # part type -> the key of its text
SOURCES: Final = ("tool_call_id", "name")  # what of a tool's message says where its text came from
SOURCE_CHARS: Final = 256  # of what a client calls a source
DECLARABLE: Final[Mapping[str, Origin]] = {
    one.value: one for one in (Origin.RETRIEVED, Origin.FILE, Origin.MEMORY, Origin.TOOL)
}
NAME_CHARS: Final = 64  # of who speaks, as OpenAI has it,
NO_NAME: Final = re.compile(r"[\s<|\\/>]")  # and these may not be in it
MOST_DECLARED: Final = 1_000  # places in one request
PLACE_CHARS: Final = 64  # of a place that a caller names, and of what is shown beside it


@dataclass(frozen=True, slots=True)
class Reading:
    """The texts of a request, and the kinds of its other content parts, each with the place where it first stands."""

    segments: tuple[Segment, ...]
    parts: Mapping[str, str]


def read_messages(messages: object, caps: Caps) -> Reading:
    """Read `messages` as chat.completions has them; BoundaryError says what is wrong and where."""
    if not isinstance(messages, list):
        raise BoundaryError("messages must be a list", place="messages")
    if not messages:
        raise BoundaryError("messages must hold at least one message", place="messages")
    if len(messages) > caps.messages:
        raise BoundaryError(f"more than {caps.messages} messages ({len(messages)})", place="messages")
    segments: list[Segment] = []
    parts: dict[str, str] = {}
    room = caps.text_chars
    for index, message in enumerate(messages):
        for origin, text, place in _texts(message, f"messages[{index}]", parts):
            check_utf8(text, place=place)
            folded = fold(text, max_chars=room, place=place)
            room -= len(folded)
            segments.append(Segment(origin, text, folded, place, _source(message, origin, text)))
    return Reading(tuple(segments), parts)


def declared(segments: Sequence[Segment], origins: object, *, field: str) -> tuple[Segment, ...]:
    """The segments, those at the places that the caller names as what it says they are: data of some kind.

    `origins` is the caller's own object, from place to origin, in the `field` of its request. Trust only falls: a text
    becomes data, or data of another kind. BoundaryError for a place where no text stands, and for an origin that is no
    data.
    """
    if origins is None:
        return tuple(segments)
    if not isinstance(origins, dict):
        example = '{"messages[1].content": "retrieved"}'
        raise BoundaryError(f"{field} must be an object such as {example}", place=field)
    if len(origins) > MOST_DECLARED:
        raise BoundaryError(f"{field} names more than {MOST_DECLARED} places ({len(origins)})", place=field)
    places = {segment.place for segment in segments}
    for place, name in origins.items():
        if not isinstance(name, str) or name not in DECLARABLE:
            words = f"{field}: the origin of {place[:PLACE_CHARS]!r} must be one of {', '.join(DECLARABLE)}"
            raise BoundaryError(words, place=field)
        if place not in places:
            raise BoundaryError(f"{field}: {_nowhere(place, segments)}", place=field)
    return tuple(
        replace(segment, origin=DECLARABLE[origins[segment.place]]) if segment.place in origins else segment
        for segment in segments
    )


def _nowhere(place: str, segments: Sequence[Segment]) -> str:
    """That no text stands at a place, and which one was probably meant."""
    words = f"there is no text at {place[:PLACE_CHARS]!r}"
    near = next((one.place for one in segments if place and one.place.startswith(place)), None)
    near = near or next((one.place for one in segments), None)
    return f"{words}; one stands at {near[:PLACE_CHARS]!r}" if near else words


def _source(message: Mapping[str, object], origin: Origin, text: str) -> str:
    """Where data says that it came from: a tool's call or name, a file's name."""
    if origin is Origin.FILE:
        return text[:SOURCE_CHARS]
    if origin is not Origin.TOOL:
        return ""
    said = (message.get(key) for key in SOURCES)
    return next((one[:SOURCE_CHARS] for one in said if isinstance(one, str) and one), "")


def read_inputs(inputs: object, caps: Caps, *, place: str) -> Reading:
    """Read what embeddings, completions and moderations are asked about: a text, texts, token ids or content parts."""
    if isinstance(inputs, str):
        return _user_texts([(inputs, place)], {}, caps)
    if not isinstance(inputs, list) or not inputs:
        raise BoundaryError(f"{place} must be a text or a list with at least one item", place=place)
    _check_token_ids(inputs, place)
    parts: dict[str, str] = {}
    texts: list[tuple[str, str]] = []
    for index, item in enumerate(inputs):
        if isinstance(item, str):
            texts.append((item, f"{place}[{index}]"))
        elif isinstance(item, dict):
            check_shape(item, nesting=caps.nesting)
            texts += [(text, at) for _, text, at in _part(item, Origin.USER, f"{place}[{index}]", parts)]
        elif not isinstance(item, int | list):
            raise BoundaryError("an input must be a text, token ids or a content part", place=f"{place}[{index}]")
    return _user_texts(texts, parts, caps)


def _user_texts(texts: list[tuple[str, str]], parts: dict[str, str], caps: Caps) -> Reading:
    segments: list[Segment] = []
    room = caps.text_chars
    for text, place in texts:
        check_utf8(text, place=place)
        folded = fold(text, max_chars=room, place=place)
        room -= len(folded)
        segments.append(Segment(Origin.USER, text, folded, place))
    return Reading(tuple(segments), parts)


def _check_token_ids(inputs: list[object], place: str) -> None:
    """A text may come as the numbers of its tokens; there may be so many of them in all."""
    ids = 0
    for index, item in enumerate(inputs):
        if not isinstance(item, list):
            ids += isinstance(item, int)
        elif all(type(one) is int for one in item):
            ids += len(item)
        else:
            raise BoundaryError("a list within the list must hold token ids only", place=f"{place}[{index}]")
    if ids > TOKEN_IDS:
        raise BoundaryError(f"more than {TOKEN_IDS} token ids ({ids})", place=place, too_large=True)


def _texts(message: object, place: str, parts: dict[str, str]) -> Iterator[tuple[Origin, str, str]]:
    if not isinstance(message, dict):
        raise BoundaryError("a message must be an object", place=place)
    role = message.get("role")
    origin = ORIGINS.get(role) if isinstance(role, str) else None
    if origin is None:
        raise BoundaryError(f"role must be one of {', '.join(ORIGINS)}", place=f"{place}.role")
    if origin is not Origin.TOOL:  # a tool's may have any sign in it
        _check_name(message.get("name"), f"{place}.name")
    yield from _content(message.get("content"), origin, f"{place}.content", parts)
    if origin is Origin.ASSISTANT:
        yield from _optional(message, "refusal", origin, place)
        yield from _tool_calls(message.get("tool_calls"), f"{place}.tool_calls")


def _content(content: object, origin: Origin, place: str, parts: dict[str, str]) -> Iterator[tuple[Origin, str, str]]:
    if isinstance(content, str):
        yield origin, content, place
    elif isinstance(content, list):
        for index, part in enumerate(content):
            yield from _part(part, origin, f"{place}[{index}]", parts)
    elif content is not None or origin is not Origin.ASSISTANT:  # an assistant that called tools may have said nothing
        raise BoundaryError("content must be a string or a list of parts", place=place)


def _part(part: object, origin: Origin, place: str, parts: dict[str, str]) -> Iterator[tuple[Origin, str, str]]:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str):
        raise BoundaryError("a content part must be an object with a type", place=place)
    if key := TEXT_PARTS.get(kind):
        text = part.get(key)
        if not isinstance(text, str):
            raise BoundaryError(f"a part of type {kind} must hold a string in {key!r}", place=f"{place}.{key}")
        yield origin, text, place
        return
    parts.setdefault(kind, place)
    if kind == "file" and isinstance(part.get("file"), dict):
        yield from _optional(part["file"], "filename", Origin.FILE, f"{place}.file")


def _tool_calls(calls: object, place: str) -> Iterator[tuple[Origin, str, str]]:
    """The arguments of an assistant's tool calls: text that a model wrote and the client sends back."""
    if calls is None:
        return
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise BoundaryError("tool_calls must be a list of objects", place=place)
    for index, call in enumerate(calls):
        for kind, key in (("function", "arguments"), ("custom", "input")):
            inner = call.get(kind)
            if isinstance(inner, dict):
                yield from _optional(inner, key, Origin.ASSISTANT, f"{place}[{index}].{kind}")


def _check_name(name: object, place: str) -> None:
    """Experts read it, and no check does: it may be a name, as OpenAI takes it, and no sentence."""
    if isinstance(name, str) and (len(name) > NAME_CHARS or NO_NAME.search(name)):
        raise BoundaryError(
            f"name must be at most {NAME_CHARS} characters without spaces, `<`, `>`, `|`, `/` and backslashes",
            place=place,
        )


def _optional(holder: Mapping[str, object], key: str, origin: Origin, place: str) -> Iterator[tuple[Origin, str, str]]:
    text = holder.get(key)
    if isinstance(text, str):
        yield origin, text, f"{place}.{key}"
    elif text is not None:
        raise BoundaryError(f"{key} must be a string", place=f"{place}.{key}")
