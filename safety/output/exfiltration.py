"""What an answer gives away: secrets, canaries and the application's own instructions, as they are or encoded.

A canary is a word that the operator put where nobody should read it from. Instructions count as given away where enough
words in a row are theirs; a quotation of a few words is none. It never holds a whole secret in a finding.
"""

import base64
import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from string import ascii_letters
from typing import Final

from conclave.safety.api import WRITTEN, Finding, Origin, Segment, Severity, View
from conclave.safety.boundary.caps import BoundaryError
from conclave.safety.boundary.decode import CAPITAL, LEAST_CHARS, MOST_RUNS, RUNS, readings
from conclave.safety.boundary.normalise import fold
from conclave.safety.boundary.views import looks
from conclave.safety.detect.patterns import masked, read_rules
from conclave.safety.detect.secrets import ENCODINGS, SecretsCheck
from conclave.safety.detect.secrets import NAME as SECRETS
from conclave.safety.output.api import Excerpt, Unit
from conclave.safety.output.signs import RuleSigns, Signs

NAME: Final = "exfiltration"
GRAM: Final = 8  # words in a row: honest answers share shorter ones with any prompt
LEAST_SHARE: Final = 0.5  # of an excerpt's runs of words that are the application's, or so many of them:
MANY: Final = 8  # that is 15 words in a row
MOST_CHARS: Final = 65_536  # of an excerpt folded
MOST_WORDS: Final = 50_000  # of an application's texts
LEAST_CANARY: Final = 8  # characters; shorter ones would be in honest words
WORD: Final = re.compile(r"[^\W_]+")
RUN: Final = re.compile(r"[^\s\"'`<>()\[\]{}]{16,}")  # what may be an encoded text, if it is as long
LETTER: Final = re.compile(r"[0-9a-z]")
LETTERS: Final = re.compile(r"[^0-9a-z]+")
IN_ADDRESS: Final = ".url_password"
USER: Final = re.compile(r"://([^\s/:@]*):$")
USER_CHARS: Final = 64
PLACE: Final = re.compile(r"@(\[[0-9a-fA-F:]*\]|[\w.-]*)")
NO_PLACE: Final = re.compile(  # without a dot it is a container's name or a stand-in
    r"(?i)[\w-]*|127\.[\d.]+|0\.0\.0\.0|\[::1\]|host\.docker\.internal|(?:[\w-]+\.)*example\.(?:com|org|net|io)|[\w.-]+\.(?:example|test|local)"
)
NO_PASSWORD: Final = re.compile(r"(?i)[a-z]*[_-]?(?:pass|passwd|password|pw|pwd|secret)[0-9]{0,3}")
WEAK: Final = re.compile(
    r"[a-z_-]*[0-9]{0,4}[a-z]{0,2}|[A-Z]?[a-z]+|(?=.{0,9}$)[a-z0-9_-]*"
)  # as people write examples
REMEDY: Final = {
    "secret": "Leave it out, and replace the key where it is valid: a model has written it down.",
    "canary": "Find out what was read that holds the canary, and who asked for it.",
    "system_prompt": "Say what the instructions are for, not what they are; keep secrets out of them.",
}
ENCODED: Final = tuple(run for run in RUNS if run.name in ENCODINGS)
NUMBERS: Final = tuple(run.shape for run in RUNS if run.name in {"binary", "decimal codes", "hex dump"})
REVERSED: Final = "backwards"
SPACED: Final = "spaced letters"
TURNED: Final = "rot13"
ROT13: Final = bytes.maketrans(ascii_letters.encode(), codecs.encode(ascii_letters, TURNED).encode())
APART: Final = r"(?:\S,? ){15}|(?:\w[.|-]){15}"  # one character at a time; fewer are no keys
LETTERS_APART: Final = re.compile(  # nothing is taken back: linear
    r"(?<!\S)(?:(?:\S,? ){15,}+(?:\S(?![^\s,]))?|(?:\w[.|-]){15,}+(?:\w(?!\w))?)"
)
BETWEEN: Final = re.compile(r"(?<=\S),? |(?<=\w)[.|-](?=\w|$)")


