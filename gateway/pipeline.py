"""The whole way of one call on one page. Numbers are the stages of docs/request-life.md.

Stages take values and return values; only this page writes to the call. Cleaning up never awaits, no time limit
surrounds a `yield`, and this is the only async generator on the way: `api/respond.py` drives and closes it, for plain
answers as for streams.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from conclave.gateway.access.admission import Access
from conclave.gateway.call import END, Call, Chunk
from conclave.gateway.errors import ExpertFailed
from conclave.gateway.policy.published import Published
from conclave.gateway.reply import Reply

IN_TURN_BYTES: Final = 256 * 1024  # a body up to this is read within a few milliseconds
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Pipeline:
    access: Access  # (1) key, limits, deadline
    policy: Published  # versions, each compiled to Rules, with its experts, when it is published
    record: Callable[[Call], None]  # (9) one append to the journal
    digest_key: bytes  # keys the digests of what was said, in the record
    now_s: Callable[[], float] = time.monotonic

    async def answer(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield what the client may see, then END; raise a ConclaveError; leave one record, however it ends."""
        try:
            await self._prepare(call)  # (1)-(4)
            assert call.rules and call.request and call.decision and call.grant and call.reply and call.experts  # noqa: S101, PT018  set by _prepare
            while not call.answered:
                step = call.rules.next_step(  # raises if none is left
                    call.decision, call.outcomes, shown=call.shown, resumable=call.reply.resumable
                )
                prompt = call.rules.compose(call.request, step, so_far=call.reply.so_far, headers=call.onward)
                call.reply.begin(prefilled=prompt.prefilled)
                try:
                    with call.experts.open(step.expert, prompt, deadline_s=call.grant.deadline_s) as upstream:  # (7)
                        call.attempts.append(upstream.attempt)
                        async for chunk in upstream:  # data, SILENCE after 10 s without
                            for out in call.reply.feed(chunk):
                                yield out
                        last = call.reply.finish(call.explain())  # an answer without a word is a failure
                except ExpertFailed as error:
                    call.tried(error)
                    continue
                call.tried()
                for out in last:
                    yield out
            call.end(self.now_s())
        except BaseException as error:  # refused, failed, out of time, client gone: the record says which
            call.end(self.now_s(), error)
            raise
        finally:
            self.record(call)  # (9)
        yield END  # [DONE] leaves after the row is written

    async def _prepare(self, call: Call) -> None:
        call.grant = await self.access.admit(call.source.head)  # (1) before a byte of the body is read
        call.passed("admit", self.now_s())
        version = self.policy.current  # one version for the whole call
        call.experts, rules = version.experts, version.rules_for(call.grant.tenant)
        call.rules = rules
        body = await call.source.read(max_bytes=rules.limits.body_bytes, timeout_s=rules.limits.body_timeout_s)
        call.passed("receive", self.now_s())
        call.request = await _apart(len(body), call.parse, body)
        call.segments = await _apart(len(body), rules.read, call.request)  # (2)
        call.passed("boundary", self.now_s())
        call.decision = rules.decide(call.request, call.segments, call.grant.scope)  # (4)
        call.passed("route", self.now_s())
        call.reply = Reply(call.request, digest_key=self.digest_key)


async def _apart(size_bytes: int, work: Callable[[In], Out], value: In) -> Out:
    """`work(value)`; for a large body in a thread, because others are waiting for the event loop."""
    return await asyncio.to_thread(work, value) if size_bytes > IN_TURN_BYTES else work(value)
