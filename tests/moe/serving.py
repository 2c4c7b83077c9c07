"""A small random model with a tokenizer and a chat template, and engines on it: quick, endless, the same every time."""

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
from transformers import OlmoeConfig, OlmoeForCausalLM

from conclave.moe import checkpoint as checkpoints
from conclave.moe.adapt import adapt
from conclave.moe.engine import Engine, EngineLimits
from conclave.moe.handoff import End, Handoff, Piece
from conclave.moe.offer import Offer
from conclave.moe.requests import Ask
from conclave.moe.routing import POLICIES
from conclave.moe.server import Face, create_app
from conclave.moe.tiny import SHAPE, make_tokenizer, write
from conclave.moe.turns import RoomSize

CONTEXT = 200
SMALL = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_experts": 8, "initializer_range": 0.3}
TEXTS = ("What is it that you say to me when the sun is up and the day is long?", "one two three four five", "Hello!")
NATIVE = 4  # experts of a token in each layer, as the model comes


def write_model(folder: Path) -> Path:
    tokenizer = make_tokenizer(iter(TEXTS * 20))
    torch.manual_seed(3)
    shape = {**SHAPE, **SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT}
    write(OlmoeForCausalLM(OlmoeConfig(**shape)).eval(), tokenizer, folder)
    return folder


def loaded(folder: Path) -> checkpoints.Checkpoint:
    return checkpoints.load(folder, dtype=torch.float32)


def engine_on(
    checkpoint: checkpoints.Checkpoint, *, policy: Any = None, experts_max: int | None = None, **limits: Any
) -> Engine:
    adapted = adapt(checkpoint.model)
    own = POLICIES.make(policy) if policy else None
    offer = Offer.of(adapted, policy=own, names=frozenset({"topk", "topp"}), experts_max=experts_max)
    room = limits.pop("room", RoomSize(sequences=4, kv_tokens=4 * CONTEXT, waiting=4))
    rows = limits.pop("rows", None)
    return Engine(checkpoint, adapted, offer, EngineLimits(room=room, **limits), rows=rows)


def chat(text: str = "Hello!", **more: Any) -> Ask:
    return Ask(model="small", messages=({"role": "user", "content": text},), **{"max_tokens": 12, **more})


async def told(handoff: Handoff) -> tuple[list[Piece], End]:
    pieces = []
    while isinstance(event := await handoff.read(), Piece):
        pieces.append(event)
    return pieces, event


async def said(engine: Engine, ask: Ask) -> tuple[str, End]:
    pieces, end = await told(await engine.open(ask))
    return "".join(piece.text for piece in pieces), end


async def idle(engine: Engine) -> None:
    """Wait until no call runs."""
    for _ in range(1000):
        if (await asyncio.to_thread(engine.load)).running == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a call still runs after 10 s")


@contextmanager
def server(engine: Any, face: Mapping[str, Any] | None = None) -> Iterator[str]:
    """A real server on 127.0.0.1, in a thread: its address."""
    app = create_app(engine, Face(**{"model": "small", "digest": "0" * 64, "policy": "topk", **(face or {})}))
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="on", ws="none")
    running = uvicorn.Server(config)
    sock = config.bind_socket()
    thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        while not running.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(20)
        sock.close()