class ExfiltrationCheck:
    """Secrets as programs encode them, canaries in any case, spacing, direction and encoding; runs of private words."""

    name = NAME
    unit: Unit = "line"
    triggers = ("",)  # what is encoded has no sign of its own: a policy that redacts waits for the line

    def __init__(self, *, canaries: Sequence[str] = ()) -> None:
        self._secrets = _secrets()
        self._private = Private()
        self._canaries = {_letters(canary): canary for canary in canaries if len(_letters(canary)) >= LEAST_CANARY}
        self._encoded = {form: _letters(canary) for canary in canaries for form in _encodings(canary)}

    def briefed(self, private: Sequence[str]) -> "ExfiltrationCheck":
        """The check for one call: `private` are the texts that an answer may not repeat."""
        known = [_private(text) for text in private]
        if not any(one.grams for one in known):
            return self
        made = object.__new__(ExfiltrationCheck)
        made._secrets, made._canaries, made._encoded = self._secrets, self._canaries, self._encoded
        made._private = Private(
            frozenset().union(*(one.words for one in known)), frozenset().union(*(one.grams for one in known))
        )
        return made

    def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
        text = excerpt.text
        found = list(self._secret(text))
        if self._canaries:
            found += self._canary(text)
        if self._private.grams and (finding := self._leaked(text)) is not None:
            found.append(finding)
        return found

    def _secret(self, text: str) -> Iterator[Finding]:
        signs = _signs()
        plain, apart = signs.seen(text)
        if plain:
            segment = Segment(Origin.ASSISTANT, text, text, "")
            for found in self._secrets.inspect(View(segment, WRITTEN, text, 0, len(text))):
                if not found.kind.endswith(IN_ADDRESS) or not _is_for_show(text, found.start, found.end):
                    yield _secret(found)
        for match in LETTERS_APART.finditer(text) if apart else ():
            yield from self._turned(text, BETWEEN.sub("", match[0]), match, SPACED)
        runs = list(RUN.finditer(text))
        if not runs:
            return
        try:
            look = looks(fold(text, max_chars=MOST_CHARS))
        except BoundaryError:
            return
        for reading in readings(look) if len(look) == len(text) and _is_encoded(look) else ():
            segment = Segment(Origin.ASSISTANT, text, text, "")
            view = View(segment, reading.name, reading.text, reading.start, reading.end)
            yield from map(_secret, self._secrets.inspect(view))
        for turn, name in ((_reversed, REVERSED), (_rot13, TURNED)):
            for match in runs if signs.within(turn(text)) else ():
                yield from self._turned(text, turn(match[0]), match, name)

    def _turned(self, text: str, said: str, match: re.Match[str], name: str) -> Iterator[Finding]:
        """The keys of vendors in what a run says when it is turned; other shapes are found in any letters."""
        if _signs().within(said):
            view = View(Segment(Origin.ASSISTANT, text, text, ""), "base64", said, *match.span())  # as if it were
            for found in self._secrets.inspect(view):
                if name == REVERSED or found.severity is Severity.HIGH:
                    yield replace(_secret(found), view=name)

    def _canary(self, text: str) -> Iterator[Finding]:
        try:
            look = looks(fold(text, max_chars=MOST_CHARS))
        except BoundaryError:
            return
        exact = len(look) == len(text)
        plain = look.lower()
        bare = LETTERS.sub("", plain)
        for letters, canary in self._canaries.items():
            for form, view in _spelt(letters):
                if (at := bare.find(form)) >= 0:
                    places = [match.start() for match in LETTER.finditer(plain)]
                    start, end = places[at], places[at + len(form) - 1] + 1
                    spread = view if end - start < 2 * len(canary) else SPACED
                    yield _given("canary", *((start, end) if exact else (0, len(text))), view=spread, what=canary)
        for form in self._encoded:
            if (at := look.find(form)) >= 0:
                span = (at, at + len(form)) if exact else (0, len(text))
                yield _given("canary", *span, view="encoded", what=form)
        for reading in readings(look) if RUN.search(look) or _numbers().within(look) else ():
            said = _letters(reading.text)
            for letters, canary in self._canaries.items():
                if letters in said:
                    span = (reading.start, reading.end) if exact else (0, len(text))
                    yield _given("canary", *span, view=reading.name, what=canary)

    def _leaked(self, text: str) -> Finding | None:
        """From the first of the application's words to the last, if there are enough of them."""
        words = list(WORD.finditer(text))
        runs = len(words) - GRAM + 1
        shared = list(self._private.shared([match[0].lower() for match in words])) if runs > 0 else []
        if not shared or (len(shared) < MANY and len(shared) < LEAST_SHARE * runs):
            return None
        start, end = words[shared[0]].start(), words[shared[-1] + GRAM - 1].end()
        return _given("system_prompt", start, end, view=WRITTEN, what="", confidence=min(1.0, len(shared) / runs))


