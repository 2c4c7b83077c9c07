"""`conclave safety scan-output`: what the checks of answers find in texts, for a program or for a person.

It knows no policy: every check looks, and `action` is what the severest finding suggests. Human words go to stderr, but
for a person's own file.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

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

    PATH is shown with what was found underlined, and each finding with its place and what to do; the exit status is 1
    if there is one. With --jsonl, one JSON line a row: id, action (what the severest finding suggests), findings with
    their places and remedies, spans (what all of them cover), remedy (of the severest); rows that cannot be read are
    named on stderr, and the exit status is 1 then.
    """
    from conclave.safety.output.api import OutputRule  # noqa: PLC0415  the group is mounted by the main command
    from conclave.safety.output.checks import NAMES, make  # noqa: PLC0415
    from conclave.safety.output.exfiltration import LEAST_CANARY, LETTERS  # noqa: PLC0415
    from conclave.safety.output.plan import Plan  # noqa: PLC0415
    from conclave.safety.rows import judge_rows, text_of  # noqa: PLC0415

    if (path is None) == (file is None):
        raise click.UsageError("name one file: PATH for a person, or --jsonl FILE for a program")
    if file is None and click.get_current_context().get_parameter_source("field") is not ParameterSource.DEFAULT:
        raise click.UsageError("--field is for --jsonl: of PATH, all is read")
    for canary in canaries:
        if len(LETTERS.sub("", canary.lower())) < LEAST_CANARY:
            raise click.UsageError(
                f"--canary {canary!r} is too short: {LEAST_CANARY} letters and digits at least, or honest words hold it"
            )
    plan = Plan.of([OutputRule(make(name, canaries), timeout_s=60.0) for name in NAMES])
    if file is not None:
        sys.exit(1 if judge_rows(file, lambda name, row: _row(plan, name, text_of(row, field))) else 0)
    with click.open_file(str(path), encoding="utf-8", errors="replace") as opened:
        text = opened.read()
    findings = _found(plan, text)
    spans = merged((one.start, one.end) for one in findings)
    styled = not click.utils.should_strip_ansi(sys.stdout)  # type: ignore[attr-defined]  # as echo asks
    click.echo(_underlined(text, spans) if styled else _marked(text, spans))
    for one in sorted(findings, key=lambda one: one.start):
        line, column = text.count("\n", 0, one.start) + 1, one.start - text.rfind("\n", 0, one.start)
        place = f"line {line}, column {column}"
        click.echo(f"{place}: {one.kind} ({one.severity.name.lower()}): {one.remedy or 'look at it'}")
    if not findings:
        click.echo("nothing was found", err=True)
    sys.exit(1 if findings else 0)


def _found(plan: "Plan", text: str) -> "Sequence[Finding]":
    from conclave.safety.output.stream import judged  # noqa: PLC0415

    return judged(plan, text)[0].verdict.findings


def _row(plan: "Plan", name: object, text: str) -> Mapping[str, Any]:
    found = _found(plan, text)
    worst = max(found, key=lambda one: one.severity, default=None)
    return {
        "id": name,
        "action": SUGGESTED[int(worst.severity) if worst is not None else 0],
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
        "spans": [{"start": start, "end": end} for start, end in merged((one.start, one.end) for one in found)],
        "remedy": worst.remedy if worst is not None else "",
    }


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order and apart: what overlaps or touches is one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _underlined(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text as a terminal shows it, without what would drive one."""
    shown: list[str] = []
    at = 0
    for start, end in spans:
        shown += (_plain(text[at:start]), click.style(_plain(text[start:end]), underline=True, fg="red"))
        at = end
    return "".join((*shown, _plain(text[at:])))


def _marked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text as a file or a pipe has it: under each line with a span another one with its marks."""
    shown: list[str] = []
    at = 0
    waiting = iter((*spans, (len(text) + 1, len(text) + 1)))
    start, end = next(waiting)
    for line in text.split("\n"):
        shown.append(_plain(line))
        last = at + len(line)
        marks = ["\t" if sign == "\t" else " " for sign in line]
        while start < last:
            for place in range(max(start, at), min(end, last)):
                marks[place - at] = "^"
            if end > last:
                break
            start, end = next(waiting)
        if "^" in marks:
            shown.append("".join(marks).rstrip())
        at = last + 1
    return "\n".join(shown)


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
