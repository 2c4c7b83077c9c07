"""An upstream that says what it is told to: a process of its own, OpenAI-compatible.

    python tests/e2e/saying.py PORT

The first message of a user or an assistant that is JSON says it: `{"say": [deltas], "cut": bool, "n": ..}`. In a stream
each delta is an event; a plain answer joins them. With `cut` the connection ends before the answer does; `each` cuts
texts and arguments into pieces of so many characters.
"""

import asyncio
import json
import sys
from typing import Any


def joined(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that the deltas come to."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(d.get("content") or "" for d in deltas)}
    pieces = [call for delta in deltas for call in delta.get("tool_calls", ())]
    if pieces:
        whole = "".join(piece["function"]["arguments"] for piece in pieces)
        message["tool_calls"] = [pieces[0] | {"function": pieces[0]["function"] | {"arguments": whole}}]
    return message


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(one.split(b":")[1]) for one in lines if one.startswith(b"content-length")), 0)
        request = json.loads(await reader.readexactly(length))
        asked = [one["content"] for one in request["messages"] if one["role"] in {"user", "assistant"}]
        told = json.loads(next(one for one in asked if one and one.startswith("{")))
        await (stream if request.get("stream") else plain)(writer, request["model"], told)
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


async def plain(writer: asyncio.StreamWriter, model: str, told: dict[str, Any]) -> None:
    choice = {"index": 0, "message": joined(told["say"]), "finish_reason": "stop"}
    found = {"id": "c", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]}
    body = json.dumps(found).encode()
    writer.write(
        b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )


async def stream(writer: asyncio.StreamWriter, model: str, told: dict[str, Any]) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
    frail = told.get("cut") and model == "frail"
    deltas = [piece for delta in told["say"] for piece in in_pieces(delta, told.get("each"))]
    for delta in ({"role": "assistant", "content": ""}, *deltas):
        writer.write(event(model, delta))
        await writer.drain()
    if not frail:
        writer.write(event(model, {}, "stop") + b"data: [DONE]\n\n")


def in_pieces(delta: dict[str, Any], each: int | None) -> list[dict[str, Any]]:
    """The delta as several, each with a few characters of its text or of its call's arguments."""
    if each is None:
        return [delta]
    if text := delta.get("content"):
        return [{"content": text[at : at + each]} for at in range(0, len(text), each)]
    [call] = delta["tool_calls"]
    said = call["function"]["arguments"]
    cuts = [said[at : at + each] for at in range(0, len(said), each)]
    return [{"tool_calls": [call | {"function": call["function"] | {"arguments": cut}}]} for cut in cuts]


def event(model: str, delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    found = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(found).encode()


async def main(port: int) -> None:
    async with await asyncio.start_server(answer, "127.0.0.1", port, limit=1 << 24) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
