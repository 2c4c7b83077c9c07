"""(4) and (6) for one tenant: what a call is looked up by, whether that pays, and what of it an expert is shown.

Everything here is pure but for the time it takes; the search itself is done by gateway/knowledge.py. A passage is data:
it goes through the checks of requests as a text of origin `retrieved`, and through the context guard, before anyone
reads it. What one of them objects to is kept away, never the whole call refused for it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import InvalidRequest
from conclave.gateway.evidence import NAME_OF, Evidence, KeptAway, Searched, Shown
from conclave.gateway.policy.choosing import ALONE, asked_turns
from conclave.gateway.policy.retrieval import RetrievalSettings
from conclave.gateway.policy.screening import OPEN, Screen
from conclave.retrieval.api import Found, Query, Rights
from conclave.router.api import Decision, LookUp
from conclave.router.encoder import excerpt
from conclave.router.gates.retrieval import Costs, Gated, Known, Mode, RetrievalGate
from conclave.safety.api import Action, Finding, Segment
from conclave.safety.context.conflict import Action as Follows
from conclave.safety.context.conflict import Memory
from conclave.safety.context.guard import ContextGuard
from conclave.safety.context.guard import Mode as GuardMode
from conclave.safety.context.provenance import Evidence as Passage
from conclave.safety.context.provenance import Trust
from conclave.safety.verdict import NOTHING, Verdict, redacted

if TYPE_CHECKING:
    from conclave.gateway.access.scope import Scope
    from conclave.router.encoder import StaticEncoder

Doubted: TypeAlias = Callable[[Decision], float | None]  # how sure at most who may be heard first, and doubted, is
FIELD: Final = "conclave.retrieval"
ORDERS: Final = frozenset({"embedded", "signatures"})  # checks by which a passage that gives orders is known
KEEPS_AWAY: Final = frozenset({GuardMode.ISOLATE, GuardMode.STRICT})  # modes in which that keeps it away
FIND: Final = 10  # passages that are judged together, of which the best are shown
FEW_WORDS: Final = 4  # a question this short leans on the one before it
MODES: Final = tuple(Mode)
QUOTED_SCORE: Final = 0.02  # the share of questions that an expert answers right which only quotes


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request says itself: `conclave.retrieval`, a mode, or an object with `mode` and `collections`."""

    mode: Mode | None = None
    collections: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Seeking:
    """What a policy means for looking things up. `quotes` are experts that know nothing but what they are shown.

    With `observe` all is searched and weighed, and the record says so, but nobody is shown anything.
    """

    settings: RetrievalSettings
    gate: RetrievalGate
    guard: ContextGuard
    screen: Screen = OPEN
    quotes: frozenset[str] = frozenset()
    observe: bool = False

    def query(self, request: ModelRequest, segments: Sequence[Segment], scope: "Scope", wish: "Wish") -> Query | None:
        """What to search for; None where nothing is to be looked up."""
        mode = self._mode(wish)
        if request.operation in ALONE or mode is Mode.NEVER:
            return None
        question = "" if "completions" in request.needs else question_of(segments)
        if not question and mode is not Mode.REQUIRED:  # there, nothing is found for nothing, and nobody is asked
            return None
        allowed = [
            one for one in (_set(self.settings.collections), scope.collections, wish.collections) if one is not None
        ]
        collections = frozenset.intersection(*allowed) if allowed else None
        tags = frozenset(self.settings.tags)
        rights = Rights(collections, tags if scope.tags is None else tags & scope.tags)
        return Query(question, rights, max(FIND, 2 * self.settings.passages))

    def weighed(
        self, request: ModelRequest, searched: Searched, decide: Callable[[], Decision], doubted: Doubted
    ) -> LookUp | None:
        """Whether looking up pays for whoever would be asked; None where there is nothing to look up in."""
        mode, query = self._mode(wish_of(request.body)), searched.query
        if query is None or (searched.results is None and not searched.failure and mode is not Mode.REQUIRED):
            return None
        if self.observe:
            seen = replace(self, observe=False).weighed(request, searched, decide, doubted)
            return (
                None if seen is None else replace(seen, now=False, if_unsure=False, reason=f"observed: {seen.reason}")
            )
        if not searched.found:
            why = f"the search failed: {searched.failure}" if searched.failure else "nothing was found"
            return LookUp(mode, now=mode is Mode.REQUIRED, if_unsure=False, reason=why)
        decision = decide()
        expert = decision.steps[0].expert
        score = QUOTED_SCORE if expert in self.quotes else decision.expected.get(expert)
        share = None if score is None else min(1.0, max(0.0, score))  # a head's forecast may lie beyond
        known = replace(known_of(searched), expert_score=share)
        gated = self.gate.decide(query.text, known, mode=mode, vector=query.vector)
        later = gated.retrieve
        if (below := doubted(decision)) is not None and not later and mode is Mode.AUTO:
            unsure = replace(known, confidence=below)
            later = self.gate.decide(query.text, unsure, mode=mode, vector=query.vector).retrieve
        return _look_up(mode, gated, later=later)

    def believed(
        self, request: ModelRequest, searched: Searched, tenant: str, memory: Memory | None = None
    ) -> Evidence:
        """What of it an expert is shown, and what is kept away. Takes milliseconds: the passages are read.

        `memory` is what the expert says by itself, if it was heard so.
        """
        required = self._mode(wish_of(request.body)) is Mode.REQUIRED
        if searched.query is None or not searched.found:
            return Evidence(required=required)
        question, found, segments, names = searched.query.text, searched.found, searched.segments, searched.names
        read = (*segments, *names)
        verdict = self.screen.runner.screen(read, tenant=tenant) if self.screen.runner is not None else NOTHING
        objected = _objected(verdict, self.screen, orders=ORDERS if self.guard.mode in KEEPS_AWAY else frozenset())
        orders = {segment.text for segment in segments if not ORDERS.isdisjoint(objected.get(segment.place, ()))}
        guard = replace(self.guard, orders=lambda text: float(text in orders))
        passages = [_as_evidence(one, segment) for one, segment in zip(found, segments, strict=True)]
        guarded = guard.look(question, passages, memory=memory)
        texts = {one.place: one.text for one in redacted(read, _cut(verdict, self.screen), _mark)}
        shown, away = list[Shown](), list[KeptAway]()
        for one, segment, name, judged in zip(found, segments, names, guarded.passages, strict=True):
            blocked = objected.get(segment.place, ())
            if judged.keep and not blocked:
                shown.append(Shown(len(shown) + 1, one.passage, texts[segment.place], texts[name.place]))
            else:
                away.append(KeptAway(one.passage, (*judged.reasons, *blocked)))
        follows = guarded.conflict.action
        return Evidence(
            shown=() if follows is Follows.ABSTAIN else tuple(self._within(shown)),
            kept_away=tuple(away),
            conflict=str(guarded.conflict.kind),
            follows=str(follows),
            required=required or follows is Follows.ABSTAIN,
            verdict=verdict,
        )

    def _within(self, shown: Sequence[Shown]) -> Iterator[Shown]:
        """The best of them, as many as the policy lets an expert be shown."""
        left = self.settings.tokens
        for one in shown[: self.settings.passages]:
            left -= len(self.gate.tokens.ids(one.text))
            if left < 0 and one.number > 1:
                return
            yield one

    def _mode(self, wish: Wish) -> Mode:
        """The policy's, or what the request asks for: it can neither leave `never` nor `required`."""
        mode = Mode(self.settings.mode)
        return mode if wish.mode is None or mode in {Mode.NEVER, Mode.REQUIRED} else wish.mode


