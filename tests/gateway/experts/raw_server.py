"""A server on 127.0.0.1 that says exactly the bytes it is told to, whatever HTTP thinks of them."""

import asyncio
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import msgspec

EVENT = (
    b'{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}'
)
FINISH = b'{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
USAGE = b'{"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
PLAIN = (
    b'{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},'
    b'"finish_reason":"stop"}]}'
)
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
RESET = object()  # end the connection with RST
CLOSE = object()  # end the connection with FIN


def data(*payloads: bytes) -> bytes:
    return b"".join(b"data: %b\n\n" % payload for payload in payloads)


def piece(content: bytes) -> bytes:
    """One piece of a chunked body; of nothing: its end."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def answer(body: bytes, *, status: int = 200, kind: str = "application/json", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} Whatever\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


STREAM = SSE + piece(data(EVENT)) + piece(data(FINISH, USAGE)) + piece(data(b"[DONE]")) + piece(b"")


@dataclass
class Request:
    head: str
    body: dict[str, Any]

    def header(self, name: str) -> str | None:
        lines = [line.partition(":") for line in self.head.split("\r\n")[1:]]
        return next((value.strip() for key, _, value in lines if key.lower() == name), None)


class RawServer:
    """Answers each request with the next script, the last one for ever. After its script it waits for what comes next,
    so a script that does not finish its answer stalls. `gone` is set when a client ends its connection."""

    def __init__(self, *scripts: Sequence[object] | bytes) -> None:
        self.scripts = [[one] if isinstance(one, bytes) else list(one) for one in scripts]
        self.requests: list[Request] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for writer in self._writers:
            if not writer.transport.is_closing():
                writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while await self._read_request(reader):
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                self.asked.set()
                if await self._say(script, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.gone.set()
            writer.close()

    async def _read_request(self, reader: asyncio.StreamReader) -> bool:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return False
        length = int(Request(head, {}).header("content-length") or 0)
        self.requests.append(Request(head, msgspec.json.decode(await reader.readexactly(length))))
        return True

    async def _say(self, script: Sequence[object], writer: asyncio.StreamWriter) -> bool:
        """Whether the connection is to end."""
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
                await asyncio.sleep(0)  # the reader's turn, so that most steps are reads of their own
            elif step is RESET:
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return True
            else:
                return True
        return False
