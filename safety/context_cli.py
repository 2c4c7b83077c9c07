"""`conclave safety context`: what the context guard says of passages in a file, a question a row.

The command line that mounts this group puts loaders of the tokenizer and the encoder into the context
(`ctx.meta[IDS]`, `ctx.meta[ENCODE]`): whose they are is not for this room to know. Human words go to stderr.
"""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from conclave.safety.context.conflict import Memory
    from conclave.safety.context.guard import ContextGuard, Guarded
    from conclave.safety.context.provenance import Evidence, Trust

IDS: Final = "safety: load the tokenizer"
ENCODE: Final = "safety: load the encoder"
MODES: Final = ("off", "flag", "isolate", "strict")
TRUSTS: Final = ("untrusted", "normal", "trusted")


@click.command()
@click.option("--jsonl", "file", required=True, metavar="FILE", help="A .jsonl or .jsonl.gz file, or - for stdin.")
@click.option("--mode", default="isolate", show_default=True, type=click.Choice(MODES), help="What is kept away.")
@click.pass_context
def context(ctx: click.Context, file: str, mode: str) -> None:
    """Judge the passages of each row of FILE: one JSON line a row, on stdout.

    A row is {"id", "question", "passages": [{"text", "source", "batch", "trust"}]}, all but the texts if known; `trust`
    is untrusted, normal or trusted. With "memory": {"answer", "agreement"}, what the expert says without passages, its
    conflict with them is looked for, too. A bad row is reported on stderr with its line number; the others are judged,
    and the exit status is 1 at the end.
    """
    from conclave.safety.rows import judge_rows, text_of  # noqa: PLC0415  commands load what they need

    guard = _guard(ctx, mode)

    def judge(name: object, row: Mapping[str, Any]) -> object:
        found = guard.look(text_of(row, "question"), passages_of(row), memory=memory_of(row))
        return {"id": name, **as_row(found)}

    sys.exit(1 if judge_rows(file, judge) else 0)


def passages_of(row: Mapping[str, Any]) -> "list[Evidence]":
    """The row's passages; raises ValueError."""
    from conclave.safety.context.provenance import Evidence  # noqa: PLC0415  commands load what they need

    passages = row.get("passages")
    if not isinstance(passages, list):
        raise ValueError('\'passages\' is no list of {"text", "source", "batch"}')  # noqa: TRY004  a wrong row, not a wrong call
    found = []
    for number, one in enumerate(passages):
        if not isinstance(one, dict) or not isinstance(one.get("text"), str):
            raise ValueError(f"'passages[{number}]' is no object with a string 'text'")  # noqa: TRY004  a wrong row, not a wrong call
        source, batch = one.get("source") or "", one.get("batch") or ""
        for name, value in (("source", source), ("batch", batch)):
            if not isinstance(value, str | int):
                raise ValueError(f"'passages[{number}].{name}' is no string")  # noqa: TRY004  a wrong row
        found.append(Evidence(one["text"], str(source), str(batch), _trust(one.get("trust"), number)))
    return found


def memory_of(row: Mapping[str, Any]) -> "Memory | None":
    """What the expert says without passages, if the row knows; raises ValueError."""
    from conclave.safety.context.conflict import Memory  # noqa: PLC0415  commands load what they need

    memory = row.get("memory")
    if memory is None:
        return None
    if not isinstance(memory, dict) or not isinstance(memory.get("answer"), str):
        raise ValueError("'memory' is no object with a string 'answer'")  # noqa: TRY004  a wrong row
    agreement = memory.get("agreement", 1.0)
    if not isinstance(agreement, int | float) or not 0 <= agreement <= 1:
        raise ValueError("'memory.agreement' is no number of 0 to 1")
    return Memory(memory["answer"], float(agreement))


def as_row(found: "Guarded") -> dict[str, object]:
    """What is written of a question's passages."""
    conflict = found.conflict
    return {
        "passages": [
            {
                "keep": one.keep,
                "reasons": one.reasons,
                "scores": {name: round(value, 6) for name, value in one.scores.items()},
            }
            for one in found.passages
        ],
        "conflict": {
            "kind": conflict.kind,
            "action": conflict.action,
            "reason": conflict.reason,
            "sides": [
                {"value": side.value, "share": round(side.share, 6), "passages": side.passages}
                for side in conflict.sides
            ],
        },
    }


def _trust(value: object, number: int) -> "Trust":
    from conclave.safety.context.provenance import Trust  # noqa: PLC0415  commands load what they need

    if value is None:
        return Trust.NORMAL
    if isinstance(value, str) and value in TRUSTS:
        return Trust(TRUSTS.index(value))
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(TRUSTS):
        return Trust(value)
    raise ValueError(f"'passages[{number}].trust' is none of {', '.join(TRUSTS)}")


def _guard(ctx: click.Context, mode: str) -> "ContextGuard":
    from conclave.safety.context.guard import ContextGuard, Mode  # noqa: PLC0415  commands load what they need
    from conclave.safety.detect.learned import Heads  # noqa: PLC0415  commands load what they need

    if IDS not in ctx.meta or ENCODE not in ctx.meta:
        raise click.UsageError("no encoder was handed in: use the command `conclave safety context`")
    try:
        heads = Heads.load(ctx.meta[IDS]())
        encode = ctx.meta[ENCODE]()
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(f"the guard cannot be used: {error}") from error

    def orders(text: str) -> float:
        return heads.scores(text)["embedded"]

    return ContextGuard(encode, Mode(mode), orders, heads.threshold("embedded"))