def wish_of(body: Mapping[str, Any]) -> Wish:
    """What the request says of looking things up. Raises InvalidRequest."""
    own = body.get("conclave")
    wish = own.get("retrieval") if isinstance(own, dict) else None
    if wish is None:
        return Wish()
    said = {"mode": wish} if isinstance(wish, str) else wish
    if not isinstance(said, dict) or set(said) - {"mode", "collections"}:
        words = f"{FIELD} must be one of {', '.join(MODES)}, or an object with mode and collections"
        raise InvalidRequest(words, param=FIELD)
    mode, collections = said.get("mode"), said.get("collections")
    if mode is not None and mode not in MODES:
        raise InvalidRequest(f"{FIELD}.mode must be one of {', '.join(MODES)}", param=f"{FIELD}.mode")
    if collections is not None and not (
        isinstance(collections, list) and all(isinstance(one, str) for one in collections)
    ):
        raise InvalidRequest(f"{FIELD}.collections must be a list of names", param=f"{FIELD}.collections")
    return Wish(Mode(mode) if mode else None, _set(collections))


def question_of(segments: Sequence[Segment]) -> str:
    """The user's last words, with those before them where they are too few to be looked up alone; of long ones, head
    and tail."""
    turns = asked_turns(segments, 2)
    if not turns:
        return ""
    return excerpt("\n".join(turns) if len(turns[-1].split()) < FEW_WORDS else turns[-1])


