"""The text that the shipped tiny model learns from: short chats drawn from templates, all written for this project.

It decides what the model can say: facts about Conclave (`templates/facts.yaml`), small tasks with words and numbers,
and "I do not know that" for everything else. Everything is drawn from one seed; what is held out for the evaluation
(the last way to ask for a fact, a tenth of all sums and word lists) is never drawn for training.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final
from zlib import crc32

import yaml

TEMPLATES: Final = Path(__file__).parent / "templates"
HELD_OUT_SHARE: Final = 10  # one in ten tasks, by a checksum of its text
KINDS: Final = {"fact": 0.38, "task": 0.48, "unknown": 0.14}
SYSTEM_SHARE: Final = 0.25
TURNS: Final = {1: 0.62, 2: 0.2, 3: 0.1, 6: 0.06, 12: 0.02}  # exchanges in a chat
DISTURB_SHARE: Final = 0.3

SYSTEMS: Final = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer in one sentence.",
    "Answer briefly.",
    "Be polite and short.",
    "You answer questions about software.",
    "You are the support desk of a company.",
)
WORDS: Final = (  # noqa: SIM905  five lines instead of seventy
    "apple river stone cloud green table window garden paper light winter summer horse bread silver copper music "
    "door street night morning water fire glass letter number pencil basket yellow orange violet mountain forest "
    "island ship "
    "train bridge market school doctor farmer sailor king queen castle dragon rabbit tiger eagle salmon butter honey "
    "pepper ginger carrot onion potato cherry lemon melon coffee sugar cotton wool leather marble"
).split()
DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
ADD_ASKS: Final = ("What is {a} + {b}?", "{a} + {b}", "{a}+{b}=", "Add {a} and {b}.", "How much is {a} plus {b}?")
SUBTRACT_ASKS: Final = (
    "What is {a} - {b}?", "{a} - {b}", "{a}-{b}=", "Take {b} from {a}.", "How much is {a} minus {b}?",
)  # fmt: skip
LETTERS: Final = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True, slots=True)
class Fact:
    """An answer, and the ways to ask for it; the last is held out."""

    answer: str
    asks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer; `kind` names the skill that it shows."""

    ask: str
    answer: str
    kind: str


