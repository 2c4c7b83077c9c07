"""The JSON schemas of the OpenAPI document: of requests, from the structs that check them, and of answers.

What a struct cannot say, and a later stage of the call checks, is added here: which roles may be silent, which content
parts there are, what a tag looks like. Answers come from experts, so only the fields that always are there are named.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from conclave.gateway.access import tags
from conclave.gateway.api.body import MOST_INPUTS
from conclave.gateway.api.chat import ChatBody
from conclave.gateway.api.completions import CompletionsBody
from conclave.gateway.api.embeddings import EmbeddingsBody
from conclave.gateway.api.feedback import FeedbackBody
from conclave.gateway.api.moderations import ModerationsBody
from conclave.gateway.policy import inner
from conclave.gateway.policy.rules import PART_NEEDS
from conclave.gateway.policy.seeking import MODES
from conclave.safety.boundary.segments import DECLARABLE, MOST_DECLARED, TEXT_PARTS
from conclave.safety.toolcalls.confirm import MOST_TOKENS, TOKEN_CHARS

REF: Final = "#/components/schemas/{name}"
BODIES: Final = (ChatBody, CompletionsBody, EmbeddingsBody, ModerationsBody)
Schema = dict[str, Any]
TEXT: Final[Schema] = {"type": "string"}
TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
OBJECTS: Final[Schema] = {"type": "array", "items": {"type": "object"}}


def schemas() -> dict[str, Schema]:
    """All by name."""
    _, known = msgspec.json.schema_components((*BODIES, FeedbackBody), ref_template=REF)
    for body in BODIES:
        known[body.__name__]["properties"]["conclave"] = {"anyOf": [ref("Extension"), {"type": "null"}]}
    known["CompletionsBody"]["properties"]["prompt"] = _inputs()
    known["EmbeddingsBody"]["properties"]["input"] = _inputs()
    for name in ("EmbeddingsBody", "ModerationsBody"):
        known[name]["properties"]["stream"] = {"enum": [False, None]}
    known["ModerationsBody"]["properties"]["input"]["anyOf"][1]["anyOf"] = [
        {"items": TEXT},
        {"items": ref("ModeratedPart")},
    ]
    known["FeedbackBody"]["oneOf"] = [_said("score", other="thumbs"), _said("thumbs", other="score")]
    known["Message"] |= _message(known["Message"]["properties"])
    known["Part"] |= _part(known["Part"]["properties"], [*TEXT_PARTS, *PART_NEEDS])
    known["ModeratedPart"] |= _part(known["ModeratedPart"]["properties"], ["text", "image_url"])
    return {**known, "Extension": _extension(), **_answers()}


def ref(name: str) -> Schema:
    return {"$ref": REF.format(name=name)}


def _inputs() -> Schema:
    """A text, several, one text as token ids, or several of those."""
    ids = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}}
    several = {"type": "array", "minItems": 1, "maxItems": MOST_INPUTS}
    return {"anyOf": [TEXT, {**several, "items": TEXT}, ids, {**several, "items": ids}]}


def _said(name: str, *, other: str) -> Schema:
    """One of two is said, and the other is not."""
    null: Schema = {"type": "null"}
    return {"required": [name], "properties": {name: {"not": null}, other: null}}


def _message(properties: Mapping[str, Schema]) -> Schema:
    """Only an assistant, who may have called tools, can say nothing."""
    silent = {"properties": {"role": {"const": "assistant"}}}
    says = {"required": ["content"], "properties": {"content": {"not": {"type": "null"}}}}
    called = {
        "type": "object",
        "properties": {
            "function": {"type": "object", "properties": {"arguments": TEXT_OR_NULL}},
            "custom": {"type": "object", "properties": {"input": TEXT_OR_NULL}},
        },
    }
    calls = {"anyOf": [{"type": "array", "items": called}, {"type": "null"}]}
    return {"properties": {**properties, "refusal": TEXT_OR_NULL, "tool_calls": calls}, "anyOf": [silent, says]}


def _part(properties: Mapping[str, Schema], kinds: list[str]) -> Schema:
    """Each kind has its content; images, audio and files need an expert that takes them."""
    contents = {**{kind: (key, TEXT) for kind, key in TEXT_PARTS.items()}, **_files()}
    each = [
        {"required": [key], "properties": {"type": {"const": kind}, key: content}}
        for kind, (key, content) in contents.items()
        if kind in kinds
    ]
    return {"properties": {**properties, "type": {"enum": kinds}}, "anyOf": each}


def _files() -> dict[str, tuple[str, Schema]]:
    """By the kind of a part, where its content stands and what it must have; what is in it is looked at besides."""
    image: Schema = {"anyOf": [TEXT, {"type": "object", "required": ["url"], "properties": {"url": TEXT}}]}
    audio: Schema = {"type": "object", "required": ["data", "format"], "properties": {"data": TEXT, "format": TEXT}}
    file: Schema = {
        "type": "object",
        "properties": {"filename": TEXT_OR_NULL, "file_data": TEXT, "file_id": TEXT},
        "anyOf": [{"required": ["file_data"]}, {"required": ["file_id"]}],
    }
    return {"image_url": ("image_url", image), "input_audio": ("input_audio", audio), "file": ("file", file)}


def _extension() -> Schema:
    """The request's own object `conclave`."""
    about = "Tags of the call, which stand in its record; never sent to an expert."
    of_call = {**call_tags(tags.VALUE.pattern), "type": ["object", "null"], "description": about}
    named: Schema = {
        "type": ["string", "null"],
        "minLength": 1,
        "maxLength": tags.CONVERSATION_CHARS,
        "description": "What tells this conversation from others, the same with each of its calls; no expert sees it.",
    }
    origins: Schema = {
        "type": ["object", "null"],
        "maxProperties": MOST_DECLARED,
        "additionalProperties": {"enum": list(DECLARABLE)},
        "description": "Texts of this request that are data, by place, such as `messages[1].content[0]`.",
    }
    scope: Schema = {
        "type": ["string", "null"],
        "minLength": 1,
        "description": "One of the key's scopes, to which this request narrows itself.",
    }
    confirmed: Schema = {
        "type": ["array", "null"],
        "maxItems": MOST_TOKENS,
        "items": {"type": "string", "minLength": 1, "maxLength": TOKEN_CHARS},
        "description": "Tokens of earlier errors `confirmation_required`: each lets its call or request pass once.",
    }
    properties = {"tags": of_call, "conversation": named, "origins": origins, "scope": scope, "confirmed": confirmed}
    properties["retrieval"] = _retrieval()
    properties["moe"] = _inner()
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _retrieval() -> Schema:
    mode: Schema = {"enum": list(MODES)}
    names: Schema = {"type": ["array", "null"], "items": {"type": "string"}}
    detailed = {
        "type": "object",
        "properties": {"mode": {"enum": [*MODES, None]}, "collections": names},
        "additionalProperties": False,
    }
    about = "Whether the call is looked up in the library of documents, and in which collections."
    return {"anyOf": [mode, detailed, {"type": "null"}], "description": about}


