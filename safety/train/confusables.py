"""Makes `safety/rules/confusables.json`: which characters of other scripts look like an ASCII letter or digit.

    pip install confusable-homoglyphs==3.3.1
    python -m conclave.safety.train.confusables safety/rules/confusables.json

The pairs are those of Unicode's confusables.txt (UTS #39), as that package (MIT) ships them, and the letters that the
character database itself calls small capitals, negative circled or squared ones, and regional indicators. Characters
that NFKC turns into ASCII by itself are left out, and so is everything of more than one character.
"""

import re
import sys
import unicodedata
from pathlib import Path
from typing import Final

import msgspec

LOOKS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
STYLED: Final = re.compile(
    r"(?:LATIN LETTER SMALL CAPITAL|NEGATIVE CIRCLED LATIN CAPITAL LETTER|NEGATIVE SQUARED LATIN CAPITAL LETTER|"
    r"REGIONAL INDICATOR SYMBOL LETTER|SQUARED LATIN CAPITAL LETTER) ([A-Z])"
)


def looks(confusables: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    """Character -> the ASCII letter or digit that it looks like; of its own case where there is a choice."""
    found: dict[str, str] = {}
    for character, others in confusables.items():
        if len(character) != 1 or character.isascii() or unicodedata.normalize("NFKC", character).isascii():
            continue
        alike = sorted((other["c"] for other in others if other["c"] in LOOKS), key=LOOKS.index)
        if alike:
            cased = [letter for letter in alike if letter.isupper() == character.isupper()]
            found[character] = "I" if alike == ["l"] and character.isupper() else (cased or alike)[0]
    for point in range(0x80, 0x1FFFF):
        styled = STYLED.fullmatch(unicodedata.name(chr(point), ""))
        if styled and not unicodedata.normalize("NFKC", chr(point)).isascii():
            found[chr(point)] = styled[1].lower()
    return dict(sorted(found.items()))


def main() -> None:
    from confusable_homoglyphs import confusables  # noqa: PLC0415  needed here only, once

    made = looks(confusables.confusables_data)
    Path(sys.argv[1]).write_bytes(msgspec.json.encode(made) + b"\n")
    sys.stderr.write(f"{len(made)} characters\n")


if __name__ == "__main__":
    main()
