"""From confirmed incidents to proposed signatures: words in a row that incidents share and honest texts do not have.

An admin hands in both; what comes out is a pack of signatures (`safety/detect/packs.py`) with the counts that speak for
each rule, and nothing more: no policy names it, so nobody is refused by it, until an admin says so. Candidates are
chosen against one half of the honest texts and counted on the other, which took no part in the choice.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from conclave.safety.api import Origin, Segment
from conclave.safety.boundary.normalise import fold
from conclave.safety.boundary.views import looks, views_of
from conclave.safety.detect.signatures import Signature, SignatureCheck

WORD: Final = re.compile(r"[^\W_]+")
LEAST_WORDS, MOST_WORDS = 3, 8  # in a row: two words are in honest texts nobody has seen yet, too
LEAST_CHARS: Final = 12
MOST_RULES: Final = 20
LEAST_INCIDENTS: Final = 3  # that a rule must hold in: two may be the same person's words
MOST_TEXT_CHARS: Final = 20_000  # of a text that is read; the rest is not
BETWEEN: Final = r"[^0-9A-Za-z]+"  # what may stand between two words of a pattern

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A rule, and what it finds: `incidents` and `benign` are texts that it holds in, of all that it was tried on."""

    rule: Signature
    incidents: int
    of_incidents: int
    benign: int
    of_benign: int


def propose(
    incidents: Sequence[str], benign: Sequence[str], *, origin: Origin = Origin.USER, most_benign: int = 0
) -> list[Proposal]:
    """Rules that together hold in as many incidents as they can, the best first.

    Raises ValueError for too few incidents, or no honest texts to try the rules on.
    """
    if len(incidents) < LEAST_INCIDENTS:
        raise ValueError(f"{len(incidents)} incidents are too few to see what they share; {LEAST_INCIDENTS} at least")
    if len(benign) < 2:  # noqa: PLR2004  one to choose against, one to count on
        raise ValueError("there are no honest texts to try a rule on; hand in two at least, better thousands")
    bad, held_out = _segments(incidents, origin), _segments(benign[1::2], origin)
    found: list[Proposal] = []
    for words in _covering(_candidates(bad, _segments(benign[::2], origin))):
        rule = _rule(words, len(found) + 1, origin)
        check = SignatureCheck([rule])
        hits, wrong = _held(check, bad), _held(check, held_out)
        if hits >= LEAST_INCIDENTS and wrong <= most_benign:
            found.append(Proposal(rule, hits, len(bad), wrong, len(held_out)))
    return found


def as_pack(proposals: Iterable[Proposal]) -> str:
    """The proposals as a pack of signatures, the counts as comments."""
    import yaml  # noqa: PLC0415  only where there is something to write

    lines = [
        "# Proposed from incidents, and used by nobody. Read each rule, try it (`conclave safety signatures check`),",
        "# and name this file in the policy's `signatures` if you want it to count.",
        "rules:",
    ]
    for one in proposals:
        rule = one.rule
        said: dict[str, object] = {"name": rule.name, "severity": rule.severity.name.lower(), "pattern": rule.pattern}
        said |= {"origins": sorted(map(str, rule.origins)), "message": rule.message}
        block = yaml.safe_dump([said], sort_keys=False, allow_unicode=True, width=1_000)
        counts = f"{one.incidents} of {one.of_incidents} incidents, {one.benign} of {one.of_benign} honest texts"
        lines += [f"  # {counts}", *(f"  {line}" for line in block.splitlines())]
    return "\n".join(lines) + "\n"


def _segments(texts: Iterable[str], origin: Origin) -> list[Segment]:
    """The texts as the boundary would hand them over; what is longer is cut."""
    found: list[Segment] = []
    for number, text in enumerate(texts):
        cut = text[:MOST_TEXT_CHARS].encode("utf-8", "replace").decode("utf-8")  # lone surrogates
        found.append(Segment(origin, cut, fold(cut, max_chars=18 * MOST_TEXT_CHARS), f"texts[{number}]"))
    return found


def _rows(segment: Segment) -> Iterator[Words]:
    """The words of each way to read a text, as a pattern would meet them."""
    for text in {looks(segment.folded), *(view.text for view in views_of(segment))}:
        yield tuple(match[0].casefold() for match in WORD.finditer(text) if match[0].isascii())


def _candidates(bad: Sequence[Segment], good: Sequence[Segment]) -> dict[Words, frozenset[int]]:
    """Words in a row, and the incidents that have them; those that an honest text has, too, are gone."""
    holders: dict[Words, set[int]] = defaultdict(set)
    for number, segment in enumerate(bad):
        for row in _rows(segment):
            for words in _grams(row):
                holders[words].add(number)
    shared = {words: frozenset(held) for words, held in holders.items() if len(held) >= LEAST_INCIDENTS}
    for segment in good:
        for row in _rows(segment):
            for words in _grams(row):
                shared.pop(words, None)
    return shared


def _grams(row: Words) -> Iterator[Words]:
    for size in range(LEAST_WORDS, MOST_WORDS + 1):
        for start in range(len(row) - size + 1):
            words = row[start : start + size]
            if sum(map(len, words)) >= LEAST_CHARS:
                yield words


def _covering(candidates: dict[Words, frozenset[int]]) -> Iterator[Words]:
    """Greedily: what holds in most of the incidents that no rule holds in yet; of equal ones the longest."""
    left = dict(candidates)
    for _ in range(MOST_RULES):
        if not left:
            return
        best = max(left, key=lambda words: (len(left[words]), len(words), words))
        covered = left[best]
        yield best
        left = {words: rest for words, held in left.items() if len(rest := held - covered) >= LEAST_INCIDENTS}


def _rule(words: Words, number: int, origin: Origin) -> Signature:
    import re2  # noqa: PLC0415  20 ms, for who proposes

    pattern = r"(?i)\b" + BETWEEN.join(map(re2.escape, words)) + r"\b"
    message = "This text matches a rule that was made from attacks."
    return Signature(name=f"proposed_{number}", pattern=pattern, origins=frozenset({origin}), message=message)


def _held(check: SignatureCheck, segments: Iterable[Segment]) -> int:
    """In how many texts the rule holds, in any view."""
    return sum(any(check.inspect(view) for view in views_of(segment)) for segment in segments)