def known_of(searched: Searched) -> Known:
    """What the search says of the question: how near the best passage is, and how much of it stands there."""
    similar = sorted((one.similarity for one in searched.found), reverse=True)
    coverage = searched.results.coverage if searched.results is not None else None
    margin = similar[0] - similar[1] if len(similar) > 1 else 0.0
    return Known(best=similar[0], margin=margin, coverage=coverage)


def _look_up(mode: Mode, gated: Gated, *, later: bool) -> LookUp:
    return LookUp(
        mode,
        now=gated.retrieve,
        if_unsure=later,
        reason=gated.reason,
        probability=gated.probability,
        p_wrong=gated.p_wrong,
        p_fix=gated.p_fix,
        p_harm=gated.p_harm,
        value=gated.value,
        threshold=gated.threshold,
        saving=gated.saving,
    )


def _objected(verdict: Verdict, screen: Screen, *, orders: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """By passage: the checks for which it is kept away: those that find `orders`, and what policy would block."""
    found: dict[str, dict[str, None]] = {}
    for one in verdict.acted:
        refused = screen.runner is not None and screen.runner.action_of(one) > Action.REDACT
        if one.check in orders or refused:
            found.setdefault(one.place.removesuffix(NAME_OF), {})[one.check] = None
    return {place: tuple(names) for place, names in found.items()}


def _cut(verdict: Verdict, screen: Screen) -> list[Finding]:
    runner = screen.runner
    return [one for one in verdict.acted if runner is not None and runner.action_of(one) is Action.REDACT]


def _mark(_: Segment, found: Sequence[Finding], __: str) -> str:
    return next((one.instead for one in found if one.instead), f"[{found[0].check} removed]")


def _as_evidence(one: Found, segment: Segment) -> Passage:
    passage = one.passage
    return Passage(segment.text, passage.source, passage.batch, Trust(int(passage.trust)), passage.acl)


def _set(names: Sequence[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


@dataclass(frozen=True, slots=True)
class MakeSeeking:
    """Makes what looks things up for a tenant; `encoder` is the one that the library was made with."""

    encoder: "StaticEncoder"

    def __call__(
        self, settings: RetrievalSettings, screen: Screen, quotes: frozenset[str], *, observe: bool = False
    ) -> Seeking:
        costs = Costs(context=float(settings.tokens))
        gate = RetrievalGate.load(self.encoder, worth=settings.worth)
        gate.costs = costs
        guard = ContextGuard(self.encoder.encode, GuardMode(settings.guard))
        return Seeking(settings, gate, guard, screen, quotes, observe)
