"""`conclave safety authorise|pin`: what the gate says of proposed tool calls, and what tools are pinned by.

The rules are those that hold without a policy, or those of a configuration: the command line that mounts the group puts
what reads one into the context (`ctx.meta[GATES]`). Human words go to stderr.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import click

if TYPE_CHECKING:
    from conclave.safety.output.api import Ruling, ToolCall
    from conclave.safety.toolcalls.api import Tool, ToolRules
    from conclave.safety.toolcalls.authorise import Authoriser

GATES: Final = "safety: read a policy's rules for tool calls"
MOST_CHARS: Final = 8_000_000  # of the texts of one row
MOST_MESSAGES: Final = 100_000


class Gate(Protocol):
    """What a policy says of tool calls. `works` is false where it says that nobody looks."""

    @property
    def rules(self) -> "ToolRules": ...
    @property
    def pins(self) -> Mapping[str, str]: ...
    @property
    def works(self) -> bool: ...


ReadGate: TypeAlias = Callable[[Path, str | None], Gate]  # a configuration, and whose rules: None for everyone's


@click.command()
@click.option("--jsonl", "file", required=True, metavar="FILE", help="A .jsonl or .jsonl.gz file, or - for stdin.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Judge by the policy in this YAML file; else by the rules that hold without one.",
)
@click.option("--tenant", metavar="NAME", help="With --config: by what the policy says for this tenant.")
@click.pass_context
def authorise(context: click.Context, file: str, config: Path | None, tenant: str | None) -> None:
    """Judge the proposed tool call of each row of FILE: one JSON line a row, on stdout.

    A row has `messages` and `tools` as a request has them, and `call`: its name and its arguments, as an object or as
    JSON text; `origins` may say which texts are data, by place. `decision` is `allow`, `confirm` or `block` (`action`
    is the same), `remedy` that of the severest finding. A row that cannot be read is named on stderr with its line, the
    others are judged, and the exit status is 1 at the end.
    """
    from conclave.safety.rows import judge_rows  # noqa: PLC0415  the group is mounted by the main command

    if config is None:
        if tenant is not None:
            raise click.UsageError("--tenant needs the policy that names it: --config FILE")
        sys.exit(1 if judge_rows(file, judged) else 0)
    read: ReadGate | None = context.meta.get(GATES)
    if read is None:
        raise click.UsageError("--config needs a command line that knows policies: use `conclave safety authorise`")
    sys.exit(1 if judge_rows(file, partial(judged, gate=read(config, tenant))) else 0)


@click.command()
@click.option("--jsonl", "file", required=True, metavar="FILE", help="Rows that are tools, or have them in `tools`.")
def pin(file: str) -> None:
    """Write the SHA-256 of every tool of FILE as the policy's `tools.pins` has it: one line of YAML a tool."""
    from conclave.safety.rows import each_row  # noqa: PLC0415  the group is mounted by the main command
    from conclave.safety.toolcalls.api import tools_of  # noqa: PLC0415
    from conclave.safety.toolcalls.pins import digest_of  # noqa: PLC0415

    def take(_: int, row: Mapping[str, Any]) -> None:
        tools = tools_of(row if "tools" in row or "functions" in row else {"tools": [row]})
        if not tools:
            raise ValueError("no tool with a name; a row is a tool, or has a list `tools`")
        for tool in tools:
            click.echo(f"{tool.name}: {digest_of(tool)}")

    sys.exit(1 if each_row(file, take) else 0)


def judged(name: object, row: Mapping[str, Any], gate: Gate | None = None) -> Mapping[str, Any]:
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
    rules, tools = ToolRules() if gate is None else gate.rules, tools_of(row)
    ruling = _ruled(gate, Authoriser(rules, segments, tools, past_calls(messages)), call, tools)
    decision = {Action.CONFIRM: "confirm", Action.BLOCK: "block"}.get(ruling.action, "allow")
    worst = max(ruling.findings, key=lambda one: one.severity, default=None)
    return {
        "id": name,
        "decision": decision,
        "action": decision,
        **({"would": ruling.would.name.lower()} if ruling.would > ruling.action else {}),
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
        "remedy": worst.remedy if worst is not None else "",
    }


def _ruled(gate: Gate | None, judge: "Authoriser", call: "ToolCall", tools: "Sequence[Tool]") -> "Ruling":
    """What follows for a call; a tool that is not the one that was pinned is refused, whatever is called."""
    from conclave.safety.api import Action  # noqa: PLC0415  the commands' imports are everyone's
    from conclave.safety.output.api import Ruling  # noqa: PLC0415
    from conclave.safety.toolcalls.pins import Pins  # noqa: PLC0415

    if gate is None:
        return judge(call)
    if not gate.works:
        return Ruling(Action.ALLOW)
    ruling, changed = judge(call), tuple(Pins().changed(tools, gate.pins, tenant="", key_id=None))
    if not changed:
        return ruling
    action, found = Action.ALLOW if gate.rules.observe else Action.BLOCK, (*changed, *ruling.findings)
    return Ruling(action, found, () if gate.rules.observe else found, Action.BLOCK)


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
