"""What the detectors of users' texts find in what honest texts decode into, and in honest questions sent encoded.

    python -m benchmarks.safety.decoded --data DIR

DIR holds category_train, category_dev, injection_train and poisoned_context (their honest rows), think_gate, tool_gate
and insecure_code. A finding in a text that had to be decoded counts as certain (`conclave.safety.detect.learned`), so
each one here is an honest request that the default policy refuses. The questions of category_dev, which no detector
learned from, go a second time in base64, in hex and in Rot13, with a request to decode them.
"""

import base64
import codecs
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
import msgspec

from benchmarks.safety.clean import honest
from conclave.router.encoder import ARTIFACTS, ENCODER_FILES, Tokens
from conclave.safety.api import Origin, Segment
from conclave.safety.boundary.normalise import fold
from conclave.safety.boundary.views import views_of
from conclave.safety.detect.learned import Heads, LearnedCheck, learned_checks

CHECKS: Final = ("override", "persona")
MOST_CHARS: Final = 1_000_000
ALSO: Final = {"think_gate": "prompt", "tool_gate": "query", "insecure_code": "code"}  # and the field of the text
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


def found_in(checks: list[LearnedCheck], text: str) -> tuple[bool, bool]:
    """Whether it can be decoded into anything, and whether a check finds something there."""
    segment = Segment(Origin.USER, text, fold(text, max_chars=MOST_CHARS), "messages[0].content")
    views = [view for view in views_of(segment) if view.is_decoded]
    return bool(views), any(check.inspect_all(views) for check in checks if views)


@click.command(help=(__doc__ or "").split("\n", maxsplit=1)[0])
@click.option("--data", required=True, envvar="CONCLAVE_DATA", type=click.Path(exists=True, path_type=Path))
def main(data: Path) -> None:
    """Print a row for each set."""
    heads = Heads.load(Tokens(ARTIFACTS / ENCODER_FILES[1]).ids)
    checks = [check for check in learned_checks(heads) if check.name in CHECKS]
    counts: dict[str, list[int]] = {}
    for name, text in texts(data):
        decodes, found = found_in(checks, text)
        count = counts.setdefault(name, [0, 0, 0])
        for at, one in enumerate((True, decodes, found)):
            count[at] += one
    print("| honest texts | of | can be decoded | found there |\n|---|---|---|---|")
    for name, (of, decodes, found) in counts.items():
        print(f"| {name} | {of} | {decodes} | {found} |")


if __name__ == "__main__":
    main()
