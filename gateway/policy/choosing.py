"""Who is asked: a policy's choice of experts for one request, and what that choice follows from.

A value without a clock, a file or a connection. Never widens what a key's scope or the tenant's own list of experts
allows, and never drops what an expert cannot do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import Forbidden, UnknownModel, Unsupported
from conclave.gateway.policy.asked import Asked
from conclave.gateway.policy.document import StageMode
from conclave.gateway.policy.expecting import Expects
from conclave.gateway.policy.hearing import Hearing
from conclave.gateway.policy.load import MANY, meant
from conclave.gateway.policy.part import VIRTUAL_MODELS
from conclave.gateway.policy.remembered import NO_THREAD, Thread
from conclave.router import api as router
from conclave.router.choose import NOTHING, Order, Table
from conclave.router.conversation import IN_LOOP, STAYS, Rule, classify_turns, settled
from conclave.router.gates.cascade import Cascade, staged
from conclave.safety.api import Origin, Segment

if TYPE_CHECKING:
    from conclave.gateway.access.scope import Scope

ALONE: Final = frozenset({"embeddings", "moderations"})  # operations that no chat can stand in for
BEYOND_CHAT: Final = "a chat has no suffix, echo, best_of and logprobs of that kind, and takes one prompt, as a text"
AUTO: Final = "auto"
PIN: Final = "pin"  # the reason of a row that the policy pins to an expert: nothing moves it
ONE_RULE: Final = Rule()

Classify = Callable[[str], router.Classification]
Reaches = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An expert as a decision sees it. `price` is USD per million tokens, blended; infinite where nobody said."""

    name: str
    capabilities: frozenset[str]
    price: float
    quality: float

    def lacks(self, asked: Asked) -> frozenset[str]:
        """What the request needs and the expert cannot do; nothing if it can be asked."""
        lacking = asked.needs - self.capabilities
        if "chat" in self.capabilities or asked.operation in ALONE:
            return lacking
        # a plain text completion is asked as a chat where there is no other way
        return lacking if asked.operation in self.capabilities else lacking | {asked.operation}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choosing:
    """What of a policy decides who is asked, for one tenant. `digest` is the whole document's, the same for all.

    `arm` is the name of these rules where the policy tests two.
    """

    digest: str
    route: StageMode
    experts: Mapping[str, Candidate]
    table: Table
    aliases: Mapping[str, str]
    allowed: frozenset[str]
    classify: Classify
    model_digest: str
    expects: Expects | None = None
    arm: str | None = None
    cascade: Cascade | None = None
    hearing: Hearing | None = None
    talks: Rule = ONE_RULE

    def decide(self, request: ModelRequest, segments: Sequence[Segment], scope: "Scope") -> router.Decision:
        """Which experts, in which order, and why; raises UnknownModel, Forbidden, Unsupported."""
        return self.choose(self.asked(request, segments, scope))

    def classifies(self, request: ModelRequest) -> bool:
        """Whether `asked` looks for a category, and takes as long as that takes."""
        chosen = request.operation not in ALONE and self._model(request.model) in VIRTUAL_MODELS
        return chosen and self.route != "off"

    def asked(
        self, request: ModelRequest, segments: Sequence[Segment], scope: "Scope", thread: Thread = NO_THREAD
    ) -> Asked:
        """What the choice follows from; classifies the text, where the choice needs a category."""
        if request.operation in ALONE or self._model(request.model) not in VIRTUAL_MODELS:
            return Asked(request.model, request.operation, request.needs, scope.experts)
        found, turns = self._classified(segments, thread)
        talk = router.Talk(thread.before, thread.open_loop, turns)
        quality = self._expected_of(segments, found)
        return Asked(request.model, request.operation, request.needs, scope.experts, found, talk, quality)

    def choose(self, asked: Asked) -> router.Decision:
        """As `decide`, from what the record keeps: a live call and its replay go the same way."""
        decision = self._chosen(asked).looking_up(asked.look_up) if asked.look_up is not None else self._chosen(asked)
        if self.hearing is None:
            return decision
        can = self.experts[decision.steps[0].expert].capabilities
        return self.hearing.staged(decision, asked, can, lambda name: self._may(name, asked))

    def _chosen(self, asked: Asked) -> router.Decision:
        model = self._model(asked.model)
        if model in self.experts:
            return self._named(model, asked)
        if model not in VIRTUAL_MODELS:
            raise UnknownModel(self._no_such(model[:64], asked.reaches), param="model")
        if asked.operation in ALONE:
            return self._by_operation(model, asked)
        row, reason = self._row(asked.found)
        names, row, reason = self._able(row, reason, asked)
        order = self._ordered(names, row, reason, model, asked.quality)
        decision = router.Decision(
            steps=_steps(order),
            reason=order.reason,
            row=row,
            expected=order.expected,
            classification=asked.found,
            model_digest=self.model_digest if asked.found else None,
        )
        return self._with_expected(self._with_trial(self._in_conversation(decision, model, asked), model, asked))

    def _models(self, reaches: Reaches) -> list[str]:
        reach = [name for name in self.experts if self._reaches(name, reaches)]
        known = {*VIRTUAL_MODELS, *reach}
        aliases = [alias for alias, target in self.aliases.items() if target in known]
        return [*VIRTUAL_MODELS, *aliases, *reach]

    def _model(self, name: str) -> str:
        """What the name that a client wrote stands for."""
        return self.aliases.get(name, name)

    def _no_such(self, model: str, reaches: Reaches) -> str:
        ids = self._models(reaches)
        more = ", ..." if len(ids) > MANY else ""
        guess = meant(model, ids, listed=False) or "."
        return f"there is no model {model!r}{guess} There are: {', '.join(ids[:MANY])}{more}"

    def _reaches(self, name: str, reaches: Reaches) -> bool:
        return name in self.allowed and reaches(name)

    def _named(self, name: str, asked: Asked) -> router.Decision:
        if not self._reaches(name, asked.reaches):
            raise Forbidden(f"this key does not reach the expert {name!r}", param="model")
        if missing := self.experts[name].lacks(asked):
            raise Unsupported(f"the expert {name!r} cannot do: {_listed(missing)}", param="model")
        return router.Decision(steps=(router.Step(name, "named"),), reason="named", row="named")

    def _classified(
        self, segments: Sequence[Segment], thread: Thread
    ) -> tuple[router.Classification | None, tuple[router.Turn, ...]]:
        """Of the last user message that has text, and the turns it leans on; None if routing is off or nobody spoke."""
        turns = asked_turns(segments, 1 + self.talks.turns) if self.route != "off" else []
        if not turns:
            return None, ()
        about = f"{self.digest} {self.arm}"
        return classify_turns(turns, lambda text: thread.memo(text, self.classify, about), self.talks)

    def _expected_of(self, segments: Sequence[Segment], found: router.Classification | None) -> Mapping[str, float]:
        """What each expert is expected to score on the last question, where that counts."""
        if self.expects is None or found is None or self.table.row(found)[0] not in self.table.solved:
            return NOTHING
        return self.expects(asked_turns(segments, 1)[0], found)

    def _in_conversation(self, decision: router.Decision, model: str, asked: Asked) -> router.Decision:
        """The decision as the conversation changes it; an open tool loop is nobody else's, whatever was asked for."""
        talk, before = asked.talk, asked.talk.before
        if self.route != "on" or before is None or not self._may(before, asked):
            return decision
        if not talk.open_loop and (model != AUTO or decision.reason == PIN):
            return decision
        expected = {**self.table.expected(decision.row), **decision.expected}
        worth = {name: score - self.table.costs.get(name, 0.0) for name, score in expected.items()}
        unsure = asked.found is None or self.table.is_unsure(asked.found)
        return settled(decision, talk, self.talks, worth=worth, unsure=unsure)

    def _with_trial(self, decision: router.Decision, model: str, asked: Asked) -> router.Decision:
        """The decision with a weaker expert on trial before it, if the policy has a cascade and the call fits it."""
        gate, found = self.cascade, asked.found
        if gate is None or self.route != "on" or model != AUTO or asked.operation != "chat":
            return decision
        if "n" in asked.needs or asked.talk.open_loop or decision.reason in {IN_LOOP, PIN}:
            return decision
        if decision.reason == STAYS and asked.talk.before != gate.weak:  # who goes on unjudged is not the weak one
            return decision
        if not gate.applies_to(found.category if found is not None and not self.table.is_unsure(found) else None):
            return decision
        named = {name for name in (gate.weak, gate.strong) if name is not None}
        able = {name for name in named | {step.expert for step in decision.steps} if self._may(name, asked)}
        return staged(decision, gate, able)

    def _with_expected(self, decision: router.Decision) -> router.Decision:
        """The decision with what each of its experts is expected to score, also one that is not of its row."""
        known = {**self.table.expected(decision.row), **decision.expected}
        if not known:  # most policies know no scores
            return decision
        expected = {step.expert: known[step.expert] for step in decision.steps if step.expert in known}
        return replace(decision, expected=expected)

    def _may(self, name: str, asked: Asked) -> bool:
        """Whether the expert could be asked, and the policy does not keep it from the question's category."""
        return self._serves(name, asked) and name not in self.table.banned(asked.found)

    def _serves(self, name: str, asked: Asked) -> bool:
        """Whether the expert is there, in reach, and can do it."""
        return name in self.experts and self._reaches(name, asked.reaches) and not self.experts[name].lacks(asked)

    def _row(self, found: router.Classification | None) -> tuple[str, str]:
        """The row of the table, and why."""
        if self.route != "on":
            return "default", "observe" if self.route == "observe" else "routing_off"
        if found is None:
            return "default", "no_text"
        return self.table.row(found)

    def _by_operation(self, model: str, asked: Asked) -> router.Decision:
        """For what has no category: who can do it, in the policy's order.

        An embedding has no fallback: another model's vectors mean something else, and would spoil an index unseen.
        """
        names, row, _ = self._able("any", "operation", asked)
        order = self._ordered(names, row, "operation", model)
        steps = _steps(order)
        return router.Decision(
            steps=steps[:1] if asked.operation == "embeddings" else steps, reason=order.reason, row=row
        )

    def _able(self, row: str, reason: str, asked: Asked) -> tuple[list[str], str, str]:
        """Who of the row is in reach and can do it; else of the default row, else of all. Never empty."""
        wider = {row: self.table.members(row), "default": self.table.default, "any": tuple(self.experts)}
        banned = self.table.banned(asked.found) if self.route == "on" else ()
        for name, members in wider.items():
            if able := [member for member in members if member not in banned and self._serves(member, asked)]:
                kept = name == row and (reason != PIN or able[0] == members[0])  # another than the pinned is none
                return able, name, reason if kept else "detour"
        reach = [self.experts[name].lacks(asked) for name in self.experts if self._reaches(name, asked.reaches)]
        if not reach:
            raise Forbidden("this key reaches no expert", param="model")
        missing = frozenset.intersection(*reach)  # what each of them lacks
        if banned and not all(reach):
            raise Unsupported("every expert in reach that could answer is banned from its category by the policy")
        what = _listed(missing) or f"{', '.join(sorted(asked.needs))} at once"
        raise Unsupported(f"no expert in reach can do: {what}")

    def _ordered(
        self, names: Sequence[str], row: str, reason: str, model: str, quality: Mapping[str, float] = NOTHING
    ) -> Order:
        """The row in the order that a virtual model asks for; equal ones stay in the row's order."""
        prices = {name: self.experts[name].price for name in names}
        qualities = {name: self.experts[name].quality for name in names}
        return self.table.order(
            names, row=row, reason=reason, model=model, prices=prices, qualities=qualities, quality=quality
        )


def _steps(order: Order) -> tuple[router.Step, ...]:
    """The first is asked for the order's reason, the others stand by."""
    first, *others = order.names
    return (router.Step(first, order.reason), *(router.Step(name, "fallback") for name in others))


def _listed(missing: frozenset[str]) -> str:
    """What is missing, in words that a client can act on."""
    words = ", ".join(sorted(missing))
    return f"{words} ({BEYOND_CHAT})" if "completions" in missing else words


def asked_turns(segments: Sequence[Segment], most: int) -> list[str]:
    """The texts of the last `most` user messages that have any, the last one last."""
    turns: list[list[str]] = []
    place = None
    for segment in reversed(segments):
        if segment.origin is not Origin.USER or not segment.text.strip():
            continue
        if _message(segment) != place:
            if len(turns) == most:
                break
            place = _message(segment)
            turns.append([])
        turns[-1].append(segment.text)
    return ["\n".join(reversed(turn)) for turn in reversed(turns)]


def _message(segment: Segment) -> str:
    """`messages[3]` of `messages[3].content[0]`."""
    return segment.place.partition(".")[0]