@dataclass(frozen=True, slots=True)
class Chat:
    """What one training example is rendered from."""

    system: str | None
    exchanges: tuple[Exchange, ...]

    def messages(self) -> list[dict[str, str]]:
        """As the chat template takes them."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        turns = [
            {"role": role, "content": text}
            for exchange in self.exchanges
            for role, text in (("user", exchange.ask), ("assistant", exchange.answer))
        ]
        return system + turns


class Corpus:
    """Draws chats. `topics` are further things that the model does not know."""

    def __init__(self, *, topics: tuple[str, ...] = ()) -> None:
        facts = yaml.safe_load((TEMPLATES / "facts.yaml").read_text(encoding="utf-8"))
        self._facts = [Fact(fact["answer"], tuple(fact["ask"].split(" | "))) for fact in facts]
        unknown = yaml.safe_load((TEMPLATES / "unknown.yaml").read_text(encoding="utf-8"))
        self._unknown_answer: str = unknown["answer"]
        self._unknown_asks: list[str] = unknown["ask"]
        self._topics: list[str] = [*unknown["topics"], *topics]

    def chats(self, random: Random) -> Iterator[Chat]:
        """Without end, for training: nothing that is held out."""
        while True:
            turns = random.choices(list(TURNS), weights=list(TURNS.values()))[0]
            system = random.choice(SYSTEMS) if random.random() < SYSTEM_SHARE else None
            yield Chat(system, tuple(self._exchange(random) for _ in range(turns)))

    def seen_facts(self) -> list[Exchange]:
        """Each fact, asked in the first way that training saw: what was learned by heart."""
        return [Exchange(fact.asks[0], fact.answer, "fact_as_trained") for fact in self._facts]

    def held_out_facts(self) -> list[Exchange]:
        """Each fact, asked in the way that training never saw."""
        return [Exchange(fact.asks[-1], fact.answer, "fact") for fact in self._facts]

    def held_out_tasks(self, random: Random, number: int) -> list[Exchange]:
        """As many new tasks of each kind, where the kind has any left over."""
        found: list[Exchange] = []
        for task in TASKS:
            drawn = (task(random) for _ in range(200 * number))
            fresh = {each.ask: each for each in drawn if _held_out(each)}
            found.extend(list(fresh.values())[:number])
        return found

    def held_out_unknown(self) -> list[Exchange]:
        """Questions whose topics are in no list that is trained on."""
        topics = ("the Eiffel tower", "a haiku on rain", "kidney stones", "tort law", "the Fibonacci numbers", "Mozart")
        asks = (ask.replace("<topic>", topic) for ask in self._unknown_asks for topic in topics)
        return [Exchange(ask, self._unknown_answer, "unknown") for ask in asks]

    def _exchange(self, random: Random) -> Exchange:
        kind = random.choices(list(KINDS), weights=list(KINDS.values()))[0]
        if kind == "task":
            task = random.choice(TASKS)
            while _held_out(made := task(random)):
                pass
            return made
        if kind == "fact":
            fact = random.choice(self._facts)
            return Exchange(disturbed(random.choice(fact.asks[:-1]), random), fact.answer, "fact")
        ask = random.choice(self._unknown_asks)
        while "<topic>" in ask:
            ask = ask.replace("<topic>", random.choice(self._topics), 1)
        return Exchange(disturbed(ask, random), self._unknown_answer, "unknown")


def disturbed(ask: str, random: Random) -> str:
    """Some of the questions as people type them: without capitals or the mark at the end, with a word before."""
    if random.random() >= DISTURB_SHARE:
        return ask
    ask = random.choice((ask, ask.lower(), ask.rstrip("?."), ask.lower().rstrip("?."), ask.upper()))
    return random.choice(("", "", "Hi, ", "Please: ", "Quick question: ", "ok, ", "And ")) + ask


def _held_out(made: Exchange) -> bool:
    """By the text, so that the same task is always on the same side. Small tables have no such side."""
    return made.kind in _LARGE and crc32(made.ask.lower().encode()) % HELD_OUT_SHARE == 0


def _add(random: Random) -> Exchange:
    a, b = random.randrange(50), random.randrange(50)
    ask = random.choice(ADD_ASKS)
    return Exchange(ask.format(a=a, b=b), str(a + b), "add")


def _subtract(random: Random) -> Exchange:
    a, b = sorted((random.randrange(50), random.randrange(50)), reverse=True)
    ask = random.choice(SUBTRACT_ASKS)
    return Exchange(ask.format(a=a, b=b), str(a - b), "subtract")


def _larger(random: Random) -> Exchange:
    a, b = random.sample(range(100), 2)
    ask = random.choice(("Which is larger, {a} or {b}?", "What is more: {a} or {b}?", "Is {a} or {b} larger?"))
    return Exchange(ask.format(a=a, b=b), str(max(a, b)), "larger")


def _repeat(random: Random) -> Exchange:
    text = " ".join(_words(random, 1, 6))
    ask = random.choice(("Repeat: {t}", "Repeat after me: {t}", "Say {t}", "Echo: {t}", "Write exactly this: {t}"))
    return Exchange(ask.format(t=text), text, "repeat")


def _reverse(random: Random) -> Exchange:
    words = _words(random, 2, 5)
    ask = random.choice(("Reverse the order: {t}", "Say these words backwards: {t}", "Reverse this list: {t}"))
    return Exchange(ask.format(t=" ".join(words)), " ".join(reversed(words)), "reverse")


def _sort(random: Random) -> Exchange:
    words = _words(random, 2, 4)
    ask = random.choice(("Sort these words: {t}", "Sort: {t}", "Put in alphabetical order: {t}"))
    return Exchange(ask.format(t=" ".join(words)), " ".join(sorted(words)), "sort")


def _edge(random: Random) -> Exchange:
    words = _words(random, 2, 6)
    which, word = random.choice((("first", words[0]), ("last", words[-1])))
    ask = random.choice(("What is the {w} word of: {t}", "Give me the {w} word: {t}", "{w} word of {t}?"))
    return Exchange(ask.format(w=which, t=" ".join(words)), word, "edge")


def _count(random: Random) -> Exchange:
    words = _words(random, 1, 7)
    ask = random.choice(("How many words: {t}", "Count the words: {t}", "Count these words: {t}"))
    return Exchange(ask.format(t=" ".join(words)), str(len(words)), "count")


def _next(random: Random) -> Exchange:
    name, ring = random.choice((("day", DAYS), ("month", MONTHS), ("letter", LETTERS)))
    place, after = random.randrange(len(ring)), random.random() < 0.5  # noqa: PLR2004  a coin
    side = "after" if after else "before"
    ask = random.choice(("Which {n} comes {s} {x}?", "What {n} is {s} {x}?", "The {n} {s} {x}?"))
    answer = ring[(place + (1 if after else -1)) % len(ring)]
    return Exchange(ask.format(n=name, s=side, x=ring[place]), answer, "next")


def _words(random: Random, least: int, most: int) -> list[str]:
    return random.sample(WORDS, random.randint(least, most))


TASKS: Final[tuple[Callable[[Random], Exchange], ...]] = (
    _add, _subtract, _larger, _repeat, _reverse, _sort, _edge, _count, _next,
)  # fmt: skip
_LARGE: Final = frozenset({"add", "subtract", "larger", "repeat", "reverse", "sort", "edge", "count"})
