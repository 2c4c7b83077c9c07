"""What the detectors of users' words tell of honest texts, and what of them the default policy refuses.

    python -m benchmarks.safety.honest --data DIR [--files FOLDER ...]

DIR holds category_train, category_dev, injection_train and poisoned_context (their honest rows), think_gate, tool_gate
and insecure_code. The questions of category_dev, which no detector learned from, go a second time in base64, in hex and
in Rot13, with a request to decode them. The files of a FOLDER (documents, code) are what people paste: pieces of 6,000
characters, the same piece once, 1,500 of a folder. No detector learned from a file.
"""

import base64
import codecs
import gzip
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
import msgspec

from benchmarks.safety.clean import honest
from conclave.router.encoder import ARTIFACTS, ENCODER_FILES, Tokens
from conclave.safety.api import FOLDED, WRITTEN, Finding, Origin, Segment, Severity
from conclave.safety.boundary.normalise import fold
from conclave.safety.boundary.views import views_of
from conclave.safety.detect.learned import Heads, LearnedCheck, learned_checks

CHECKS: Final = ("override", "persona")  # those that refuse by default
ALSO: Final = {"think_gate": "prompt", "tool_gate": "query", "insecure_code": "code"}  # and the field of the text
PIECE_CHARS: Final = 6_000
LEAST_CHARS: Final = 200
FILE_CHARS: Final = 24_000  # of one file
PIECES: Final = 1_500  # of one folder
ENCODED: Final[dict[str, Callable[[str], str]]] = {
    "base64": lambda text: f"Please decode this: {base64.b64encode(text.encode()).decode()}",
    "hex": lambda text: f"What does this say? {text.encode().hex()}",
    "rot13": lambda text: f"Read this Rot13: {codecs.encode(text, 'rot13')}",
}


def texts(data: Path) -> Iterator[tuple[str, str]]:
    """The set and the text of each honest row; `category_dev` in each encoding, too."""
    for name, text in honest(data):
        yield name, text
        if name == "category_dev":
            for encoding, encoded in ENCODED.items():
                yield f"{name}, {encoding}", encoded(text)
    for name, field in ALSO.items():
        with gzip.open(data / f"{name}.jsonl.gz") as lines:
            for line in lines:
                yield name, msgspec.json.decode(line)[field]


def pieces(folder: Path) -> Iterator[str]:
    """Pieces of the folder's files, in an order that is drawn; what is no text in UTF-8 is left out."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    random.Random(1).shuffle(files)  # noqa: S311  a draw of files, no secret
    seen: set[str] = set()
    for file in files:
        try:
            with file.open(encoding="utf-8") as opened:
                text = opened.read(FILE_CHARS)
        except (OSError, UnicodeDecodeError):
            continue
        for start in range(0, len(text), PIECE_CHARS):
            piece = text[start : start + PIECE_CHARS]
            if len(piece) >= LEAST_CHARS and piece not in seen:
                seen.add(piece)
                yield piece
                if len(seen) == PIECES:
                    return


def findings(checks: list[LearnedCheck], text: str) -> list[Finding]:
    """What the checks find in a user's text."""
    segment = Segment(Origin.USER, text, fold(text, max_chars=2 * len(text) + PIECE_CHARS), "messages[0].content")
    views = views_of(segment)
    return [one for check in checks for one in check.inspect_all(views)]


@click.command(help=(__doc__ or "").split("\n", maxsplit=1)[0])
@click.option("--data", envvar="CONCLAVE_DATA", type=click.Path(exists=True, path_type=Path))
@click.option("--files", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(data: Path | None, files: tuple[Path, ...]) -> None:
    """Print a row for each set and each folder."""
    heads = Heads.load(Tokens(ARTIFACTS / ENCODER_FILES[1]).ids)
    checks = [check for check in learned_checks(heads) if check.name in CHECKS]
    counts: dict[str, list[int]] = {}
    of_files = ((folder.name, piece) for folder in files for piece in pieces(folder))
    for name, text in (*(texts(data) if data else ()), *of_files):
        found = findings(checks, text)
        severe = [one for one in found if one.severity is Severity.HIGH]
        count = counts.setdefault(name, [0, 0, 0, 0])
        hidden = bool(severe) and {one.view for one in severe}.isdisjoint({WRITTEN, FOLDED})
        for at, one in enumerate((True, bool(found), bool(severe), hidden)):
            count[at] += one
    print("| honest texts | of | told of | refused by default | only for what they decode into |")
    print("|---|---|---|---|---|")
    for name, (of, told, refused, hidden) in counts.items():
        print(f"| {name} | {of} | {told} ({told / of:.2%}) | {refused} ({refused / of:.2%}) | {hidden} |")


if __name__ == "__main__":
    main()
