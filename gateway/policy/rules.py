"""The policy of one tenant, compiled: reads a request, decides who is asked, and says when nobody is left to ask.

A value without a clock, a file or a connection; what it decides follows from its arguments alone. Never widens what a
key's scope or the tenant's own list of experts allows, and never drops what an expert cannot do.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from conclave.gateway import prompt
from conclave.gateway.access.scope import Scope
from conclave.gateway.call import ACCEPTED, ModelRequest
from conclave.gateway.errors import (
    Abstained,
    Forbidden,
    Interrupted,
    InvalidRequest,
    NoExpertLeft,
    TooLarge,
    Unsupported,
    UpstreamRejected,
)
from conclave.gateway.evidence import NO_EVIDENCE, Aside, Evidence, Searched
from conclave.gateway.experts.enough import Enough
from conclave.gateway.guard import UNGUARDED, Guard, Guarding, NoGuard
from conclave.gateway.policy.answers import OPEN as UNLOOKED
from conclave.gateway.policy.arms import EXTENSION, Arms, conversation_of
from conclave.gateway.policy.asked import Asked
from conclave.gateway.policy.capped import NO_CAPS, RequestCaps
from conclave.gateway.policy.choosing import ALONE, Choosing
from conclave.gateway.policy.confirming import confirming
from conclave.gateway.policy.document import Limits
from conclave.gateway.policy.envelope import UNSEALED, Seals
from conclave.gateway.policy.hearing import INFORMED, WHOLE, memory_of, risk_of
from conclave.gateway.policy.inner import AS_IT_IS, inner_of
from conclave.gateway.policy.inner import FIELD as INNER
from conclave.gateway.policy.parts import PartSettings
from conclave.gateway.policy.posture import ALL_OPEN, Postures
from conclave.gateway.policy.reading import Parts
from conclave.gateway.policy.scopes import NO_PERMISSIONS, Permissions
from conclave.gateway.policy.screening import OPEN, Screen
from conclave.gateway.policy.seeking import FIELD, Seeking, wish_of
from conclave.gateway.policy.shift import raises
from conclave.gateway.policy.tools import UNGATED, ToolGate
from conclave.gateway.trace import NO_HEADERS
from conclave.retrieval.api import Query
from conclave.router import api as router
from conclave.router.api import CLOSED_BOOK
from conclave.router.gates.cascade import ALTERNATIVES, Cascade, Heard
from conclave.router.gates.knowing import Heard as Said
from conclave.router.gates.knowing import knowing
from conclave.router.gates.retrieval import Mode
from conclave.safety.api import Origin, Segment
from conclave.safety.boundary.caps import BoundaryError, Caps, check_shape
from conclave.safety.boundary.fence import NO_FENCES, Fences
from conclave.safety.boundary.offered import read_offered
from conclave.safety.boundary.segments import declared, read_inputs, read_messages
from conclave.safety.context.conflict import Memory
from conclave.safety.output.api import Restorer
from conclave.safety.output.repetition import AnswerLimits
from conclave.safety.toolcalls.confirm import Confirmed
from conclave.safety.verdict import NOTHING as UNSAID
from conclave.safety.verdict import Verdict

if TYPE_CHECKING:
    from conclave.gateway.access.scope import Grant
    from conclave.gateway.experts.api import Upstream

INPUTS: Final[Mapping[str, str]] = {"completions": "prompt", "embeddings": "input", "moderations": "input"}
PART_NEEDS: Final[Mapping[str, str]] = {"image_url": "images", "input_audio": "audio", "file": "files"}
ORIGINS: Final = f"{EXTENSION}.origins"
UNBOUND: Final = Scope()
ABSTAINED: Final = (
    "the expert is not sure enough of its own answer, no document that it may rely on helped, and this policy wants no"
    " guesses"
)
SHORT_TOKENS: Final = 128  # an answer up to this long is asked for several times
USUAL_PARTS: Final = Parts(PartSettings(), text_chars=1_000_000)
ERROR_CHARS: Final = 300  # of an expert's own words in ours
KEY_LIKE: Final = re.compile(
    r"(?i)\b(?:[a-z]{2,4}[-_][\w*-]{16,}|bearer\s+\S{8,})"
)  # upstreams quote the key they refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules(Choosing):
    """What a policy means for one tenant's calls; who is asked is in choosing.py.

    `arms` are the rules of an A/B test. `basis` is a digest of what the experts and the table came to.
    """

    limits: Limits
    resumes: bool
    keep_text: bool
    arms: Arms | None = None
    basis: str = ""
    screen: Screen = OPEN
    guarding: Guarding = UNLOOKED
    parts: Parts = USUAL_PARTS
    postures: Postures = ALL_OPEN
    fences: Fences = NO_FENCES
    seals: Seals = UNSEALED
    permissions: Permissions = NO_PERMISSIONS
    caps: RequestCaps = NO_CAPS
    hears: AnswerLimits | None = None
    tools: ToolGate = UNGATED
    seeking: Seeking | None = None

    def for_conversation(self, tenant: str, request: ModelRequest, segments: Sequence[Segment]) -> "Rules":
        """These rules, or those of the arm that the conversation belongs to if the policy tests two."""
        return self if self.arms is None else self.arms.of(tenant, conversation_of(request, segments))

    def read(self, request: ModelRequest) -> tuple[Segment, ...]:
        """Every text of the request with its origin, as the caller declares it where that trusts it less.

        Raises InvalidRequest, TooLarge, Unsupported with the place.
        """
        caps = Caps(messages=self.limits.messages, text_chars=self.limits.text_chars, nesting=self.limits.nesting)
        body, field = request.body, INPUTS.get(request.operation)
        offered: tuple[Segment, ...] = ()
        try:
            if field is None:
                check_shape(body, nesting=caps.nesting)
                reading = read_messages(body.get("messages"), caps)
                room = caps.text_chars - sum(len(segment.folded) for segment in reading.segments)
                offered = read_offered(body, room_chars=room)
            else:
                reading = read_inputs(body.get(field), caps, place=field)  # bounds token ids in a way of its own
                check_shape({key: body[key] for key in body if key != field}, nesting=caps.nesting)
            segments = declared(reading.segments, origins_of(request), field=ORIGINS)
        except BoundaryError as error:
            kind = TooLarge if error.too_large else InvalidRequest
            raise kind(error.message, param=error.place or None) from error
        for part, place in reading.parts.items():
            self._check_part(part, place)
        return segments + offered if offered else segments

    def next_step(
        self, decision: router.Decision, outcomes: Sequence[router.Outcome], *, shown: bool, resumable: bool = False
    ) -> router.Step:
        """The expert to ask now; raises UpstreamRejected (another would say the same), NoExpertLeft, Interrupted, or
        Abstained.

        `shown`: the client has seen a word; `resumable`: another expert could go on from there.
        """
        try:
            return router.next_step(decision, outcomes, shown=shown, resumable=resumable and self.resumes)
        except router.Abstains:
            raise Abstained(ABSTAINED) from None
        except router.NoStepLeft:
            self._give_up(outcomes, shown=shown)

    def query(self, request: ModelRequest, segments: Sequence[Segment], scope: "Scope") -> Query | None:
        """What to look up for the request; None: nothing. Raises InvalidRequest, Forbidden."""
        wish = wish_of(request.body)
        if wish.mode is Mode.REQUIRED and (self.seeking is None or self.seeking.observe):
            raise Forbidden("this policy looks nothing up in documents", param=FIELD)
        return self.seeking.query(request, segments, scope, wish) if self.seeking is not None else None

    def weighed(self, asked: Asked, request: ModelRequest, searched: Searched, flagged: Collection[str] = ()) -> Asked:
        """What the choice follows from, with whether looking up pays for whoever would be asked.

        `flagged` are the places of data in which something was found.
        """
        if self.seeking is None or searched.query is None:
            return asked
        asked = replace(asked, flagged=bool(flagged) and self.hearing is not None and self.hearing.without_flagged)
        look_up = self.seeking.weighed(request, searched, lambda: self._chosen(asked), partial(self._doubted, asked))
        return replace(asked, look_up=look_up) if look_up is not None else asked

    def _doubted(self, asked: Asked, decision: router.Decision) -> float | None:
        """How sure at most an expert is that was heard without documents and doubted; None: nobody is heard so."""
        if self.cascade is not None and decision.steps[0].on_trial:
            return self.cascade.below
        can = self.experts[decision.steps[0].expert].capabilities
        hears = self.hearing is not None and self.hearing.hears(decision, asked, can)
        return self.hearing.gate.below if self.hearing is not None and hears else None

    @property
    def search_s(self) -> float:
        """How long a search may take."""
        return self.seeking.settings.timeout_s if self.seeking is not None else 0.0

    def believe(  # noqa: PLR0913  what a call knows, and what its expert said
        self,
        request: ModelRequest,
        segments: Sequence[Segment],
        searched: Searched,
        tenant: str,
        *,
        key: bytes,
        memory: Memory | None = None,
    ) -> Evidence:
        """What of it an expert is shown, between markers that it cannot forge. Takes milliseconds.

        `memory` is what an expert said without any of it.
        """
        if self.seeking is None:
            return NO_EVIDENCE
        evidence = self.seeking.believed(request, searched, tenant, memory)
        return prompt.quoted(evidence, self.fences, key=key, conversation=conversation_of(request, segments))

    def fence(self, request: ModelRequest, segments: Sequence[Segment], key: bytes) -> ModelRequest:
        """The request with its data between markers, for every expert that is asked; `key` makes them unforgeable."""
        return prompt.fenced(request, segments, self.fences, key=key, conversation=conversation_of(request, segments))

    def clean(
        self, request: ModelRequest, segments: Sequence[Segment], key: bytes, flagged: Collection[str]
    ) -> ModelRequest | None:
        """The same without the data at these places, if the policy has an expert heard so first."""
        if not flagged or self.hearing is None or not self.hearing.without_flagged:
            return None
        left = [segment for segment in segments if segment.place not in flagged]
        return self.fence(prompt.without(request, flagged), left, key)

    def compose(  # noqa: PLR0913  each a separate fact of the step, keyword-only but the first two
        self,
        request: ModelRequest,
        step: router.Step,
        *,
        so_far: str = "",
        headers: Mapping[str, str] = NO_HEADERS,
        scope: Scope = UNBOUND,
        evidence: Evidence | None = None,
    ) -> prompt.Prompt:
        """What the step's expert is sent; `so_far` is what the client has seen of an answer that broke off.

        A local mixture-of-experts model is told how many and which of its inner experts may work: as the call's scope
        has it, and within that as the request says.
        """
        can = self.experts[step.expert].capabilities
        asked = inner_of(request.body) if "moe" in can else AS_IT_IS
        inner = asked.within(scope.masks.get(step.expert), scope.caps.get(step.expert))
        as_chat = request.operation == "completions" and "completions" not in can
        beside = _wishes(self._gate_of(step), request, can)
        request = self.caps.with_limit(request, step.expert, as_chat=as_chat)
        return prompt.compose(
            request,
            so_far=so_far,
            prefills="prefill" in can,
            as_chat=as_chat,
            beside=beside,
            headers=headers,
            inner=inner.sent(),
            evidence=evidence,
        )

    def guard(  # noqa: PLR0913  all that bears on an answer, keyword-only but the first two
        self,
        request: ModelRequest,
        segments: Sequence[Segment],
        *,
        incident: str,
        confirmed: Confirmed | None = None,
        restorer: Callable[[], Restorer] | None = None,
        said: Verdict = UNSAID,
    ) -> Guard | NoGuard:
        """What an answer goes through; `confirmed` tool calls pass, `restorer` puts the caller's values back.

        `said` is what the checks say of the request: some of it has its answer looked at more closely.
        """
        if request.operation in ALONE:
            return UNGUARDED
        private = [segment.text for segment in segments if segment.origin in {Origin.SYSTEM, Origin.DEVELOPER}]
        return self.guarding.guard(
            private,
            incident=incident,
            stream=request.stream,
            authorise=self.tools.authorise(request, segments, confirmed),
            confirm=confirming(confirmed, incident=incident) if confirmed is not None else None,
            restorer=restorer,
            raised=raises(said),
        )

    def enough_of(self, upstream: "Upstream", request: ModelRequest) -> "Upstream":
        """The upstream, cut where a stream says the same without an end, or more than the policy wants to hear."""
        return Enough(upstream, self.hears) if request.stream and self.hears is not None else upstream

    def judge(
        self, decision: router.Decision, step: router.Step, heard: Heard | None, aside: Aside | None = None
    ) -> router.Outcome:
        """How a step ended whose answer is whole: only one on trial may be not good enough.

        `aside` is what the same expert said without documents.
        """
        if heard is None or not step.on_trial:
            return ACCEPTED
        if self.hearing is not None and decision.closed_book is not None:
            return self.hearing.judged(decision, heard) if aside is None else self.hearing.compared(aside, heard)
        return self.cascade.judge(heard) if self.cascade is not None else ACCEPTED

    def memory(self, decision: router.Decision, outcome: router.Outcome, heard: Heard | None) -> Memory | None:
        """What an expert said by itself that is to be held against documents; None: it is not, or there are none."""
        first, *others = decision.steps
        if self.hearing is None or heard is None or not outcome.aside or first.look_up:
            return None
        return memory_of(outcome, heard) if others and others[0].look_up else None

    def held_against(self, decision: router.Decision, outcome: router.Outcome, evidence: Evidence) -> router.Outcome:
        """How the step ended, with what documents say of its answer."""
        return self.hearing.held_against(decision, outcome, evidence) if self.hearing is not None else outcome

    def risk(self, outcome: router.Outcome, heard: Heard | None) -> Mapping[str, object] | None:
        """Of an answer that was on trial, what its samples or its confidence say of what its expert knows."""
        if outcome.known is not None:
            return risk_of(outcome.known)
        if heard is None or not any(map(str.strip, heard.answers)):  # a call of a tool is no answer
            return None
        if outcome.confidence is None and len(heard.answers) == 1:
            return None
        said = Said(closed=heard.answers, confidence=outcome.confidence)
        return knowing(said).hallucination_risk()

    def until_s(self, step: router.Step, deadline_s: float, *, now_s: float) -> float:
        """Until when the step may take, on the clock of `now_s`; `deadline_s` is the call's."""
        gate = self._gate_of(step)
        return min(deadline_s, now_s + gate.trial_s) if gate is not None else deadline_s

    def _gate_of(self, step: router.Step) -> Cascade | None:
        """What judges the step's answer by how sure it was; None: nothing does."""
        if not step.on_trial or step.reason in {INFORMED, WHOLE}:
            return None
        return self.hearing.gate if self.hearing is not None and step.reason == CLOSED_BOOK else self.cascade

    def granted(self, grant: "Grant", request: ModelRequest) -> "Grant":
        """What of its grant this request may use, by its scope and its tools; never more.

        Raises Forbidden, InvalidRequest, and Unsupported for wishes about inner experts that nobody here has.
        """
        inside = any("moe" in self.experts[name].capabilities for name in self.allowed)
        if inner_of(request.body) is not AS_IT_IS and not inside:
            raise Unsupported("no expert here has inner experts to route to (the capability `moe`)", param=INNER)
        scope = self.permissions.granted(grant.scope, request.body)
        return grant if scope is grant.scope else replace(grant, scope=scope)

    def models(self, scope: "Scope") -> list[str]:
        """What a caller may put into `model`: the virtual models, the aliases, and the experts in reach."""
        return self._models(self.permissions.listed(scope).reaches)

    def _check_part(self, part: str, place: str) -> None:
        need = PART_NEEDS.get(part)
        if need is None:
            raise Unsupported(f"no expert takes content parts of type {part[:64]!r}", param=place)
        if not any(need in self.experts[name].capabilities for name in self.allowed):
            raise Unsupported(f"no expert here takes {need}", param=place)

    def _give_up(self, outcomes: Sequence[router.Outcome], *, shown: bool) -> NoReturn:
        last = outcomes[-1] if outcomes else None
        words = _own_words(last.error if last and last.error else "no reason was given")
        if shown:
            raise Interrupted(f"the answer broke off, and no expert could continue it: {words}")
        if last and last.rejected:
            raise UpstreamRejected(words, param=last.param, code=last.code)
        soonest_s = min((one.retry_after_s for one in outcomes if one.retry_after_s is not None), default=None)
        raise NoExpertLeft(
            f"no expert could answer ({len(outcomes)} asked); the last one said: {words}", retry_after_s=soonest_s
        )


