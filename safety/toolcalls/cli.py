"""`conclave safety authorise|pin`: what the gate says of proposed tool calls, and what tools are pinned by.

It knows no policy: the rules are those that hold without one. Human words go to stderr.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final

import click

MOST_CHARS: Final = 8_000_000  # of the texts of one row
MOST_MESSAGES: Final = 100_000


@click.command()
@click.option("--jsonl", "file", required=True, metavar="FILE", help="A .jsonl or .jsonl.gz file, or - for stdin.")
def authorise(file: str) -> None:
    """Judge the proposed tool call of each row of FILE: one JSON line a row, on stdout.

    A row has `messages` and `tools` as a request has them, and `call`: its name and its arguments, as an object or as
    JSON text; `origins` may say which texts are data, by place. `decision` is `allow`, `confirm` or `block`. A row
    that cannot be read is named on stderr with its line, the others are judged, and the exit status is 1 at the end.
    """
    from conclave.safety.rows import judge_rows  # noqa: PLC0415  the group is mounted by the main command

    sys.exit(1 if judge_rows(file, judged) else 0)


@click.command()
@click.option("--jsonl", "file", required=True, metavar="FILE", help="Rows that are tools, or have them in `tools`.")
def pin(file: str) -> None:
    """Write the SHA-256 of every tool of FILE as the policy's `tools.pins` has it: one line of YAML a tool."""
    from conclave.safety.lines import lines_of  # noqa: PLC0415  the group is mounted by the main command
    from conclave.safety.rows import read_row  # noqa: PLC0415
    from conclave.safety.toolcalls.api import tools_of  # noqa: PLC0415
    from conclave.safety.toolcalls.pins import digest_of  # noqa: PLC0415

    bad = 0
    with lines_of(file) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = read_row(line)
                tools = tools_of(row if "tools" in row or "functions" in row else {"tools": [row]})
                if not tools:
                    raise ValueError("no tool with a name; a row is a tool, or has a list `tools`")
            except ValueError as error:
                bad += 1
                click.echo(f"{file}: line {number}: {error}", err=True)
                continue
            for tool in tools:
                click.echo(f"{tool.name}: {digest_of(tool)}")
    sys.exit(1 if bad else 0)


def judged(name: object, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is written for a row; raises ValueError for one that cannot be judged."""
    from conclave.safety.api import Action  # noqa: PLC0415  the commands' imports are everyone's
    from conclave.safety.boundary.caps import BoundaryError, Caps  # noqa: PLC0415
    from conclave.safety.boundary.segments import declared, read_messages  # noqa: PLC0415
    from conclave.safety.toolcalls.api import ToolRules, tools_of  # noqa: PLC0415
    from conclave.safety.toolcalls.authorise import Authoriser  # noqa: PLC0415
    from conclave.safety.toolcalls.history import past_calls  # noqa: PLC0415

    if not isinstance(row.get("tools", []), list):
        raise ValueError("'tools' must be a list, as in a request")  # noqa: TRY004  a wrong row, not a wrong call
    call, messages = _call_of(row.get("call")), row.get("messages")
    try:
        reading = read_messages(messages, Caps(messages=MOST_MESSAGES, text_chars=MOST_CHARS, nesting=64))
        segments = declared(reading.segments, row.get("origins"), field="origins")
    except BoundaryError as error:
        raise ValueError(f"{error.place}: {error.message}" if error.place else error.message) from error
    ruling = Authoriser(ToolRules(), segments, tools_of(row), past_calls(messages))(call)
    decision = {Action.CONFIRM: "confirm", Action.BLOCK: "block"}.get(ruling.action, "allow")
    return {
        "id": name,
        "decision": decision,
        "reasons": list(dict.fromkeys(one.kind for one in ruling.findings)),
        "findings": [
            {
                "check": one.check,
                "kind": one.kind,
                "severity": one.severity.name.lower(),
                "confidence": one.confidence,
                "remedy": one.remedy,
            }
            for one in ruling.findings
        ],
        "spans": [{"place": one.place, "start": one.start, "end": one.end} for one in ruling.findings if one.place],
    }


def _call_of(said: object) -> Any:
    import msgspec  # noqa: PLC0415  the commands' imports are everyone's

    from conclave.safety.output.api import ToolCall  # noqa: PLC0415

    inner = (said.get("function") or said.get("custom") or said) if isinstance(said, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise ValueError("'call' must be an object with a name and arguments")  # noqa: TRY004  a wrong row
    arguments = inner.get("arguments", inner.get("input", {}))
    if not isinstance(arguments, str):
        try:
            arguments = msgspec.json.encode(arguments).decode()
        except (UnicodeEncodeError, RecursionError) as error:
            raise ValueError("the call's arguments cannot be written as JSON") from error
    return ToolCall(inner["name"], arguments)
