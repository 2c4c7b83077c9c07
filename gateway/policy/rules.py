"""The policy of one tenant, compiled: reads a request, decides who is asked, and says when nobody is left to ask.

A value without a clock, a file or a connection; what it decides follows from its arguments alone. Never widens what a
key's scope or the tenant's own list of experts allows, and never drops what an expert cannot do.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from conclave.gateway import prompt
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import (
    Forbidden,
    Interrupted,
    InvalidRequest,
    NoExpertLeft,
    TooLarge,
    UnknownModel,
    Unsupported,
    UpstreamRejected,
)
from conclave.gateway.policy.document import Limits, StageMode
from conclave.gateway.policy.load import MANY, meant
from conclave.gateway.policy.part import VIRTUAL_MODELS
from conclave.gateway.trace import NO_HEADERS
from conclave.router import api as router
from conclave.safety.api import Origin, Segment
from conclave.safety.boundary.caps import BoundaryError, Caps, check_shape
from conclave.safety.boundary.segments import read_inputs, read_messages

if TYPE_CHECKING:
    from conclave.gateway.access.scope import Scope

INPUTS: Final[Mapping[str, str]] = {"completions": "prompt", "embeddings": "input", "moderations": "input"}
PART_NEEDS: Final[Mapping[str, str]] = {"image_url": "images", "input_audio": "audio", "file": "files"}
ALONE: Final = frozenset({"embeddings", "moderations"})  # operations that no chat can stand in for
BEYOND_CHAT: Final = "a chat has no suffix, echo, best_of and logprobs of that kind, and takes one prompt, as a text"
ERROR_CHARS: Final = 300  # of an expert's own words in ours
KEY_LIKE: Final = re.compile(
    r"(?i)\b(?:[a-z]{2,4}[-_][\w*-]{16,}|bearer\s+\S{8,})"
)  # upstreams quote the key they refuse

Classify = Callable[[str], router.Classification]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An expert as a decision sees it. `price` is USD per million tokens, blended; infinite where nobody said."""

    name: str
    capabilities: frozenset[str]
    price: float
    quality: float

    def lacks(self, request: ModelRequest) -> frozenset[str]:
        """What the request needs and the expert cannot do; nothing if it can be asked."""
        lacking = request.needs - self.capabilities
        if "chat" in self.capabilities or request.operation in ALONE:
            return lacking
        # a plain text completion is asked as a chat where there is no other way
        return lacking if request.operation in self.capabilities else lacking | {request.operation}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a policy means for one tenant's calls. `digest` is the whole document's, the same for all tenants."""

    digest: str
    limits: Limits
    route: StageMode
    resumes: bool
    keep_text: bool
    experts: Mapping[str, Candidate]
    rows: Mapping[str, tuple[str, ...]]
    default: tuple[str, ...]
    aliases: Mapping[str, str]
    allowed: frozenset[str]
    classify: Classify
    model_digest: str

    def read(self, request: ModelRequest) -> tuple[Segment, ...]:
        """Every text of the request with its origin; raises InvalidRequest, TooLarge, Unsupported with the place."""
        caps = Caps(messages=self.limits.messages, text_chars=self.limits.text_chars, nesting=self.limits.nesting)
        body, field = request.body, INPUTS.get(request.operation)
        try:
            if field is None:
                check_shape(body, nesting=caps.nesting)
                reading = read_messages(body.get("messages"), caps)
            else:
                reading = read_inputs(body.get(field), caps, place=field)  # bounds token ids in a way of its own
                check_shape({key: body[key] for key in body if key != field}, nesting=caps.nesting)
        except BoundaryError as error:
            kind = TooLarge if error.too_large else InvalidRequest
            raise kind(error.message, param=error.place or None) from error
        for part, place in reading.parts.items():
            self._check_part(part, place)
        return reading.segments

    def decide(self, request: ModelRequest, segments: Sequence[Segment], scope: "Scope") -> router.Decision:
        """Which experts, in which order, and why; raises UnknownModel, Forbidden, Unsupported."""
        model = self.aliases.get(request.model, request.model)
        if model in self.experts:
            return self._named(model, request, scope)
        if model not in VIRTUAL_MODELS:
            raise UnknownModel(self._no_such(model[:64], scope), param="model")
        if request.operation in ALONE:
            return self._by_operation(model, request, scope)
        found = self._classified(segments)
        row, reason = self._row(found)
        names, row, reason = self._able(row, reason, request, scope)
        names, reason = self._sorted(names, reason, model)
        first, *others = names
        return router.Decision(
            steps=(router.Step(first, reason), *(router.Step(name, "fallback") for name in others)),
            reason=reason,
            row=row,
            classification=found,
            model_digest=self.model_digest if found else None,
        )

    def next_step(
        self, decision: router.Decision, outcomes: Sequence[router.Outcome], *, shown: bool, resumable: bool = False
    ) -> router.Step:
        """The expert to ask now; raises UpstreamRejected (another would say the same), NoExpertLeft or Interrupted.

        `shown`: the client has seen a word; `resumable`: another expert could go on from there.
        """
        try:
            return router.next_step(decision, outcomes, shown=shown, resumable=resumable and self.resumes)
        except router.NoStepLeft:
            self._give_up(outcomes, shown=shown)

    def compose(
        self, request: ModelRequest, step: router.Step, *, so_far: str = "", headers: Mapping[str, str] = NO_HEADERS
    ) -> prompt.Prompt:
        """What the step's expert is sent; `so_far` is what the client has seen of an answer that broke off."""
        can = self.experts[step.expert].capabilities
        as_chat = request.operation == "completions" and "completions" not in can
        return prompt.compose(request, so_far=so_far, prefills="prefill" in can, as_chat=as_chat, headers=headers)

    def models(self, scope: "Scope") -> list[str]:
        """What a caller may put into `model`: the virtual models, the aliases, and the experts in reach."""
        reach = [name for name in self.experts if self._reaches(name, scope)]
        known = {*VIRTUAL_MODELS, *reach}
        aliases = [alias for alias, target in self.aliases.items() if target in known]
        return [*VIRTUAL_MODELS, *aliases, *reach]

    def _no_such(self, model: str, scope: "Scope") -> str:
        ids = self.models(scope)
        more = ", ..." if len(ids) > MANY else ""
        return f"there is no model {model!r}{meant(model, ids, listed=False)}. There are: {', '.join(ids[:MANY])}{more}"

    def _check_part(self, part: str, place: str) -> None:
        need = PART_NEEDS.get(part)
        if need is None:
            raise Unsupported(f"no expert takes content parts of type {part[:64]!r}", param=place)
        if not any(need in self.experts[name].capabilities for name in self.allowed):
            raise Unsupported(f"no expert here takes {need}", param=place)

    def _reaches(self, name: str, scope: "Scope") -> bool:
        return name in self.allowed and scope.reaches(name)

    def _named(self, name: str, request: ModelRequest, scope: "Scope") -> router.Decision:
        if not self._reaches(name, scope):
            raise Forbidden(f"this key does not reach the expert {name!r}", param="model")
        if missing := self.experts[name].lacks(request):
            raise Unsupported(f"the expert {name!r} cannot do: {_listed(missing)}", param="model")
        return router.Decision(steps=(router.Step(name, "named"),), reason="named", row="named")

    def _classified(self, segments: Sequence[Segment]) -> router.Classification | None:
        """Of the last user message that has text; None if routing is off or there is no such message."""
        if self.route == "off":
            return None
        text = asked_text(segments)
        return self.classify(text) if text else None

    def _row(self, found: router.Classification | None) -> tuple[str, str]:
        """The row of the table, and why."""
        if self.route != "on":
            return "default", "observe" if self.route == "observe" else "routing_off"
        if found is None:
            return "default", "no_text"
        if found.unsure:
            return "default", "unsure"
        return (found.category, "category") if found.category in self.rows else ("default", "not_listed")

    def _by_operation(self, model: str, request: ModelRequest, scope: "Scope") -> router.Decision:
        """For what has no category: who can do it, in the policy's order.

        An embedding has no fallback: another model's vectors mean something else, and would spoil an index unseen.
        """
        names, row, _ = self._able("any", "operation", request, scope)
        names, reason = self._sorted(names, "operation", model)
        if request.operation == "embeddings":
            del names[1:]
        first, *others = names
        return router.Decision(
            steps=(router.Step(first, reason), *(router.Step(name, "fallback") for name in others)),
            reason=reason,
            row=row,
        )

    def _able(self, row: str, reason: str, request: ModelRequest, scope: "Scope") -> tuple[list[str], str, str]:
        """Who of the row is in reach and can do it; else of the default row, else of all. Never empty."""
        wider = {row: self.rows.get(row, self.default), "default": self.default, "any": tuple(self.experts)}
        for name, members in wider.items():
            if able := [m for m in members if self._reaches(m, scope) and not self.experts[m].lacks(request)]:
                return able, name, reason if name == row else "detour"
        reach = [self.experts[name].lacks(request) for name in self.experts if self._reaches(name, scope)]
        if not reach:
            raise Forbidden("this key reaches no expert", param="model")
        missing = frozenset.intersection(*reach)  # what each of them lacks
        what = _listed(missing) or f"{', '.join(sorted(request.needs))} at once"
        raise Unsupported(f"no expert in reach can do: {what}")

    def _sorted(self, names: list[str], reason: str, model: str) -> tuple[list[str], str]:
        """The row in the order that a virtual model asks for; equal ones stay in the row's order."""
        if model == "auto:cheap":
            return sorted(names, key=lambda name: self.experts[name].price), "cheapest"
        if model == "auto:best":
            return sorted(names, key=lambda name: -self.experts[name].quality), "best"
        return names, reason

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


def _listed(missing: frozenset[str]) -> str:
    """What is missing, in words that a client can act on."""
    words = ", ".join(sorted(missing))
    return f"{words} ({BEYOND_CHAT})" if "completions" in missing else words


def asked_text(segments: Sequence[Segment]) -> str:
    """What is classified: the texts of the last user message that has any, as written; empty if there is none."""
    asked = [segment for segment in segments if segment.origin is Origin.USER and segment.text.strip()]
    if not asked:
        return ""
    last = _message(asked[-1])
    return "\n".join(segment.text for segment in asked if _message(segment) == last)


def _message(segment: Segment) -> str:
    """`messages[3]` of `messages[3].content[0]`."""
    return segment.place.partition(".")[0]


def _own_words(error: str) -> str:
    """An expert's error, short and on one line, without what looks like a key."""
    return KEY_LIKE.sub("[a key]", " ".join(error.split()))[:ERROR_CHARS]
