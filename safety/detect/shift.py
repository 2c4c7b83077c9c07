"""Finds a risky wish that a coding or maths frame makes look harmless: the request judged with its frame and without.

A model that refuses a plain wish may answer the same wish as a function's body, a docstring or a variable to solve for
(Hallucinating AI Hijacking, arXiv 2410.06462). So the frame is taken away: what is left is what the text says is to be
done, its strings and comments, and its names read as words, each said plainly. The finding is the drop of risk from the
worst of these to the text as it is, and is meant to have the answer looked at more closely: it never says that a
request should be refused. Who scores is handed in. Linear, and bounded by `MOST_WISHES` short texts to score.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from conclave.safety.api import Finding, Origin, Severity, View

if TYPE_CHECKING:
    import re2

NAME: Final = "shift"
FRAME: Final = "shift.frame"  # the frame hides the risk
OPEN: Final = "shift.open"  # it is to be seen in the frame, too
HEADS: Final = ("override", "persona", "harm")  # of the learned detectors, those that read what users say
FLOOR: Final = 0.8  # a score up to this is no risk: half of honest wishes, said plainly, are above 0.7
THRESHOLD: Final = 0.5  # python -m benchmarks.safety.shift --choose
MOST_CHARS: Final = 32_768  # that are read of a text: its beginning and its end
MOST_WISHES: Final = 16
LEAST_WORDS: Final = 3  # of what is to be done
LEAST_READ: Final = 4  # of a name, a comment, a string: shorter ones are mostly names of things
LEAST_TOLD: Final = 2  # of them, that are more than a frame's
MOST_MATCHES: Final = 64  # of one pattern in one text
ASKED: Final = "how to "  # a wish said plainly: the words that the detectors know best

Scores = Callable[[str], Mapping[str, float]]

CODE: Final = (
    r"functions?|programs?|scripts?|class|classes|methods?|code|pseudo-?code|algorithms?|quer(?:y|ies)|regex|snippets?|"
    r"docstrings?|json|ya?ml|sql|html|bash|shell|app|chatbot|bot|library|module|api|enum|schema|workflow|readme|macro|"
    r"statements?|subroutine|procedure|unit tests?|test cases?|fixture|software|tool|malware|plugin|extension|crawler"
)
FRAMES: Final = (
    r"```|~~~",
    r"(?m)^\s*(?:async def|def|class|function|func|fn|struct|enum|interface|public|private|static|const|let|var|import|"
    r"create table|insert into|#include|#!|package|\w+\s*=)\b?",
    rf"\b(?:write|create|implement|build|develop|code|program|complete|finish|fill|generate|give|design|show|make|need|"
    rf"return|provide|produce|draft|extend|fix|refactor|document)\b[^.!?\n]{{0,80}}\b(?:{CODE})\b",
    r"\b(?:unit tests?|fixture|exercise|homework|assignment|contest|competition|olympiad|kata|leetcode|hackathon|"
    r"computer science|programming|pseudo-?code|python|java|javascript|typescript|c\+\+|rust|golang|in code|"
    r"simulat\w+)\b",
    r"\$[^$\n]+\$|\\[a-z]+\{|\\\(|\\\[",
    r"\b(?:solve for|theorem|lemma|prove|proof|equation|subject to|decision variables?|state machine|algorithm|"
    r"set of|function f|variables?|axioms?|corollary|minimi[sz]e|maximi[sz]e)\b",
)
CLAUSE: Final = r"[\s\"'`:]+([^.;:!?\n\"`{}()$\\]{8,200})"
WHO: Final = r"(?:i|you|we|one|they|people|someone|somebody|anyone|(?:an?|the) \w+)"
GOALS: Final = (
    rf"(?i)\b(?:how (?:to|(?:do|does|did|can|could|would|should|might|may) {WHO})|"
    r"(?:steps?|actions?|procedure|process|plan|method|ways?|instructions?|guide|manual|recipe|possible|needed|required|"
    r"necessary|order|wants?|wish(?:es)?|tr(?:y|ying|ies)|goal|task|aim|job|able|agent) (?:is )?to|"
    r"(?:that|so|before|until|while|if) (?:you|they|we|people|someone|somebody)|"
    rf"(?:process|goal|task|wish|aim|problem|input|purpose)\s*(?:is|=|:))\b?{CLAUSE}",
    rf"(?i)\b(?:{CODE})\s+(?:in [\w+#]+\s+)?(?:that|which|to|for|can|will){CLAUSE}",
)
SAID: Final = (
    r"(?m)(?://|#|--|%|/\*|\"\"\"|^\s*\*)[ \t]*([^\n]{8,200})",
    r"\"([^\"\n\\{}]{8,200})\"",
    r"(?:^|[\s=:(,\[])'([^'\n\\{}]{8,200})'",
    r"\\[a-z]+\{([^{}\n\\]{8,200})\}",
)
LISTED: Final = r"(?:[\"'][^\"'\n]{1,40}[\"']\s*[,+.]\s*)+[\"'][^\"'\n]{1,40}[\"']"
NAMED: Final = r"\b[A-Za-z][A-Za-z0-9]*(?:(?:[_-][A-Za-z0-9]+){2,12}|[a-z0-9][A-Z][a-z0-9]*(?:[A-Z][a-z0-9]*){1,12})\b"
WORDS: Final = re.compile(r"[A-Z]?[a-z']+|[A-Z]+(?![a-z])")
EMPTY: Final = frozenset(  # words of a frame, which are no wish
    {
        "a", "an", "and", "any", "as", "at", "be", "by", "do", "each", "for", "from", "full", "go", "how", "i", "if",
        "in", "is", "it", "its", "me", "my", "no", "of", "on", "or", "that", "the", "their", "them", "then", "they",
        "this", "to", "todo", "us", "use", "user", "users", "we", "what", "which", "with", "you", "your", "write",
        "create", "make", "print", "return", "add", "all", "answer", "code", "complete", "explain", "function", "give",
        "program", "script", "show", "step", "steps", "text", "line", "lines", "list", "string", "strings", "value",
    }
)  # fmt: skip
LETTERS: Final = re.compile(r"[^\W\d_]{2,}")
EDGES: Final = " \t,-*#/%\"'`()[]"
PIECE: Final = re.compile(r"[\"']([^\"'\n]{1,40})[\"']")


class ShiftCheck:
    """A Check: what users ask in a coding or maths frame. `scores` are the detectors' for a text, by their names."""

    name = NAME
    origins = frozenset({Origin.USER})
    decodes = True

    def __init__(self, scores: Scores, *, threshold: float = THRESHOLD) -> None:
        self._scores = scores
        self._threshold = threshold

    def inspect(self, view: View) -> Sequence[Finding]:
        plain, drop = self.judged(view.text)
        if plain < self._threshold:
            return ()
        hidden = drop >= self._threshold
        return (
            Finding(
                check=NAME,
                kind=FRAME if hidden else OPEN,
                severity=Severity.MEDIUM,
                confidence=drop if hidden else plain,
                place=view.segment.place,
                start=view.start,
                end=view.end,
                view=view.name,
                remedy="ask for it without the frame; the answer is looked at more closely",
            ),
        )

    def judged(self, text: str) -> tuple[float, float]:
        """How risky the wish is without its frame, 0 to 1, and how much of that the frame hides; 0 where none is."""
        text = _bounded(text)
        plain = max((self.risk(f"{ASKED}{wish}") for wish in wishes(text)), default=0.0) if framed(text) else 0.0
        return plain, max(0.0, plain - self.risk(text)) if plain >= self._threshold else 0.0

    def risk(self, text: str) -> float:
        """How far the worst score is above `FLOOR`, 0 to 1."""
        scores = self._scores(text)
        worst = max(scores.get(head, 0.0) for head in HEADS)
        return max(0.0, (worst - FLOOR) / (1 - FLOOR))


