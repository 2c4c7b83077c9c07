"""A small OpenAI-compatible upstream, a process of its own so that it can be killed; the model says how it behaves.

    python tests/e2e/upstream.py PORT

`echo` answers, `paced` streams a word each 20 ms for 2 s, `stall` says one word and then nothing, `silent` says nothing
at all, `cut` closes the connection after three words, `broken` sends an event that is no JSON, `lying` announces more
bytes than it sends, `busy` answers 429, `down` answers 500, `picky` answers 400, `html` answers a page, `every` answers
whatever it is asked, be it a chat or not. `FAULT.N` streams N words of WORDS and then has one of FAULTS; `flood`
streams 200 MB; `whole` says them all or, after an assistant message, what it lacks. `sure` and `unsure` answer as
`echo` does and, if they are asked, say how likely their words were. A line on stdout says `closed
MODEL` whenever the peer left before the answer was whole, and `traced MODEL TRACEPARENT TRACESTATE` for a request that
came with a trace context (`-` for no state).
"""

import asyncio
import json
import os
import sys
from typing import Any


def completion(model: str, text: str) -> bytes:
    """A whole chat.completion."""
    message = {"role": "assistant", "content": text}
    return json.dumps(
        {
            "id": "cmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }
    ).encode()


def likely(model: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer with the probability of its first word."""
    token = {"token": "echo", "logprob": -0.01 if model == "sure" else -4.0, "bytes": None, "top_logprobs": []}
    for choice in body["choices"]:
        choice["logprobs"] = {"content": [token]}
    return body


def every(model: str) -> bytes:
    """One object that is an answer to a chat, a text completion, embeddings and moderations alike."""
    more = {"data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}], "results": [{"flagged": False}]}
    return json.dumps(json.loads(completion(model, "yes")) | more).encode()


def event(model: str, delta: dict[str, Any], finish: str | None = None) -> bytes:
    """One SSE event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


def usage(model: str) -> bytes:
    """The usage event."""
    counts = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    chunk = {
        "id": "cmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": model,
        "choices": [],
        "usage": counts,
    }
    return f"data: {json.dumps(chunk)}\n\n".encode()


WORDS = ("one ", "two ", "three ", "four ", "five ", "six")
GARBAGE = b"data: {not json\n\n"
ERROR = b'data: {"error": {"message": "overloaded", "type": "server_error", "param": null, "code": "overloaded"}}\n\n'
FAULTS = {  # what is sent before the fault's end: the connection is closed, or nothing comes any more
    "cut": b"",
    "stall": b"",
    "garbage": GARBAGE * 8,
    "oddity": GARBAGE,  # one unreadable event, and the rest as if nothing had been
    "error": ERROR,
    "huge": b"data: " + b"x" * 20_000_000 + b"\n\n",
    "endless": b"",
    "reset": b"",
    "die": b"",  # the whole process, as kill -9 would end it
}
REFUSALS = {"busy": (429, "retry-after: 7\r\n"), "down": (500, ""), "picky": (400, "")}


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length")), 0
            )
            request = json.loads(await reader.readexactly(length)) if length else {}
            model = request.get("model", "")
            said = dict(line.split(": ", 1) for line in head.decode("latin-1").lower().split("\r\n") if ": " in line)
            if "traceparent" in said:
                print("traced", model, said["traceparent"], said.get("tracestate", "-"), flush=True)
            try:
                await (stream if request.get("stream") else plain)(writer, request)
            except (ConnectionError, asyncio.CancelledError):
                print("closed", model, flush=True)
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


async def plain(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
    model, body, extra, status = request["model"], b"", "", 200
    if model in REFUSALS:
        status, extra = REFUSALS[model]
        body = json.dumps(
            {"error": {"message": f"{model} says no", "type": "x", "param": "top_k", "code": "nope"}}
        ).encode()
    elif model in {"silent", "stall"}:
        await until_closed(writer, 30)
    elif model == "html":
        body = b"<html>hello</html>"
    elif model == "every":
        body = every(model)
    else:
        body = completion(model, "echo: " + str(request["messages"][-1]["content"]))
        if model in {"sure", "unsure"} and request.get("logprobs"):
            body = json.dumps(likely(model, json.loads(body))).encode()
    announced = len(body) + (100 if model == "lying" else 0)
    writer.write(
        f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{extra}content-length: {announced}\r\n\r\n".encode()
        + body
    )
    if model in {"lying", "cut"}:
        writer.close()
    await writer.drain()


async def stream(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
    model = request["model"]
    if model in REFUSALS or model == "html":
        await plain(writer, request)
        return
    if model == "silent":
        await until_closed(writer, 30)
        return
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
    writer.write(event(model, {"role": "assistant", "content": ""}))
    if model == "flood":
        for first in range(0, 2000 * 12_000, 12_000):  # 200 MB, and nothing twice
            writer.write(event(model, {"content": " ".join(map(str, range(first, first + 12_000)))}))
            await writer.drain()
    fault, _, count = model.partition(".")
    if fault in FAULTS or model == "whole":
        await say(writer, request, fault, int(count or len(WORDS)))
        return
    for i, word in enumerate(["echo:", " one", " two", " three", " four"] if model != "paced" else [" w"] * 100):
        data = event(model, {"content": word})
        if model in {"sure", "unsure"} and request.get("logprobs"):
            data = b"data: %b\n\n" % json.dumps(likely(model, json.loads(data[6:]))).encode()
        writer.write(data)
        await writer.drain()
        if model == "stall":
            await until_closed(writer, 30)
            return
        if model == "cut" and i == 2:
            writer.close()
            return
        if model == "broken" and i == 2:
            writer.write(b"data: {not json\n\n")
        if model == "paced":
            await until_closed(writer, 0.02)
    writer.write(event(model, {}, "stop"))
    if (request.get("stream_options") or {}).get("include_usage"):
        writer.write(usage(model))
    writer.write(b"data: [DONE]\n\n")
    await writer.drain()
    writer.close()


async def say(writer: asyncio.StreamWriter, request: dict[str, Any], fault: str, count: int) -> None:
    """`count` words, then the fault; or all that is missing of the words."""
    model = request["model"]
    said = next((one["content"] for one in reversed(request["messages"]) if one["role"] == "assistant"), "")
    rest = "".join(WORDS)[len(said) :] if model == "whole" else None
    for word in [rest] if rest is not None else WORDS[:count]:
        writer.write(event(model, {"content": word}))
        await writer.drain()
    if fault in FAULTS:
        writer.write(FAULTS[fault])
        await writer.drain()
    if fault == "stall":
        await until_closed(writer, 30)
    if fault == "die":
        os._exit(1)
    if fault == "oddity":
        for word in WORDS[count:]:
            writer.write(event(model, {"content": word}))
    if fault in {"endless", "reset"}:  # all is said, but for `[DONE]`
        writer.write(event(model, {}, "stop"))
        await writer.drain()
        await asyncio.sleep(0.1)
    if fault == "endless":
        await until_closed(writer, 30)
    if fault == "reset":
        writer.transport.abort()
        return
    if fault in {"oddity", "whole"}:
        writer.write(event(model, {}, "stop") + usage(model) + b"data: [DONE]\n\n")
        await writer.drain()
    writer.close()


async def until_closed(writer: asyncio.StreamWriter, limit_s: float) -> None:
    """Wait; raise if the peer leaves meanwhile."""
    end = asyncio.get_running_loop().time() + limit_s
    while not writer.transport.is_closing():
        left_s = end - asyncio.get_running_loop().time()
        if left_s <= 0:
            return
        await asyncio.sleep(min(0.02, left_s))
    raise ConnectionResetError


async def main(port: int) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", port, limit=64 * 1024 * 1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
