"""The whole way of one call on one page. Numbers are the stages of docs/request-life.md.

Stages take values and return values; only this page writes to the call. Cleaning up never awaits, no time limit
surrounds a `yield`, and this is the only async generator on the way: `api/respond.py` drives and closes it, for plain
answers as for streams.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final, TypeVar, TypeVarTuple

from conclave.gateway.access.admission import Access
from conclave.gateway.access.envelope import Unseal
from conclave.gateway.access.standing import Vetting
from conclave.gateway.call import END, Call, Chunk
from conclave.gateway.errors import DeadlineExceeded, ExpertFailed
from conclave.gateway.evidence import Evidence
from conclave.gateway.knowledge import NO_KNOWLEDGE, Library
from conclave.gateway.policy.confirming import confirmed_of, new_confirmations, settled
from conclave.gateway.policy.published import Published
from conclave.gateway.policy.remembered import Conversations
from conclave.gateway.policy.rules import Rules
from conclave.gateway.policy.workshop import Workshop
from conclave.gateway.reply import Reply
from conclave.safety.context.conflict import Memory
from conclave.safety.toolcalls.confirm import Confirmations
from conclave.safety.toolcalls.pins import Pins

IN_TURN_BYTES: Final = 256 * 1024  # a body up to this is read within a few milliseconds
SCREENING: Final = 16  # times as long as reading, at most
In = TypeVarTuple("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Pipeline:
    access: Access  # (1) key, limits, deadline
    policy: Published  # versions, each compiled to Rules, with its experts, when it is published
    record: Callable[[Call], None]  # (9) one append to the journal
    digest_key: bytes  # keys the digests of what was said, in the record
    now_s: Callable[[], float] = time.monotonic
    conversations: Conversations = field(default_factory=Conversations)
    workshop: Workshop = field(default_factory=Workshop)  # where images and files are read
    classifying: Executor | None = None  # where a classifier runs that takes milliseconds; None: at once
    unseal: Unseal = field(default_factory=Unseal)
    vetting: Vetting = field(default_factory=Vetting)  # how far keys and conversations are trusted
    confirmations: Confirmations = field(default_factory=new_confirmations)  # what a person let pass
    knowledge: Library = NO_KNOWLEDGE  # what calls are looked up in
    pins: Pins = field(default_factory=Pins)  # what callers' tools said of themselves at first

    async def answer(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield what the client may see, then END; raise a ConclaveError; leave one record, however it ends."""
        try:
            await self._prepare(call)  # (1)-(4)
            assert call.rules and call.request and call.thread and call.decision  # noqa: S101, PT018  set by _prepare
            assert call.grant and call.guard and call.reply and call.experts  # noqa: S101, PT018  as these
            while not call.answered:
                step = call.step = call.rules.next_step(  # raises if none is left
                    call.decision, call.outcomes, shown=call.shown, resumable=call.reply.resumable
                )
                if step.kept:  # what was said on trial, and not sure enough, is better than nothing
                    call.keep()
                    continue
                if step.look_up and call.evidence is None:  # (6) what was found re-enters at (2), as `retrieved`
                    call.rely(await self._believed(call, call.rules))
                prompt = call.rules.compose(
                    call.sent(step),
                    step,
                    so_far=call.reply.so_far,
                    headers=call.onward,
                    scope=call.grant.scope,
                    evidence=call.evidence,
                )
                call.reply.begin(prefilled=prompt.prefilled, on_trial=step.on_trial, added=prompt.added)
                until_s = call.rules.until_s(step, call.grant.deadline_s, now_s=self.now_s())
                own = until_s < call.grant.deadline_s  # the trial's time, not the call's
                try:
                    with call.experts.open(
                        step.expert, prompt, deadline_s=until_s, late_is_failure=own
                    ) as upstream:  # (7)
                        call.attempts.append(upstream.attempt)
                        async for chunk in call.rules.enough_of(upstream, call.request):  # SILENCE after 10 s without
                            feed, quick = call.reply.feed, len(chunk.data) <= call.guard.in_turn_bytes
                            for out in feed(chunk) if quick else await asyncio.to_thread(feed, chunk):  # (8)
                                yield out
                        call.reply.complete()  # an answer without a word is a failure
                except (ExpertFailed, DeadlineExceeded) as error:
                    call.tried(error)
                    continue
                outcome = call.rules.judge(call.decision, step, call.reply.heard, call.aside)  # a trial may be unsure
                if (memory := call.rules.memory(call.decision, outcome, call.reply.heard)) is not None:
                    call.rely(evidence := await self._believed(call, call.rules, memory))  # (6), against what it said
                    outcome = call.rules.held_against(call.decision, outcome, evidence)
                call.tried(outcome=outcome, risk=call.rules.risk(outcome, call.reply.heard))
            last = call.reply.finish(call.explain())
            self.conversations.note(call.thread, step.expert, call.reply.call_ids)
            for out in last:
                yield out
            call.end(self.now_s())
        except BaseException as error:  # refused, failed, out of time, client gone: the record says which
            call.end(self.now_s(), error)
            raise
        finally:
            self.record(call)  # (9)
            self.vetting.note(call.stood, call.verdict, call.segments, answered=call.error is None)
        yield END  # [DONE] leaves after the row is written

    async def _believed(self, call: Call, rules: Rules, memory: Memory | None = None) -> Evidence:
        """(6) What of what was found an expert is shown; `memory` is what it said without."""
        assert call.request and call.grant  # noqa: S101, PT018  set by _prepare
        began_s, found = self.now_s(), (call.segments, call.searched, call.grant.tenant)
        evidence = await asyncio.to_thread(rules.believe, call.request, *found, key=self.digest_key, memory=memory)
        call.took("context", began_s, self.now_s())
        return evidence

    async def _prepare(self, call: Call) -> None:
        call.grant = await self.access.admit(call.source.head)  # (1) before a byte of the body is read
        call.passed("admit", self.now_s())
        version = self.policy.current  # one version for the whole call
        call.experts, rules = version.experts, version.rules_for(call.grant.tenant)
        call.rules = rules
        body = await call.source.read(max_bytes=rules.limits.body_bytes, timeout_s=rules.limits.body_timeout_s)
        call.sealed = await self.unseal(rules.seals, call.source.head, body)  # (1) who signed it, if calls are signed
        call.passed("receive", self.now_s())
        call.request = await _apart(len(body), call.parse, body)
        call.grant = rules.granted(call.grant, call.request)  # (1) what of its scope it may use; only less from here on
        call.request = await _apart(len(body), rules.caps.lowered, call.request)
        call.segments = await _apart(len(body), rules.read, call.request)  # (2), and then images and files
        call.unpack(await rules.parts.unpack(call.request, call.segments, call.grant.tenant, self.workshop))
        call.passed("boundary", self.now_s())
        call.stood = self.vetting.look(call.grant, call.request, call.segments, rules.postures)
        call.grant, screen = rules.postures.hold(call.stood, call.grant, call.request)  # less, where trust is low
        size = SCREENING * (len(body) + call.inside_chars) + screen.slow * IN_TURN_BYTES
        sent = call.request
        confirmed = confirmed_of(sent, call.segments, call.grant, self.confirmations)
        screened = await _apart(size, screen, sent, call.segments, call.grant.tenant)
        call.heed(settled(screened, call.segments, confirmed, incident=call.id))
        call.heed_tools(rules.tools.look(sent, call.grant, self.pins))  # as the client declared them
        call.passed("detect", self.now_s())  # (3) raises Blocked
        call.rules = rules = rules.for_conversation(call.grant.tenant, call.request, call.segments)
        call.thread = self.conversations.of(call.grant.tenant, call.request, call.segments)  # (4)
        threads = self.classifying if rules.classifies(call.request) else None
        about = (call.request, call.segments, call.grant.scope, call.thread)
        call.asked = await _in_time(threads, call.grant.deadline_s - self.now_s(), rules.asked, *about)
        query, began_s = rules.query(call.request, call.segments, call.grant.scope), self.now_s()
        call.searched = await self.knowledge.search(query, timeout_s=rules.search_s)
        call.took("search", began_s, self.now_s())
        call.asked = rules.weighed(call.asked, call.request, call.searched, call.flagged)
        call.decision = rules.choose(call.asked)
        call.clean = rules.clean(call.request, call.segments, self.digest_key, call.flagged)
        call.request = await _apart(len(body), rules.fence, call.request, call.segments, self.digest_key)
        call.passed("route", self.now_s())
        call.guard = rules.guard(
            call.request, call.at_hand, incident=call.id, confirmed=confirmed, restorer=call.restorer, said=call.verdict
        )  # (8)
        call.reply = Reply(call.request, digest_key=self.digest_key, guard=call.guard, now_s=self.now_s)


async def _in_time(threads: Executor | None, left_s: float, work: Callable[[*In], Out], *values: *In) -> Out:
    """`work(*values)`; on one of `threads` if there are any, in the time that the call has left."""
    if threads is None:
        return work(*values)
    try:
        async with asyncio.timeout(left_s):
            return await asyncio.get_running_loop().run_in_executor(threads, work, *values)
    except TimeoutError:
        raise DeadlineExceeded("the call's time was up before its question was classified") from None


async def _apart(size_bytes: int, work: Callable[[*In], Out], *values: *In) -> Out:
    """`work(*values)`; for a large body in a thread, because others are waiting for the event loop."""
    return await asyncio.to_thread(work, *values) if size_bytes > IN_TURN_BYTES else work(*values)
