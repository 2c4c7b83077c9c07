"""The OpenAPI document of the data plane, served at `/openapi.json` without a key: it holds nothing but the API.

A test holds its paths against those that are served, its statuses against the errors that there are, and its request
schemas come from the structs that check the requests (`schemas.py`).
"""

from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec

from conclave.gateway.access import tags
from conclave.gateway.api.schemas import call_tags, ref, schemas

JSON: Final = "application/json"
REFUSALS: Final = {  # of every endpoint that a key opens: status -> what it says
    "401": "No key, or one that is unknown, expired or revoked.",
    "403": "The key does not reach this expert or tool, the call is not signed as it must be, or a foreign page asks.",
    "429": "More requests than the key may make, or than the gateway can take; `retry-after` says when to come back.",
    "500": "An error of the gateway's own.",
    "503": "This replica takes no calls just now.",
}
NO_MODEL: Final = {"404": "There is no such model."}
CALL_REFUSALS: Final = {
    **REFUSALS,
    **NO_MODEL,
    "400": "The request is wrong, or asks for what no expert in reach can do; `param` names the field.",
    "408": "The body did not arrive in time.",
    "413": "The body, or the text in it, is too large.",
    "422": "The answer has to rest on documents, and there are none to be relied on.",
    "502": "No expert could answer.",
    "504": "The call's time was up.",
}
FEEDBACK_REFUSALS: Final = {
    **REFUSALS,
    "400": "The request is wrong; `param` names the field.",
    "404": "There is no such call of this key's tenant.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
}
TAGS: Final = {
    "name": tags.HEADER,
    "in": "header",
    "required": False,
    "description": "Tags of the call: `team=search, env=prod`.",
    "style": "simple",
    "explode": True,
    "schema": call_tags(tags.VALUE_IN_HEADER.pattern),
}


@cache
def document() -> bytes:
    """The document as JSON; made when it is first asked for."""
    return msgspec.json.encode(described())


def described() -> dict[str, Any]:
    """The document."""
    bearer = {"type": "http", "scheme": "bearer", "description": "Not needed on loopback while there is no key."}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Conclave",
            "version": version("conclave-gateway"),
            "description": "A multi-expert LLM gateway that speaks the OpenAI API. Unknown fields go on to the expert.",
        },
        "security": [{"key": []}, {}],
        "paths": _paths(),
        "components": {"schemas": schemas(), "securitySchemes": {"key": bearer}},
    }


def _paths() -> dict[str, Any]:
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    unready = {"description": "It cannot; `checks` says why.", "content": {JSON: {"schema": ref("Ready")}}}
    return {
        "/v1/chat/completions": _call("createChatCompletion", "ChatBody", "ChatCompletion", streams=True),
        "/v1/completions": _call("createCompletion", "CompletionsBody", "TextCompletion", streams=True),
        "/v1/embeddings": _call("createEmbedding", "EmbeddingsBody", "Embeddings"),
        "/v1/moderations": _call("createModeration", "ModerationsBody", "Moderation"),
        "/v1/models": {"get": _plain("listModels", "What a caller may put into `model`.", ref("Models"), REFUSALS)},
        "/v1/models/{model}": {
            "parameters": [model],
            "get": _plain("retrieveModel", "One of them.", ref("Model"), REFUSALS | NO_MODEL),
            "delete": _plain("deleteModel", "Deletes nothing, and says so.", ref("Deleted"), REFUSALS | NO_MODEL),
        },
        "/v1/feedback": {"post": _feedback()},
        "/livez": {"get": _open("livez", "This process answers.", ref("Live"))},
        "/readyz": {"get": _open("readyz", "It can serve a call.", ref("Ready"), {"503": unready})},
        "/openapi.json": {"get": _open("openapi", "This document.", {"type": "object"})},
    }


def _call(name: str, body: str, answer: str, *, streams: bool = False) -> dict[str, Any]:
    """An endpoint of class Respond."""
    words = "The answer; with `stream` as server-sent events, the last of them `[DONE]`." if streams else "The answer."
    about = _plain(name, words, ref(answer), CALL_REFUSALS)
    if streams:
        about["responses"]["200"]["content"]["text/event-stream"] = {}  # OpenAPI 3.1 cannot say what an event holds
    sent = {"required": True, "content": {JSON: {"schema": ref(body)}}}
    return {"parameters": [TAGS], "post": {**about, "requestBody": sent}}


def _feedback() -> dict[str, Any]:
    about = _plain("createFeedback", "What was said, as it is kept.", ref("Feedback"), FEEDBACK_REFUSALS)
    return {**about, "requestBody": {"required": True, "content": {JSON: {"schema": ref("FeedbackBody")}}}}


def _open(name: str, about: str, answer: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
    """An endpoint that needs no key."""
    plain = _plain(name, about, answer, {})
    return {**plain, "responses": {**plain["responses"], **(more or {})}, "security": []}


def _plain(name: str, about: str, answer: dict[str, Any], refusals: dict[str, str]) -> dict[str, Any]:
    refused = {
        status: {"description": words, "content": {JSON: {"schema": ref("Error")}}}
        for status, words in sorted(refusals.items())
    }
    good = {"description": about, "content": {JSON: {"schema": answer}}}
    return {"operationId": name, "responses": {"200": good, **refused}}
