"""CPU per chunk of a streamed answer, by the three ways to a provider.

    python -m benchmarks.providers [--rounds 5] [--chunks 500]        needs the extra `providers`; half a minute

A process of its own plays Anthropic's server (and an OpenAI-compatible one), each chunk a write. The ways take turns,
so that a busy machine is as busy for all of them. What is counted is the CPU time of this process between the first
request and the end of the last answer, divided by the text chunks.
"""

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import click
import msgspec

from conclave.gateway.experts.api import Expert
from conclave.gateway.experts.litellm.runtime import Runtime
from conclave.gateway.experts.litellm.transport import CONNECT
from conclave.gateway.experts.litellm_expert import LiteLLMExpert
from conclave.gateway.experts.openai_http import HttpSessions, OpenAIExpert
from conclave.gateway.prompt import Prompt

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PROMPT = Prompt(
    {"messages": [{"role": "user", "content": "Say something long. " * 20}], "max_tokens": 1000}, stream=True
)
MODEL = "anthropic/claude-haiku-4-5"
ANSWERS = 4  # a round, each way


def event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))


def anthropic(chunks: int) -> list[bytes]:
    usage = {"input_tokens": 90, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": usage}
    block = {"type": "text", "text": ""}
    words = [
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": f"word{number} "})
        for number in range(chunks)
    ]
    start = event("message_start", message=message) + event("content_block_start", index=0, content_block=block)
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    end = event("message_delta", delta=stop, usage={"output_tokens": chunks}) + event("message_stop")
    return [start, *words, event("content_block_stop", index=0) + end]


def openai(chunks: int) -> list[bytes]:
    def data(delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        said = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return b"data: %b\n\n" % msgspec.json.encode(said)

    words = [data({"content": f"word{number} "}) for number in range(chunks)]
    return [data({"role": "assistant", "content": ""}), *words, data({}, "stop") + b"data: [DONE]\n\n"]


def serve(chunks: int, told: Connection) -> None:
    """Until it is ended."""
    answers = {b"/v1/messages": anthropic(chunks), b"/v1/chat/completions": openai(chunks)}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
                writer.write(HEAD)
                for piece in answers[head.split(b" ")[1]]:
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await writer.drain()
                    await asyncio.sleep(0)
                writer.write(b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def asked(expert: Expert) -> None:
    upstream = expert.open(PROMPT, deadline_s=time.monotonic() + 60)
    async for _ in upstream:
        pass
    upstream.close()


async def measured(port: int, rounds: int, chunks: int) -> dict[str, list[float]]:
    """Microseconds of CPU a chunk, by way and round."""
    url, runtime, sessions = f"http://127.0.0.1:{port}", Runtime(), HttpSessions()
    litellm = await runtime.litellm()
    CONNECT.set(sessions.to)  # for the last way: over the same connections as the others
    direct = LiteLLMExpert("direct", MODEL, runtime=runtime, sessions=sessions, api_key="k", base_url=url)
    plain = OpenAIExpert("openai", f"{url}/v1", "m", session=sessions.get)

    async def wrapped() -> None:
        stream = await litellm.acompletion(
            model=MODEL, api_key="k", api_base=url, stream=True, max_retries=0, **PROMPT.body
        )
        async for chunk in stream:
            chunk.model_dump_json(exclude_none=True)

    ways: dict[str, Callable[[], Awaitable[None]]] = {
        "OpenAI-compatible, `kind: openai`": lambda: asked(plain),
        "Anthropic by litellm's classes, `kind: litellm`": lambda: asked(direct),
        "the same by `litellm.acompletion(stream=True)`": wrapped,
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):  # the first is for warming up
        for way, ask in ways.items():
            before_s = time.process_time()
            for _ in range(ANSWERS):
                await ask()
            if number:
                found[way].append((time.process_time() - before_s) / ANSWERS / chunks * 1e6)
    await sessions.aclose()
    return found


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--chunks", default=500, show_default=True)
def main(rounds: int, chunks: int) -> None:
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(chunks, theirs), daemon=True)
    server.start()
    try:
        found = asyncio.run(measured(ours.recv(), rounds, chunks))
    finally:
        server.terminate()
    print("| way | CPU us a chunk: median (least - most) |\n|---|---|")
    for way, each in found.items():
        print(f"| {way} | {statistics.median(each):.0f} ({min(each):.0f} - {max(each):.0f}) |")


if __name__ == "__main__":
    main()
