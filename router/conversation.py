"""Routing on the conversation, not on its last line: what a follow-up is about, and who goes on answering.

"Commit it", "make it shorter", "and in Python?" say nothing of their subject: they take it from the turns before. And
an expert that began a tool loop ends it. Pure functions of what the request itself holds and of who answered before;
never remembers anything itself.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from conclave.router.api import Classification, Decision, Step, Talk, Turn

SHORT_WORDS: Final = 12  # a follow-up is short; what is longer has a subject of its own
SHORT_CHARS: Final = 80  # in a script without spaces, too
SCANT_CHARS: Final = 6  # of such a script: three or four words
BESIDE_POINTER: Final = 2  # more words of its own are a subject, even beside an "it"
BESIDE_OPENER: Final = 1  # as in "and in Python?"
STAYS: Final = "stays"  # reasons of a decision: the same expert goes on,
IN_LOOP: Final = "tool_loop"  # or has to
OWN_SHARE: Final = 0.25  # what a turn that leans on others counts itself

# English alone: in other languages what the classifier is unsure of still takes its subject from before.
_POINT: Final = (  # they stand for something said before
    "it its this that these those them they above again previous same instead former latter one ones else other"
)
_OPEN: Final = "and but or also then now so ok okay yes yeah yep no nope sure thanks great perfect continue more why"
_SAY_NOTHING: Final = (  # of what a sentence is about
    "a an the of to in on at for with without from by as into about is are was were be been do does did done have"
    " has had can could will would should may might must not i me my we us our you your he she his her what which"
    " who how when where please just only very too much many some any all both each every first second last next"
    " make give get show tell say write rewrite rephrase put take use try retry redo go ahead let add remove"
    " change fix undo keep commit push merge explain translate summarize summarise shorten expand elaborate shorter"
    " longer simpler better faster clearer formal casual version way thing part answer bit up out mean"
)
POINTERS: Final = frozenset(_POINT.split())
OPENERS: Final = frozenset(_OPEN.split())  # they begin a sentence that goes on from another
SUBJECTLESS: Final = POINTERS | OPENERS | frozenset(_SAY_NOTHING.split())
_WORD: Final = re.compile(r"\w+(?:['\u2019]\w+)?")


@dataclass(frozen=True, slots=True)
class Rule:
    """How much a conversation counts.

    `turns`: how many earlier ones are looked at, at most; 0 looks at the last alone. `decay`: what a turn counts, by
    each one with a subject that came after it. `stick`: stay with the expert that answered before where that is worth
    more. `handoff`: the gain in expected score that changing it must bring.
    """

    decay: float = 0.5
    turns: int = 4
    handoff: float = 0.05
    stick: bool = True


def leans(text: str) -> bool:
    """Whether a turn takes its subject from what was said before: by its length and its words alone."""
    text = text.strip()
    if len(text) > SHORT_CHARS:
        return False
    words = _WORD.findall(text.casefold())
    if not text.isascii() and len(words) <= 1:
        return len(text) <= SCANT_CHARS
    if len(words) > SHORT_WORDS:
        return False
    own = sum(word not in SUBJECTLESS for word in words)
    if not POINTERS.isdisjoint(words):
        return own <= BESIDE_POINTER
    return own <= (BESIDE_OPENER if words and words[0] in OPENERS else 0)


def classify_turns(
    turns: Sequence[str], classify: Callable[[str], Classification], rule: Rule
) -> tuple[Classification, tuple[Turn, ...]]:
    """The category of the last of the user's `turns` (which come first to last), and the turns that it follows from.

    A turn that is sure and does not lean on others is taken as it is, and no other is looked at. Else the probabilities
    of the turns are averaged. A turn counts 1, less by `decay` for each turn with a subject that came after it, and a
    quarter of that if it leans on others. Looking back ends at a turn that says enough by itself. The average is
    `unsure` unless turns with half of the weight are sure of its category.
    """
    last = classify(turns[-1])
    if not rule.turns or len(turns) == 1 or not (last.unsure or leans(turns[-1])):
        return last, ()
    found: list[Classification] = []
    weights: list[float] = []
    weight = 1.0
    for text in reversed(turns[-1 - rule.turns :]):
        heard, leaning = (classify(text) if found else last), leans(text)
        found.append(heard)
        weights.append(weight * (OWN_SHARE if leaning else 1.0))
        if not leaning and not heard.unsure:
            break
        weight *= 1.0 if leaning else rule.decay
    if len(found) == 1:
        return last, ()
    turns_used = (Turn(weight, one.category, one.unsure) for weight, one in zip(weights, found, strict=True))
    return blended(found, weights), tuple(turns_used)


def blended(found: Sequence[Classification], weights: Sequence[float]) -> Classification:
    """The weighted average of the probabilities; in double precision, in the order given, so that it can be redone."""
    total = math.fsum(weights)
    probabilities = {
        category: math.fsum(w * one.probabilities[category] for w, one in zip(weights, found, strict=True)) / total
        for category in found[0].probabilities
    }
    category = max(probabilities, key=probabilities.__getitem__)
    agreeing = math.fsum(
        w for w, one in zip(weights, found, strict=True) if not one.unsure and one.category == category
    )
    return Classification(category, probabilities[category], agreeing < total / 2, probabilities)


def settled(decision: Decision, talk: Talk, rule: Rule, *, worth: Mapping[str, float], unsure: bool) -> Decision:
    """The decision with the expert that answered before at its head, where staying is worth more than changing.

    In an open tool loop always. Else where both experts' `worth` is known (the score that is expected of them less what
    they cost), unless the gain exceeds the hand-off cost; where it is not, if the category is `unsure`. The others
    stand by, as fallbacks.
    """
    before = talk.before
    if before is None or not rule.stick or not decision.steps or decision.steps[0].expert == before:
        return decision
    first = decision.steps[0].expert
    known = first in worth and before in worth
    if not talk.open_loop and not (worth[first] - worth[before] <= rule.handoff if known else unsure):
        return decision
    reason = IN_LOOP if talk.open_loop else STAYS
    others = (Step(step.expert, "fallback") for step in decision.steps if step.expert != before)
    return replace(decision, steps=(Step(before, reason), *others), reason=reason)
