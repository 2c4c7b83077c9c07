"""Writes an OpenAPI document of the operations that the gateway serves, out of the openai package's own types.

    python tests/conformance/document.py > openapi.json

Run with the interpreter whose openai is under test: the request types say what a client may send (a field that is not
in them makes the mock answer 400), the response types what it must be able to read. Nothing of OpenAI's is copied into
this repository, and the document can never be of another version than the tests that run against it. What types cannot
say stands here: paths, and that a stream ends with `[DONE]`.
"""

import json
import sys
from typing import Any

import openai
from openai import types
from openai.types import chat
from pydantic import TypeAdapter

DONE = {"event": None, "id": None, "data": "[DONE]"}

CHAT_CHUNKS = [
    {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None},
    {"index": 0, "delta": {"content": "hello"}, "finish_reason": None},
    {"index": 0, "delta": {}, "finish_reason": "stop"},
]
TEXT_CHUNKS = [
    {"index": 0, "text": "hello", "logprobs": None, "finish_reason": None},
    {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"},
]


def main() -> None:
    schemas: dict[str, Any] = {}
    paths = {
        "/chat/completions": post(
            schemas,
            request=chat.completion_create_params,
            answer=chat.ChatCompletion,
            event=chat.ChatCompletionChunk,
            events=stream("chat.completion.chunk", CHAT_CHUNKS),
        ),
        "/completions": post(
            schemas,
            request=types.completion_create_params,
            answer=types.Completion,
            event=types.Completion,
            events=stream("text_completion", TEXT_CHUNKS),
        ),
        "/embeddings": {"post": operation(schemas, types.CreateEmbeddingResponse, types.EmbeddingCreateParams)},
        "/moderations": {"post": operation(schemas, types.ModerationCreateResponse, types.ModerationCreateParams)},
        "/models": {"get": listing(schemas)},
        "/models/{model}": {
            "parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": operation(schemas, types.Model),
            "delete": operation(schemas, types.ModelDeleted),
        },
    }
    document = {
        "openapi": "3.1.0",
        "info": {"title": f"openai-python {openai.__version__}", "version": openai.__version__},
        "servers": [{"url": "http://127.0.0.1/v1"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }
    json.dump(document, sys.stdout)


def post(schemas: dict[str, Any], *, request: Any, answer: Any, event: Any, events: list[Any]) -> dict[str, Any]:
    """An operation that streams if it is asked to: its two request types differ in `stream` alone."""
    both = [
        closed(schemas, params)
        for params in (request.CompletionCreateParamsNonStreaming, request.CompletionCreateParamsStreaming)
    ]
    made = operation(schemas, answer)
    made["requestBody"] = body({"anyOf": both})
    made["responses"]["200"]["content"]["text/event-stream"] = {"schema": schema(schemas, event), "example": events}
    return {"post": made}


def operation(schemas: dict[str, Any], answer: Any, request: Any = None) -> dict[str, Any]:
    made: dict[str, Any] = {"responses": {"200": ok(schema(schemas, answer))}}
    if request is not None:
        made["requestBody"] = body(closed(schemas, request))
    return made


def listing(schemas: dict[str, Any]) -> dict[str, Any]:
    """A page of models: the package has a class for it, but no type of its own."""
    page = {
        "type": "object",
        "required": ["object", "data"],
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": schema(schemas, types.Model)}},
    }
    return {"responses": {"200": ok(page)}}


def ok(answer: dict[str, Any]) -> dict[str, Any]:
    return {"description": "OK", "content": {"application/json": {"schema": answer}}}


def body(request: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": request}}}


def closed(schemas: dict[str, Any], params: Any) -> dict[str, Any]:
    """The schema of a request, in which no field is that the type does not have."""
    return {**schema(schemas, params), "additionalProperties": False}


def schema(schemas: dict[str, Any], of: Any) -> dict[str, Any]:
    """The JSON schema of a type. The definitions that it needs go to `schemas` under its name: two types may each have
    a `Moderation` of their own."""
    made = TypeAdapter(of).json_schema(ref_template=f"#/components/schemas/{of.__name__}.{{model}}")
    schemas.update({f"{of.__name__}.{name}": found for name, found in made.pop("$defs", {}).items()})
    return made


def stream(kind: str, choices: list[dict[str, Any]]) -> list[Any]:
    """The events of an answer, and its end."""
    same = {"id": "mock-1", "object": kind, "created": 1, "model": "mock"}
    return [{"event": None, "id": None, "data": {**same, "choices": [choice]}} for choice in choices] + [DONE]


if __name__ == "__main__":
    main()
