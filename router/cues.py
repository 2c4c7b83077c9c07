"""What can be counted in a question that says which expert will get it right: its options, numbers, length and form.

Pure and cheap (20 us for 500 characters): a few searches, no words' meaning. Part of the quality head's contract: a
change here needs new heads (`CUES_VERSION`).
"""

import math
import re
from typing import Final

CUES_VERSION: Final = "cues/1"
CUES: Final = (
    "options", "length of the stem", "length", "mean option", "spread of the options", "digits of the stem",
    "options with digits", "options that are numbers", "none of the above", "all of the above", "exception",
    "formula", "blank", "ends with a question mark", "lines of the stem", "statements I and II",
    "which of the following", "calculate", "how many", "true or false", "units", "quotation", "short stem", "long stem",
)  # fmt: skip

_OPTION: Final = re.compile(r"\n\(?([A-J])[.)] ?")
_NUMBER_CHARS: Final = 16  # an option of so many characters with a digit is a number, perhaps with its unit
_UNITS: Final = re.compile(r"\d ?(?:°|kg|cm|mm|mol|v\b|volt|ohm|lb|ft|psi|btu|m/s|hz|kj|atm)", re.IGNORECASE)
_DIGIT: Final = re.compile(r"\d")
_CALCULATE: Final = ("calculate", "determine ", "find the", "compute", "evaluate", "solve")


def cues(text: str) -> list[float]:
    """The measures named in `CUES`, each about 0 to 1."""
    found = list(_OPTION.finditer(text))
    stem = text[: found[0].start()] if found else text
    starts = [one.start() for one in found[1:]] + [len(text)]
    options = [text[one.end() : after] for one, after in zip(found, starts, strict=False)]  # no option: none to end
    lengths = [len(one) for one in options] or [0]
    mean = sum(lengths) / len(lengths)
    spread = (sum((one - mean) ** 2 for one in lengths) / len(lengths)) ** 0.5
    lower = text.lower()
    raw = stem.encode("utf-8", "replace")
    digits = len(raw) - len(raw.translate(None, b"0123456789"))
    numeric = [one for one in options if _DIGIT.search(one)]
    each = 1.0 / max(1, len(options))
    return [
        min(1.0, len(options) / 10),
        _root(len(stem)),
        _root(len(text)),
        _root(mean),
        _root(spread),
        min(1.0, digits / 30),
        each * len(numeric),
        each * sum(len(one) <= _NUMBER_CHARS for one in numeric),
        float("none of the" in lower),
        float("all of the" in lower),
        float(" NOT " in text or "EXCEPT" in text or "LEAST" in text),
        float("\\" in stem or "^" in stem or "=" in stem),
        float("__" in stem or "..." in stem),
        float(stem.rstrip().endswith("?")),
        min(1.0, stem.count("\n") / 4),
        float("\nI. " in text or "I and II" in text),
        float("of the following" in lower),
        float(any(word in lower for word in _CALCULATE)),
        float("how many" in lower or "how much" in lower),
        float("statement 1" in lower or "true, true" in lower),
        float(digits > 0 and _UNITS.search(stem) is not None),
        float('"' in stem),
        float(len(stem) < 60),  # noqa: PLR2004  a bare question
        float(len(stem) > 800),  # noqa: PLR2004  a case or a passage before it
    ]


def _root(characters: float) -> float:
    return min(1.0, math.sqrt(characters / 4096))
