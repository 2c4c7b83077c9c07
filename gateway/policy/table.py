"""The table that a policy comes to: its own rows and pins, and for all else the best that scores and budget allow.

Solved when a policy is loaded and when it is published, never on the way of a call. It follows from the document alone:
the same document is the same table in every replica, and in a replay.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import fsum

from conclave.gateway.policy.canonical import digest_of
from conclave.gateway.policy.document import ExpertSettings, PolicyDocument
from conclave.gateway.policy.load import Where, meant
from conclave.gateway.policy.overlay import overlaid
from conclave.gateway.policy.part import CATEGORIES
from conclave.gateway.policy.prices import paid_for, usd_for
from conclave.gateway.policy.scored import CallTokens, Score
from conclave.gateway.policy.source import Loc, Problem, dotted
from conclave.router.budget import ANY, HOSTED, MEASURES, Infeasible
from conclave.router.budget import Problem as Wanted
from conclave.router.choose import Table


@dataclass(frozen=True, slots=True)
class Mean:
    """The score of an expert over all categories, where the policy does not say it under `any`."""

    score: float
    error: float


def table_of(document: PolicyDocument) -> Table:
    """What a completed document's rows, pins and scores come to. Raises Infeasible, in words."""
    routing, rows = document.routing, {str(name): row for name, row in document.categories.items()}
    pinned: frozenset[str] = frozenset(routing.pins)
    bans = _bans(document)
    if not routing.scores:
        for category, pin in routing.pins.items():
            others = (name for name in document.default if name not in {pin, *bans.get(category, ())})
            rows[category] = (pin, *others)
        return Table(rows, document.default, pinned=pinned, bans=bans, unsure_below=routing.unsure.below)
    return _solved(_Said(digest_of(document), document))


@dataclass(frozen=True, slots=True)
class _Said:
    """A document, known by its digest."""

    digest: str
    document: PolicyDocument = field(compare=False)


@lru_cache(maxsize=8)  # a file is checked and then put in force: the same table, a moment later
def _solved(said: _Said) -> Table:
    from conclave.router.mapping import solve  # noqa: PLC0415  numpy and scipy, 1 s; only where there are scores

    document, routing = said.document, said.document.routing
    rows = {str(name): row for name, row in document.categories.items()}
    pinned: frozenset[str] = frozenset(routing.pins)
    wanted = wanted_of(document)
    solved = solve(wanted)
    limited = wanted.limits.keys() & HOSTED.keys()
    hosted = {*solved.hosted, *(name for name, facts in wanted.experts.items() if not facts.keys() & limited)}
    made = {row: (first, *_fallbacks(wanted, row, first, hosted)) for row, first in solved.table.items()}
    default = document.default or made[ANY]
    prices = {**solved.prices, "usd_per_call": solved.prices.get("usd_per_call", 0.0) + wanted.trade}
    return Table(
        rows={row: members for row, members in made.items() if row != ANY} | rows,
        default=default,
        pinned=pinned,
        solved=frozenset(made) - {ANY, *rows, *pinned},
        bans=_bans(document),
        scores={row: {name: one.score for name, one in known.items()} for row, known in wanted.scores.items()},
        costs={
            name: fsum(price * facts.get(measure, 0.0) for measure, price in prices.items())
            for name, facts in wanted.experts.items()
        },
        unsure_below=routing.unsure.below,
        blend=routing.quality.blend if routing.quality is not None else 0.0,
    )