@dataclass(frozen=True, slots=True)
class Private:
    """What an application's texts say: their words, and their runs of words, hashed."""

    words: frozenset[str] = frozenset()
    grams: frozenset[int] = frozenset()

    def shared(self, words: Sequence[str]) -> Iterator[int]:
        """Where runs of these words begin that are theirs. Only what is theirs word for word is hashed."""
        own = 0
        for at, word in enumerate(words, 1 - GRAM):
            own = own + 1 if word in self.words else 0
            if own >= GRAM and hash(tuple(words[at : at + GRAM])) in self.grams:
                yield at


def _given(  # noqa: PLR0913  a finding's own facts
    kind: str, start: int, end: int, *, view: str, what: str, confidence: float = 1.0
) -> Finding:
    return Finding(
        check=NAME,
        kind=f"{NAME}.{kind}",
        severity=Severity.HIGH if kind != "system_prompt" else Severity.MEDIUM,
        confidence=confidence,
        place="",
        start=start,
        end=end,
        view=view,
        evidence=masked(what) if what else "",
        remedy=REMEDY[kind],
    )


def _is_for_show(text: str, start: int, end: int) -> bool:
    """Whether a password in an address is an example's: `app:app@db`, `user:mypassword@localhost`.

    One that nobody would write for show, as it has capitals and digits or is long, counts wherever it leads.
    """
    password, user = text[start:end], USER.search(text, max(0, start - USER_CHARS), start)
    if WEAK.fullmatch(password) is None:
        return False
    if (user is not None and password == user[1]) or NO_PASSWORD.fullmatch(password) is not None:
        return True
    place = PLACE.match(text, end)
    return place is not None and NO_PLACE.fullmatch(place[1].rstrip(".")) is not None


def _secret(found: Finding) -> Finding:
    return Finding(
        check=NAME,
        kind=f"{NAME}.secret",
        severity=found.severity,
        confidence=found.confidence,
        place="",
        start=found.start,
        end=found.end,
        view=found.view,
        evidence=found.evidence,
        remedy=REMEDY["secret"],
    )


@lru_cache(maxsize=1)
def _secrets() -> SecretsCheck:
    return SecretsCheck()


@lru_cache(maxsize=1)
def _signs() -> RuleSigns:
    return RuleSigns(read_rules(SECRETS).rules, beside=APART)


@lru_cache(maxsize=1)
def _shapes() -> Signs:
    return Signs((CAPITAL, *(run.shape for run in ENCODED)))


def _reversed(text: str) -> str:
    return text[::-1]


def _rot13(text: str) -> str:
    """The Latin letters turned, at a twentieth of what the codec takes; what is beyond them is `?`."""
    return text.encode("latin-1", "replace").translate(ROT13).decode("latin-1")


@lru_cache(maxsize=1)
def _numbers() -> Signs:
    return Signs(NUMBERS)


def _spelt(letters: str) -> Iterator[tuple[str, str]]:
    """The forms in which a canary's letters may stand, and how they are read."""
    yield letters, WRITTEN
    yield letters[::-1], REVERSED
    if (turned := _rot13(letters)) != letters:
        yield turned, TURNED
        yield turned[::-1], TURNED


def _is_encoded(look: str) -> bool:
    """Whether any of it decodes as programs do: without that, no reading can be a secret's."""
    shapes = _shapes().within(look)
    for number in shapes:
        if not number or (ENCODED[number - 1].name == "base64" and 0 not in shapes):
            continue
        run = ENCODED[number - 1]
        for match in islice(run.pattern.finditer(look), MOST_RUNS):
            said = run.decode(match[0])
            if len(said) >= LEAST_CHARS and said != match[0]:
                return True
    return False


def _letters(text: str) -> str:
    return LETTERS.sub("", text.lower())


def _encodings(canary: str) -> Iterable[str]:
    """What stands in a longer encoded text whatever stands before it: the middle of its three base64 forms and five of
    base32, and hex.
    """
    raw = canary.encode()
    for before in range(5):
        whole = base64.b32encode(b"\0" * before + raw).decode()
        middle = whole[-(-8 * before // 5) : 8 * (before + len(raw)) // 5]  # five bits a letter
        if len(middle) >= LEAST_CANARY:
            yield middle
            yield middle.lower()
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        middle = whole[2 * before : len(whole) - (1 if (before + len(raw)) % 3 else 0)]
        if len(middle) >= LEAST_CANARY:
            yield middle
            yield middle.replace("+", "-").replace("/", "_")
    yield raw.hex()
    yield raw.hex().upper()


@lru_cache(maxsize=256)  # of the applications' prompts: the same with each call
def _private(text: str) -> Private:
    words = [match[0].lower() for match in WORD.finditer(text)][:MOST_WORDS]
    grams = (hash(tuple(words[at : at + GRAM])) for at in range(len(words) - GRAM + 1))
    return Private(frozenset(words), frozenset(grams))
