"""`conclave safety signatures check`: whether a pack can be used, and what its rules hit in a file of texts.

Human words go to stderr, the table to stdout. It shows no text, only how often and where.
"""

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

SHIPPED: Final = "shipped"  # the word for the pack that comes with Conclave
MOST_LINES: Final = 5  # of a rule's hits whose line numbers are shown


@click.group()
def signatures() -> None:
    """Packs of signatures: an admin's own rules, see docs/safety.md."""


@signatures.command()
@click.argument("pack", metavar="PACK")
@click.option("--jsonl", "file", metavar="FILE", help="Texts to try the rules on: a .jsonl or .jsonl.gz file, or -.")
@click.option("--field", default="text", show_default=True, help="The key that holds the text.")
@click.option("--origin", default="user", show_default=True, help="Where the texts came from, such as user or tool.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def check(pack: str, file: str | None, field: str, origin: str, *, as_json: bool) -> None:
    """Read PACK, a YAML file, or the word `shipped`, and list its rules; with FILE also how many of its rows each hits.

    Exits 1 if the pack cannot be used, with every mistake and its line, or if a row of FILE cannot be read.
    """
    import msgspec  # noqa: PLC0415  the group is mounted by the main command: its imports are everyone's

    from conclave.safety.api import Origin  # noqa: PLC0415
    from conclave.safety.detect.packs import PackError, read_pack  # noqa: PLC0415
    from conclave.safety.detect.packs import shipped as shipped_pack  # noqa: PLC0415
    from conclave.safety.detect.signatures import Signatures  # noqa: PLC0415

    if origin not in {*map(str, Origin)}:
        raise click.BadParameter(f"{origin!r} is none of {', '.join(Origin)}", param_hint="--origin")
    try:
        rules = shipped_pack() if pack == SHIPPED else read_pack(Path(pack))
        Signatures(rules)
    except PackError as error:
        raise click.ClickException(str(error)) from error
    except ValueError as error:
        raise click.ClickException(f"{pack}: {error}") from error
    tried = Tried(rules, Origin(origin)) if file is not None else None
    if tried is not None and file is not None:
        tried.run(file, field)
    found = [
        {
            "name": rule.name,
            "severity": rule.severity.name.lower(),
            "origins": sorted(rule.origins),
            "directions": sorted(rule.directions),
            **(tried.row(rule.kind) if tried is not None else {}),
        }
        for rule in rules
    ]
    said: dict[str, Any] = {"pack": pack, "rules": found}
    if tried is not None:
        said |= {"rows": tried.rows, "rows_hit": tried.rows_hit, "rows_bad": tried.bad}
    click.echo(msgspec.json.encode(said).decode() if as_json else _lay_out(said))
    sys.exit(1 if tried is not None and tried.bad else 0)


class Tried:
    """What the rules hit in the rows of a file."""

    def __init__(self, rules: Any, origin: Any) -> None:
        from conclave.safety.detect.signatures import AnswerSignatures, SignatureCheck  # noqa: PLC0415

        self._requests, self._answers, self._origin = SignatureCheck(rules), AnswerSignatures(rules), origin
        self.rows = self.rows_hit = self.bad = 0
        self._hits: Counter[str] = Counter()
        self._lines: dict[str, list[int]] = {}

    def run(self, file: str, field: str) -> None:
        """Every row; those that cannot be read are named on stderr."""
        from conclave.safety.rows import each_row, text_of  # noqa: PLC0415

        def take(number: int, row: Mapping[str, Any]) -> None:
            kinds = self._kinds(text_of(row, field))
            self.rows += 1
            self.rows_hit += bool(kinds)
            for kind in kinds:
                self._hits[kind] += 1
                self._lines.setdefault(kind, []).append(number)

        self.bad = each_row(file, take)

    def row(self, kind: str) -> dict[str, Any]:
        """What is said of a rule."""
        return {"rows": self._hits[kind], "lines": self._lines.get(kind, [])[:MOST_LINES]}

    def _kinds(self, text: str) -> set[str]:
        from conclave.safety.api import Segment  # noqa: PLC0415
        from conclave.safety.boundary.normalise import fold  # noqa: PLC0415
        from conclave.safety.boundary.views import views_of  # noqa: PLC0415
        from conclave.safety.output.api import Excerpt  # noqa: PLC0415
        from conclave.safety.scan import MOST_CHARS  # noqa: PLC0415

        views = views_of(Segment(self._origin, text, fold(text, max_chars=MOST_CHARS), "text"))
        said = [found for view in views for found in self._requests.inspect(view)]
        said += [found for line in text.splitlines() for found in self._answers.inspect(Excerpt(line))]
        return {found.kind for found in said}


def _lay_out(said: dict[str, Any]) -> str:
    tried = "rows" in said
    lines = [f"{'rule':32} {'severity':9} {'directions':16}" + (f" {'rows':>7}  first lines" if tried else "")]
    for rule in said["rules"]:
        line = f"{rule['name']:32} {rule['severity']:9} {', '.join(rule['directions']):16}"
        if tried:
            line += f" {rule['rows']:7}  {', '.join(map(str, rule['lines']))}"
        lines.append(line.rstrip())
    if tried:
        share = said["rows_hit"] / said["rows"] if said["rows"] else 0.0
        lines.append(f"{said['rows_hit']} of {said['rows']} rows hit ({share:.2%})")
    return "\n".join(lines)
