"""The mock upstream: an OpenAI-compatible server that costs next to nothing, so that the gateway is measured.

It decides nothing: every prompt gets the same answer (240 characters), at once, plain or as 50 content chunks, each in
a write of its own. `POST /pace/MS` on it spaces the chunks of later streams. It never reads the prompt.

    python -m benchmarks.gateway.mock --port 9100 [--pace-ms 5]
"""

import asyncio
from collections import deque
from itertools import pairwise
from typing import Final, cast

import click
import httptools
import msgspec
import uvloop

CHUNKS: Final = 50
ANSWER: Final = (
    "Water boils at a lower temperature on a mountain because the air above it weighs less there: its vapour has to "
    "push against a smaller pressure before bubbles can form, so pasta needs more minutes at 3,000 metres than "
    "it does near the ocean."
)
USAGE: Final = {"prompt_tokens": 110, "completion_tokens": CHUNKS, "total_tokens": 110 + CHUNKS}
MODEL: Final = "mock-model"
IDENTITY: Final = {"id": "chatcmpl-mock", "created": 1_790_000_000, "model": MODEL}


class Asked(msgspec.Struct):
    """What the mock looks at in a request's body; all else is skipped."""

    stream: bool = False
    stream_options: dict[str, bool] | None = None


def _whole(status: str, content: object) -> bytes:
    body = msgspec.json.encode(content)
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(**fields: object) -> bytes:
    return b"data: " + msgspec.json.encode({**IDENTITY, "object": "chat.completion.chunk", **fields}) + b"\n\n"


def _delta(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    return _event(choices=[{"index": 0, "delta": delta, "finish_reason": finish_reason}])


def _content_events() -> list[bytes]:
    """50 events that spell the answer; the first also names the role."""
    cuts = [len(ANSWER) * i // CHUNKS for i in range(CHUNKS + 1)]
    deltas = [{"content": ANSWER[start:end]} for start, end in pairwise(cuts)]
    deltas[0] = {"role": "assistant", **deltas[0]}
    return [_http_chunk(_delta(delta)) for delta in deltas]


PLAIN: Final = _whole(
    "200 OK",
    {
        **IDENTITY,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": USAGE,
    },
)
MODELS: Final = _whole("200 OK", {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "mock"}]})
PACE_SET: Final = _whole("200 OK", {})
NOT_FOUND: Final = _whole("404 Not Found", {"error": {"message": "no such path", "type": "invalid_request_error"}})
MALFORMED: Final = _whole("400 Bad Request", {"error": {"message": "not JSON", "type": "invalid_request_error"}})
STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
CONTENT: Final = _content_events()
DONE: Final = b"data: [DONE]\n\n"
FINISH: Final = _delta({}, "stop")
LAST: Final = _http_chunk(FINISH + DONE) + b"0\r\n\r\n"
LAST_WITH_USAGE: Final = _http_chunk(FINISH + _event(choices=[], usage=USAGE) + DONE) + b"0\r\n\r\n"
ASKED: Final = msgspec.json.Decoder(Asked)


class Pace:
    """Seconds between the chunks of a stream, for all connections; 0 is as fast as the loop turns."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds


class Mock(asyncio.Protocol):
    """One connection: keep-alive, pipelining, bodies of either framing (httptools reads them)."""

    def __init__(self, pace: Pace) -> None:
        self._loop = asyncio.get_running_loop()
        self._pace = pace
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []
        self._waiting: deque[tuple[bytes, bytes]] = deque()  # pipelined behind a stream: path, body
        self._next: asyncio.Handle | None = None  # the next chunk of the stream under way
        self._close_after = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the protocol's signature
        self._waiting.clear()
        if self._next is not None:
            self._next.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._url = b""
        self._body.clear()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = (self._url.partition(b"?")[0], b"".join(self._body))
        self._close_after = not self._parser.should_keep_alive()
        if self._next is None:
            self._answer(*request)
        else:
            self._waiting.append(request)

    def _answer(self, path: bytes, body: bytes) -> None:
        if path.endswith(b"/chat/completions"):
            self._chat(body)
        elif path.endswith(b"/models"):
            self._finish(MODELS)
        elif path.startswith(b"/pace/"):
            self._pace.seconds = int(path[len(b"/pace/") :]) / 1000
            self._finish(PACE_SET)
        else:
            self._finish(NOT_FOUND)

    def _finish(self, data: bytes) -> None:
        """Write the end of an answer; then the next request's turn, or the end of the connection."""
        self._transport.write(data)
        self._next = None
        while self._waiting and self._next is None:
            self._answer(*self._waiting.popleft())
        if self._close_after and self._next is None:
            self._transport.close()

    def _chat(self, body: bytes) -> None:
        try:
            asked = ASKED.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._finish(MALFORMED)
            return
        if not asked.stream:
            self._finish(PLAIN)
            return
        with_usage = bool((asked.stream_options or {}).get("include_usage"))
        self._transport.write(STREAM_HEAD)
        self._send_chunk(0, self._loop.time(), LAST_WITH_USAGE if with_usage else LAST)

    def _send_chunk(self, i: int, begun_s: float, last: bytes) -> None:
        """Write chunk i and plan the next: one turn of the loop, so one segment on the wire, each."""
        if i == CHUNKS:
            self._finish(last)
            return
        self._transport.write(CONTENT[i])
        if self._pace.seconds and i + 1 < CHUNKS:
            due_s = begun_s + (i + 1) * self._pace.seconds
            self._next = self._loop.call_at(due_s, self._send_chunk, i + 1, begun_s, last)
        else:
            self._next = self._loop.call_soon(self._send_chunk, i + 1, begun_s, last)


async def listen(port: int, pace: Pace) -> asyncio.Server:
    """Listen on 127.0.0.1; port 0 takes a free one."""
    return await asyncio.get_running_loop().create_server(lambda: Mock(pace), "127.0.0.1", port, backlog=1024)


async def _serve(port: int, pace_s: float) -> None:
    server = await listen(port, Pace(pace_s))
    await server.serve_forever()


@click.command()
@click.option("--port", default=9100, show_default=True)
@click.option("--pace-ms", default=0, show_default=True, help="Time between the chunks of a stream.")
def main(port: int, pace_ms: int) -> None:
    """Serve the mock upstream on 127.0.0.1 until it is ended."""
    uvloop.run(_serve(port, pace_ms / 1000))


if __name__ == "__main__":
    main()