def origins_of(request: ModelRequest) -> object:
    """What the caller declares its own texts to be."""
    own = request.body.get(EXTENSION)
    return own.get("origins") if isinstance(own, dict) else None


def _wishes(gate: Cascade | None, request: ModelRequest, can: frozenset[str]) -> Mapping[str, Any]:
    """What an expert on trial is asked for beside the answer, so that it can be judged; nothing it cannot do."""
    wishes: dict[str, Any] = {}
    if gate is None:
        return wishes
    if gate.wants_logprobs and "logprobs" in can and not request.body.get("logprobs"):
        wishes |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
    if gate.wants_samples and "n" in can and _is_cheap_to_repeat(request.body):
        wishes["n"] = gate.samples
    return wishes


def _is_cheap_to_repeat(body: Mapping[str, Any]) -> bool:
    """Whether the client wants a short answer, and one that could come out otherwise another time."""
    limits = [body[name] for name in ("max_tokens", "max_completion_tokens") if isinstance(body.get(name), int)]
    varies = body.get("temperature") != 0 and body.get("seed") is None
    return bool(limits) and min(limits) <= SHORT_TOKENS and varies and not (body.get("tools") or body.get("functions"))


def _own_words(error: str) -> str:
    """An expert's error, short and on one line, without what looks like a key."""
    return KEY_LIKE.sub("[a key]", " ".join(error.split()))[:ERROR_CHARS]
