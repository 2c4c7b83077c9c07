"""How these tests ask an expert: one call, read to its end, with what was given and how it ended."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from conclave.gateway.call import Attempt
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.experts.openai_http import OpenAIExpert, TimeLimits
from conclave.gateway.prompt import Prompt

BODY = {"messages": [{"role": "user", "content": "hello"}]}
IDLE_S = 0.05
QUICK = TimeLimits(first_byte_s=0.1, plain_s=0.1, idle_s=IDLE_S)
PATIENT = TimeLimits()
SECRET = "sk-very-secret"  # noqa: S105
WITHIN_S = 0.05  # of leaving, the upstream's socket must be closed


def limits_for(kind: str) -> TimeLimits:
    """Short ones only for the faults that they find: a busy machine must not turn the others into these."""
    return QUICK if kind in ("first_byte", "stalled") else TimeLimits(silence_s=0.05)


@asynccontextmanager
async def expert_at(url: str, limits: TimeLimits = PATIENT, **facts: Any) -> AsyncIterator[OpenAIExpert]:
    expert = OpenAIExpert("e", url, "m", api_key=SECRET, limits=limits, **facts)
    try:
        yield expert
    finally:
        await expert.aclose()


def prompt(stream: bool, **more: Any) -> Prompt:
    return Prompt({**BODY, **({"stream": True} if stream else {}), **more}, stream=stream)


async def read(
    expert: OpenAIExpert, asked: Prompt, *, in_s: float = 60.0
) -> tuple[list[bytes], Attempt, BaseException | None]:
    """What was given, and how it ended."""
    given: list[bytes] = []
    upstream = expert.open(asked, deadline_s=time.monotonic() + in_s)
    try:
        async for chunk in upstream:
            given.append(chunk.data)
    except (ExpertFailed, DeadlineExceeded) as error:
        return given, upstream.attempt, error
    finally:
        upstream.close()
    return given, upstream.attempt, None