def framed(text: str) -> bool:
    """Whether a text looks like a task in code or maths."""
    return bool(_patterns()[0].Match(text))


def wishes(text: str) -> list[str]:
    """What a framed text asks for without its frame, each once: its goals first, then what it says, then its names."""
    _, goals, said, listed, named = _patterns()
    found: dict[str, None] = {}
    read = chain(_joined(listed, text), _all(said, text), _split(named, text))
    for wish in chain(_plain(_all(goals, text), LEAST_WORDS), _plain(read, LEAST_READ)):
        if not any(wish in other for other in found):
            found[wish] = None
        if len(found) == MOST_WISHES:
            break
    return list(found)


def _plain(texts: Iterable[str], least: int) -> Iterator[str]:
    """Those that could be a wish, as words, from their last `how to` on."""
    for text in texts:
        words = " ".join(text.lower().rpartition(ASKED)[2].strip(EDGES).split())
        told = LETTERS.findall(words)
        if len(told) >= least and len({*told} - EMPTY) >= LEAST_TOLD:
            yield words


def _all(patterns: "Sequence[re2.Pattern]", text: str) -> Iterator[str]:
    for pattern in patterns:
        for match in islice(pattern.finditer(text), MOST_MATCHES):
            yield match[1]


def _joined(listed: "re2.Pattern", text: str) -> Iterator[str]:
    """Texts that are given in pieces."""
    for match in islice(listed.finditer(text), MOST_MATCHES):
        yield " ".join(PIECE.findall(match[0]))


def _split(named: "re2.Pattern", text: str) -> Iterator[str]:
    """Names as words: `sellACar`, `sell_a_car`."""
    for match in islice(named.finditer(text), MOST_MATCHES):
        yield " ".join(WORDS.findall(match[0]))


def _bounded(text: str) -> str:
    if len(text) > MOST_CHARS:
        text = f"{text[: MOST_CHARS // 2]}\n{text[-MOST_CHARS // 2 :]}"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()  # without lone surrogates


@cache
def _patterns() -> "tuple[re2.Set, Sequence[re2.Pattern], Sequence[re2.Pattern], re2.Pattern, re2.Pattern]":
    import re2  # noqa: PLC0415  20 ms, and only where a policy has the check

    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    frames = re2.Set.SearchSet(options)
    for pattern in FRAMES:
        frames.Add(f"(?i){pattern}")
    frames.Compile()
    goals, said = ([re2.compile(pattern) for pattern in group] for group in (GOALS, SAID))
    return frames, goals, said, re2.compile(LISTED), re2.compile(NAMED)