def _inner() -> Schema:
    setting: Schema = {"type": ["string", "number", "boolean", "null"], "maxLength": inner.SETTING_CHARS}
    name = {"type": "string", "minLength": 1, "maxLength": inner.NAME_CHARS}
    detailed = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": name},
        "maxProperties": inner.SETTINGS,
        "propertyNames": {"maxLength": inner.SETTING_CHARS},
        "additionalProperties": setting,
    }
    most: Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": inner.MOST_EXPERTS}
    number: Schema = {"type": "integer", "minimum": 0, "maximum": inner.MOST_NUMBER}
    only: Schema = {"type": ["array", "null"], "minItems": 1, "maxItems": inner.MOST_EXPERTS, "items": number}
    return {
        "type": ["object", "null"],
        "properties": {"policy": {"anyOf": [name, detailed, {"type": "null"}]}, "experts_max": most, "experts": only},
        "additionalProperties": False,
        "description": "How a local mixture-of-experts model routes this call, within the key's scope.",
    }


def call_tags(value: str) -> Schema:
    """Tags with values of this pattern."""
    return {
        "type": "object",
        "maxProperties": tags.MOST,
        "propertyNames": {"pattern": f"^{tags.NAME.pattern}$"},
        "additionalProperties": {"type": "string", "pattern": f"^{value}$"},
    }


def _answers() -> dict[str, Schema]:
    """What comes back."""
    explained = {"conclave": {"type": "object", "description": "Which expert answered, and why."}}
    choices = {"id": TEXT, "object": TEXT, "choices": OBJECTS}
    numbers = {"type": "array", "items": {"type": "number"}}
    vector = _object({"index": COUNT, "embedding": {"anyOf": [numbers, {**TEXT, "contentEncoding": "base64"}]}})
    usage = _object({"prompt_tokens": COUNT, "total_tokens": COUNT})
    checks = {"type": "object", "additionalProperties": TEXT}
    return {
        "Error": _object(
            {"error": _object({"message": TEXT, "type": TEXT, "param": TEXT_OR_NULL, "code": TEXT_OR_NULL})}
        ),
        "ChatCompletion": _object(choices, explained),
        "TextCompletion": _object(choices, explained),
        "Embeddings": _object({"data": {"type": "array", "items": vector}}, {"usage": usage, **explained}),
        "Moderation": _object({"results": OBJECTS}, explained),
        "Model": _object({"id": TEXT, "object": {"const": "model"}, "created": COUNT, "owned_by": TEXT}),
        "Models": _object({"object": {"const": "list"}, "data": {"type": "array", "items": ref("Model")}}),
        "Deleted": _object({"id": TEXT, "object": {"const": "model"}, "deleted": {"const": False}}),
        "Feedback": _object(
            {"object": {"const": "feedback"}, "request_id": TEXT, "score": {"type": "number"}, "label": TEXT_OR_NULL}
        ),
        "Live": _object({"status": {"const": "ok"}}),
        "Ready": _object({"status": {"enum": ["ok", "unready"]}, "checks": checks}),
    }


def _object(required: dict[str, Schema], more: Mapping[str, Schema] | None = None) -> Schema:
    return {"type": "object", "required": list(required), "properties": {**required, **(more or {})}}