def wanted_of(document: PolicyDocument) -> Wanted:
    """The document as the solver takes it. `any` stands for unsure questions and for categories without a score."""
    routing = document.routing
    experts = {name: facts_of(expert, routing.tokens) for name, expert in document.experts.items()}
    able = {name for name, expert in document.experts.items() if "chat" in expert.can()}
    scores: dict[str, dict[str, Score | Mean]] = {
        str(row): {name: one for name, one in known.items() if name in able} for row, known in routing.scores.items()
    }
    weights: dict[str, float] = {str(name): weight for name, weight in routing.weights.items()}
    fixed = {str(category): pin for category, pin in routing.pins.items()}
    fixed |= {str(category): row[0] for category, row in document.categories.items()}
    scores |= {category: {} for category in fixed if category not in scores}
    means = _means({row: known for row, known in scores.items() if row != ANY})
    scores[ANY] = means | scores.get(ANY, {})
    scores = {row: {**scores[ANY], **known} for row, known in scores.items()}
    categories = (*CATEGORIES, *routing.own_categories)
    weights[ANY] = weights.get(ANY, 1.0) + fsum(weights.get(c, 1.0) for c in categories if c not in scores)
    if document.default:
        fixed[ANY] = document.default[0]
    return Wanted(
        experts=experts,
        scores=scores,
        weights=weights,
        limits={measure: limit for measure in MEASURES if (limit := getattr(routing.budget, measure)) is not None},
        trade=0.0 if routing.answer_worth_usd is None else 1 / routing.answer_worth_usd,
        fixed=fixed,
        bans=routing.bans,
    )


def facts_of(expert: ExpertSettings, tokens: CallTokens) -> dict[str, float]:
    """What is known of what an expert takes, by measure."""
    price = paid_for(expert)
    usd = None if price is None else usd_for(price, input_tokens=tokens.input, output_tokens=tokens.output)
    active_b = expert.active_b if expert.active_b is not None else expert.size_b
    said = {
        "hosted_b": expert.size_b,
        "hosted_gb": expert.size_gb,
        "usd_per_call": usd,
        "latency_ms": expert.latency_ms,
        "active_b": active_b,
    }
    return {measure: value for measure, value in said.items() if value is not None}


def problems(document: PolicyDocument, where: Where) -> Iterator[Problem]:
    """Why no table can be made, with the line of what is too tight."""
    routing, tried = document.routing, dict[Loc, PolicyDocument]({(): document})
    if routing.split is not None:
        tried["routing", "split"] = overlaid(document, routing.split)
    tried |= {("routing", "shadow", name): overlaid(document, overlay) for name, overlay in routing.shadow.items()}
    for above, one in tried.items():
        try:
            table_of(one)
        except Infeasible as error:
            loc: Loc = ("policy", *above, *_blamed(error.about))
            yield Problem(where(loc), dotted(loc), str(error))


def unused_scores(document: PolicyDocument, where: Where) -> Iterator[Problem]:
    """Scores of experts that are not here: a warning, for an expert may come and go while its scores stay."""
    seen = set()
    for row, known in document.routing.scores.items():
        for name in known:
            if name not in document.experts and name not in seen:
                seen.add(name)
                loc: Loc = ("policy", "routing", "scores", row, name)
                words = f"{name!r} has scores but is no expert here{meant(name, document.experts, listed=False)}"
                yield Problem(where(loc), dotted(loc), words)


def _blamed(about: str) -> Loc:
    if about in MEASURES:
        return ("routing", "budget", about)
    known = {"trade": "answer_worth_usd", "weights": "weights", "scores": "scores"}
    return ("routing", known[about]) if about in known else ("routing", "scores", about)


def _bans(document: PolicyDocument) -> dict[str, frozenset[str]]:
    """Category to the experts that never get it."""
    bans = document.routing.bans
    banned = dict.fromkeys(str(category) for categories in bans.values() for category in categories)
    return {c: frozenset(name for name, categories in bans.items() if c in categories) for c in banned}


def _means(scores: Mapping[str, Mapping[str, Score | Mean]]) -> dict[str, Score | Mean]:
    """Of each expert, over the categories that know it, each counting the same."""
    names = dict.fromkeys(name for known in scores.values() for name in known)
    found: dict[str, Score | Mean] = {}
    for name in names:
        ones = [known[name] for known in scores.values() if name in known]
        error = fsum(one.error**2 for one in ones) ** 0.5 / len(ones)
        found[name] = Mean(fsum(one.score for one in ones) / len(ones), error)
    return found


def _fallbacks(wanted: Wanted, row: str, first: str, hosted: set[str]) -> tuple[str, ...]:
    """Who takes over, the best first: of those that the table hosts, and those that somebody else does."""
    order = list(wanted.experts)
    known = {name: one for name, one in wanted.scores[row].items() if row not in wanted.bans.get(name, ())}
    return tuple(sorted((known.keys() & hosted) - {first}, key=lambda name: (-known[name].score, order.index(name))))
