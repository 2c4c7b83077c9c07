"""`conclave safety scan-output`: what the checks of answers find in texts, for a program or for a person.

It knows no policy: every check looks, and `action` is what the severest finding suggests. Human words go to stderr, but
for a person's own file.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from conclave.safety.api import Finding
    from conclave.safety.output.plan import Plan

SUGGESTED: Final = {0: "allow", 1: "annotate", 2: "redact", 3: "block"}  # by severity; 0: nothing was found


@click.command("scan-output")
@click.argument("path", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--jsonl", "file", metavar="FILE", help="A .jsonl or .jsonl.gz file, or - for stdin, instead of PATH.")
@click.option("--field", default="text", show_default=True, help="With --jsonl: the key that holds the answer.")
@click.option("--canary", "canaries", multiple=True, help="A word that no answer may hold; may be said several times.")
def scan_output(path: str | None, file: str | None, field: str, canaries: Sequence[str]) -> None:
    """Let all checks of answers look at PATH, a text or Markdown file, or at each row of a JSON-lines file.

    PATH is shown with what was found underlined, on a terminal, and each finding with its line and what to do; the exit
    status is 1 if there is one. With --jsonl, one JSON line a row: id, action (what the severest finding suggests),
    findings with their spans and remedies; rows that cannot be read are named on stderr, and the exit status is 1 then.
    """
    from conclave.safety.output.api import OutputRule  # noqa: PLC0415  the group is mounted by the main command
    from conclave.safety.output.checks import NAMES, make  # noqa: PLC0415
    from conclave.safety.output.plan import Plan  # noqa: PLC0415
    from conclave.safety.rows import judge_rows, text_of  # noqa: PLC0415

    if (path is None) == (file is None):
        raise click.UsageError("name one file: PATH for a person, or --jsonl FILE for a program")
    plan = Plan.of([OutputRule(make(name, canaries), timeout_s=60.0) for name in NAMES])
    if file is not None:
        sys.exit(1 if judge_rows(file, lambda name, row: _row(plan, name, text_of(row, field))) else 0)
    with click.open_file(str(path), encoding="utf-8", errors="replace") as opened:
        text = opened.read()
    findings = _found(plan, text)
    click.echo(_underlined(text, findings))
    for one in sorted(findings, key=lambda one: one.start):
        line = text.count("\n", 0, one.start) + 1
        click.echo(f"line {line}: {one.kind} ({one.severity.name.lower()}): {one.remedy or 'look at it'}")
    sys.exit(1 if findings else 0)


def _found(plan: "Plan", text: str) -> "Sequence[Finding]":
    from conclave.safety.output.stream import judged  # noqa: PLC0415

    return judged(plan, text)[0].verdict.findings


def _row(plan: "Plan", name: object, text: str) -> Mapping[str, Any]:
    found = _found(plan, text)
    return {
        "id": name,
        "action": SUGGESTED[max((int(one.severity) for one in found), default=0)],
        "findings": [
            {
                "check": one.check,
                "kind": one.kind,
                "severity": one.severity.name.lower(),
                "confidence": round(one.confidence, 4),
                "start": one.start,
                "end": one.end,
                "view": one.view,
                "remedy": one.remedy,
                **({"instead": one.instead} if one.instead else {}),
            }
            for one in found
        ],
    }


def _underlined(text: str, findings: "Sequence[Finding]") -> str:
    """The text, without what would drive a terminal."""
    shown: list[str] = []
    at = 0
    for one in sorted(findings, key=lambda one: (one.start, one.end)):
        start = max(at, one.start)
        if one.end > start:
            shown += (_plain(text[at:start]), click.style(_plain(text[start : one.end]), underline=True, fg="red"))
            at = one.end
    return "".join((*shown, _plain(text[at:])))


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
