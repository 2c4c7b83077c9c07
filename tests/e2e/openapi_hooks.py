"""What `schemathesis` is told of the gateway: loaded by its process, not by pytest (see test_openapi_fuzzed.py).

A model's name that could be one is replaced by that of an expert who answers everything: else each call would end with
404. Origins that could be declared are left out: no schema can say where this request has texts. Images, recordings and
files get a content that is one: no schema can say what bytes are a picture. `1.0` becomes `1`: to
JSON Schema both are integers, to the gateway only the second. Beside the document, some
things hold for every answer: it has a request id, an error has OpenAI's envelope, a stream's events are JSON.
"""

import json
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

from conclave.safety.boundary.segments import DECLARABLE, MOST_DECLARED

EXPERT = "every"
CONTENTS = {
    "image_url": {"url": "https://example.com/a.png"},
    "input_audio": {"data": "UklGRiQAAABXQVZFZm10IA==", "format": "wav"},
    "file": {"file_id": "file-1"},
}
LONGEST = 256
KEYS = {"message", "type", "param", "code"}
OURS = {500, 503}  # what no request may cause; 502 and 504 are words about an expert


@schemathesis.hook
def map_body(context: HookContext, body: Any) -> Any:
    body = _carrying(_unbound(_placed(whole(body))))
    if isinstance(body, dict) and isinstance(name := body.get("model"), str) and 0 < len(name) <= LONGEST:
        return {**body, "model": EXPERT}
    return body


@schemathesis.hook
def filter_case(context: HookContext, case: Case) -> bool:
    """Not the tags that are lost on the way to the header: an empty one says nothing, and nothing is wrong with it."""
    return (case.headers or {}).get("x-conclave-tags") != ""


def _unbound(body: Any) -> Any:
    """The body without a scope that could be one: this gateway's policy knows none."""
    own = body.get("conclave") if isinstance(body, dict) else None
    if isinstance(own, dict) and isinstance(own.get("scope"), str) and own["scope"]:
        return {**body, "conclave": {key: value for key, value in own.items() if key != "scope"}}
    return body


def _placed(body: Any) -> Any:
    """The body without origins that are nothing but misplaced."""
    own = body.get("conclave") if isinstance(body, dict) else None
    origins = own.get("origins") if isinstance(own, dict) else None
    if (
        isinstance(origins, dict)
        and len(origins) <= MOST_DECLARED
        and set(map(str, origins.values())) <= set(DECLARABLE)
    ):
        return {**body, "conclave": {**own, "origins": None}}
    return body


def _carrying(value: Any) -> Any:
    """The value with a content in each part that has one of the right shape."""
    match value:
        case {"type": ("image_url" | "input_audio" | "file") as kind} if isinstance(value.get(kind), dict | str):
            return {**value, kind: CONTENTS[kind]}
        case dict():
            return {key: _carrying(one) for key, one in value.items()}
        case list():
            return [_carrying(one) for one in value]
    return value


def whole(value: Any) -> Any:
    """The value with its whole numbers written as such."""
    match value:
        case dict():
            return {key: whole(one) for key, one in value.items()}
        case list():
            return [whole(one) for one in value]
        case float() if value.is_integer():
            return int(value)
    return value


@schemathesis.check
def every_answer_has_a_request_id(context: CheckContext, response: Response, case: Case) -> None:
    assert response.headers["x-request-id"][0].startswith("req_")


@schemathesis.check
def every_error_has_the_envelope(context: CheckContext, response: Response, case: Case) -> None:
    if response.status_code >= 400:
        assert response.json().keys() == {"error"}
        error = response.json()["error"]
        assert error.keys() == KEYS
        assert isinstance(error["message"], str)
        assert isinstance(error["type"], str)


@schemathesis.check
def every_stream_is_whole(context: CheckContext, response: Response, case: Case) -> None:
    if response.headers["content-type"][0].startswith("text/event-stream"):
        *events, last, empty = response.content.split(b"\n\n")
        assert (last, empty) == (b"data: [DONE]", b"")
        assert all("choices" in json.loads(event.removeprefix(b"data: ")) for event in events)


@schemathesis.check
def no_request_breaks_the_gateway(context: CheckContext, response: Response, case: Case) -> None:
    assert response.status_code not in OURS
