"""What an application does with the openai package, and what it sees: one JSON object, a key a scenario.

    python tests/clients/scenarios.py BASE_URL KEY LIMITED_KEY

Runs under any interpreter that has openai 2 or 3 and nothing else. scenarios.mjs does the same with openai-node; what
each must see stands in test_matrix.py. A scenario that raises is reported, not hidden.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import openai

BASE_URL, KEY, LIMITED_KEY = sys.argv[1:]
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
WEATHER: list[Any] = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
]
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "report",
        "strict": True,
        "schema": {"type": "object", "properties": {"degrees": {"type": "integer"}}, "required": ["degrees"]},
    },
}
Facts = dict[str, Any]


def client(key: str = KEY, **more: Any) -> tuple[openai.OpenAI, list[str]]:
    """A client, and the paths of the requests that it has sent: each retry is one more."""
    sent: list[str] = []
    http = openai.DefaultHttpxClient(event_hooks={"request": [lambda request: sent.append(request.url.path)]})
    return openai.OpenAI(base_url=BASE_URL, api_key=key, http_client=http, **more), sent


def plain() -> Facts:
    at, _ = client()
    raw = at.chat.completions.with_raw_response.create(model="echo", messages=HELLO)
    answer = raw.parse()
    return {
        "content": answer.choices[0].message.content,
        "total_tokens": answer.usage.total_tokens if answer.usage else None,
        "expert": raw.headers["x-conclave-expert"],
        "same_id": raw.headers["x-request-id"] == (answer.model_extra or {})["conclave"]["request_id"],
    }


def stream_with_usage() -> Facts:
    at, _ = client()
    options: Any = {"include_usage": True}
    chunks: list[Any] = list(
        at.chat.completions.create(model="echo", messages=HELLO, stream=True, stream_options=options)
    )
    return {
        "role": chunks[0].choices[0].delta.role,
        "content": "".join(one.choices[0].delta.content or "" for one in chunks if one.choices),
        "finish_reason": next(one.choices[0].finish_reason for one in reversed(chunks) if one.choices),
        "last_choices": len(chunks[-1].choices),
        "total_tokens": chunks[-1].usage.total_tokens,
        "usage_before": sum(one.usage is not None for one in chunks[:-1]),
    }


def tools_in_streams() -> Facts:
    at, _ = client()
    messages: list[Any] = [{"role": "user", "content": "weather in Paris?"}]
    call: dict[str, str] = {"id": "", "name": "", "arguments": ""}
    finish = None
    for chunk in at.chat.completions.create(model="tools", messages=messages, tools=WEATHER, stream=True):
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for piece in choice.delta.tool_calls or []:
                call["id"] += piece.id or ""
                call["name"] += (piece.function and piece.function.name) or ""
                call["arguments"] += (piece.function and piece.function.arguments) or ""
    made = {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
    messages += [{"role": "assistant", "content": None, "tool_calls": [made]}]
    messages += [{"role": "tool", "tool_call_id": call["id"], "content": "21 degrees"}]
    answer = at.chat.completions.create(model="tools", messages=messages, tools=WEATHER, stream=True)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    heard = said.splitlines()[1]  # the expert says again what it got: the result, between markers
    return {**call, "arguments": json.loads(call["arguments"]), "finish_reason": finish, "heard": heard}


def json_schema() -> Facts:
    at, _ = client()
    answer = at.chat.completions.create(model="schema", messages=HELLO, response_format=SCHEMA)
    return {"parsed": json.loads(answer.choices[0].message.content or "")}


def several_choices() -> Facts:
    at, _ = client()
    answer = at.chat.completions.create(model="echo", messages=HELLO, n=2, logprobs=True, extra_body={"top_k": 7})
    logprobs = answer.choices[0].logprobs
    return {
        "contents": [choice.message.content for choice in answer.choices],
        "tokens": [token.token for token in (logprobs and logprobs.content) or []],
        "top_k": (answer.model_extra or {})["top_k"],
    }


def failure(act: Callable[[openai.OpenAI], object], *, key: str = KEY, max_retries: int = 2) -> Facts:
    """What an application catches, and how many requests that took."""
    at, sent = client(key, max_retries=max_retries)
    try:
        act(at)
    except openai.APIError as error:
        return {
            "class": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "code": error.code,
            "param": error.param,
            "requests": len(sent),
        }
    return {"class": None}


def wrong_key() -> Facts:
    return failure(lambda at: at.chat.completions.create(model="echo", messages=HELLO), key="cv_000000000000_00")


def bad_request() -> Facts:
    return failure(lambda at: at.chat.completions.create(model="picky", messages=HELLO))


def out_of_range() -> Facts:
    return failure(lambda at: at.chat.completions.create(model="echo", messages=HELLO, temperature=9))


def unknown_model() -> Facts:
    return failure(lambda at: at.chat.completions.create(model="gpt-9", messages=HELLO))


def server_error() -> Facts:
    return failure(lambda at: at.chat.completions.create(model="down", messages=HELLO), max_retries=1)


def error_in_a_stream() -> Facts:
    return failure(lambda at: list(at.chat.completions.create(model="cut", messages=HELLO, stream=True)))


def rate_limit() -> Facts:
    """Ask until the limit; then again with retries, which must wait as long as they are told."""
    at, _ = client(LIMITED_KEY, max_retries=0)
    patient, sent = client(LIMITED_KEY, max_retries=2)
    refused = None
    while refused is None:
        try:
            at.models.list()
        except openai.RateLimitError as error:
            refused, at_s = error, time.monotonic()
    patient.models.list()
    told_s = int(refused.response.headers["retry-after-ms"]) / 1000
    return {
        "code": refused.code,
        "header": int(refused.response.headers["retry-after"]) >= 1,
        "requests": len(sent),
        "waited": time.monotonic() - at_s >= told_s,
    }


def abort() -> Facts:
    at, _ = client()
    raw = at.chat.completions.with_raw_response.create(model="long", messages=HELLO, stream=True)
    stream: Any = raw.parse()
    seen = [next(stream) for _ in range(3)]
    began = time.monotonic()
    stream.close()
    return {
        "seen": len(seen),
        "request_id": raw.headers["x-request-id"],
        "at_once": time.monotonic() - began < 5,
    }


def embeddings() -> Facts:
    at, _ = client()
    answer = at.embeddings.create(model="embed", input=["one", "two"])  # asks for base64 and unpacks it
    floats = at.embeddings.create(model="embed", input="one", encoding_format="float")
    return {
        "vectors": [entry.embedding for entry in answer.data],
        "float": floats.data[0].embedding,
        "prompt_tokens": answer.usage.prompt_tokens,
    }


def completions() -> Facts:
    at, _ = client()
    answer = at.completions.create(model="echo", prompt="hello")
    streamed = at.completions.create(model="echo", prompt="hello", stream=True)
    return {
        "text": answer.choices[0].text,
        "streamed": "".join(chunk.choices[0].text for chunk in streamed if chunk.choices),
    }


def models() -> Facts:
    at, _ = client()
    listed = {model.id for model in at.models.list()}
    return {"listed": sorted({"auto", "echo"} & listed), "retrieved": at.models.retrieve("acme/large:1").id}


def asynchronous() -> Facts:
    async def ask() -> Facts:
        async with openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY) as at:
            both = await asyncio.gather(
                *(at.chat.completions.create(model="echo", messages=HELLO) for _ in range(2)),
            )
            stream = await at.chat.completions.create(model="echo", messages=HELLO, stream=True)
            said = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            return {"contents": [answer.choices[0].message.content for answer in both], "streamed": "".join(said)}

    return asyncio.run(ask())


SCENARIOS = (
    plain, stream_with_usage, tools_in_streams, json_schema, several_choices, wrong_key, bad_request, out_of_range,
    unknown_model, server_error, error_in_a_stream, rate_limit, abort, embeddings, completions, models, asynchronous,
)  # fmt: skip


def main() -> None:
    seen: dict[str, Facts] = {}
    for scenario in SCENARIOS:
        try:
            seen[scenario.__name__] = scenario()
        except Exception as error:  # noqa: BLE001  each scenario is reported, whatever becomes of the others
            seen[scenario.__name__] = {"raised": f"{type(error).__name__}: {error}"[:500]}
    json.dump({"version": openai.__version__, "seen": seen}, sys.stdout)


if __name__ == "__main__":
    main()
