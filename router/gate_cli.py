"""`conclave router gate`: whether looking up would pay, for questions in a file. Human words go to stderr."""

import math
import sys
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from conclave.router.gates.retrieval import Gated, Known

MODES: Final = ("auto", "always", "never", "required")
MOST_SAMPLES: Final = 64
NUMBERS: Final = ("best", "margin", "coverage", "expert_score", "agreement", "confidence", "suspicion")


@click.command()
@click.option("--jsonl", "file", required=True, metavar="FILE", help="A .jsonl or .jsonl.gz file, or - for stdin.")
@click.option("--field", default="question", show_default=True, help="The key that holds the question.")
@click.option("--mode", default="auto", show_default=True, type=click.Choice(MODES), help="Whether the gate decides.")
@click.option(
    "--worth", default=5e-5, show_default=True, type=click.FloatRange(min=0), help="A token, in right answers."
)
@click.option("--context-tokens", default=1e3, show_default=True, type=click.FloatRange(min=0), help="Of passages.")
@click.option("--search-tokens", default=0.0, show_default=True, type=click.FloatRange(min=0), help="A search's cost.")
@click.option(
    "--gate-tokens", default=0.0, show_default=True, type=click.FloatRange(min=0), help="The gate's own cost."
)
def gate(  # noqa: PLR0913, PLR0917  one parameter an option
    file: str, field: str, mode: str, worth: float, context_tokens: float, search_tokens: float, gate_tokens: float
) -> None:
    """Say for each row of FILE whether to look up: one JSON line a row, on stdout; what it saves, on stderr.

    A row is {"id", "question"} with what is known: "best", "margin", "coverage" (what a search found), "expert_score",
    "agreement" of "samples" (2), "confidence" (of the expert), "suspicion" (of the passages), "rarest" (how often its
    rarest word stands in the corpus). Without any of it the gate has only the text, which says little. A bad row is
    reported on stderr with its line number; the others are decided, and the exit status is 1 at the end.
    """
    import msgspec  # noqa: PLC0415  commands load what they need
    from tqdm import tqdm  # noqa: PLC0415  commands load what they need

    from conclave.router.cli import id_of, lines_of, read_row, text_of  # noqa: PLC0415  commands load what they need
    from conclave.router.encoder import StaticEncoder  # noqa: PLC0415  commands load what they need
    from conclave.router.gates.retrieval import Costs, Mode, RetrievalGate, saving  # noqa: PLC0415  commands load what they need

    if not all(map(math.isfinite, (worth, context_tokens, search_tokens, gate_tokens))):
        raise click.UsageError("costs and worth are finite numbers")
    try:
        made = RetrievalGate.load(StaticEncoder.load(), worth=worth)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    made.costs = costs = Costs(search_tokens, context_tokens, gate_tokens)
    out, bad, asked, retrieved = sys.stdout.buffer, 0, 0, 0
    with lines_of(file) as lines:
        for number, line in enumerate(tqdm(lines, unit=" rows", disable=None, file=sys.stderr), start=1):
            if not line.strip():
                continue
            try:
                row = read_row(line)
                name = id_of(row, number)
                found = made.decide(text_of(row, field), known_of(row), mode=Mode(mode))
            except ValueError as error:
                bad += 1
                click.echo(f"{file}: line {number}: {error}", err=True)
                continue
            asked, retrieved = asked + 1, retrieved + found.retrieve
            out.write(msgspec.json.encode(as_row(name, found)) + b"\n")
    click.echo(
        f"{retrieved} of {asked} are looked up; "
        f"{saving(asked=asked, retrieved=retrieved, costs=costs):.0f} tokens saved against always",
        err=True,
    )
    if bad:
        click.echo(f"{bad} bad row{'s' if bad > 1 else ''} skipped", err=True)
        sys.exit(1)


def known_of(row: dict[str, object]) -> "Known":
    """What a row knows of its question; raises ValueError."""
    from conclave.router.gates.retrieval import Known  # noqa: PLC0415  commands load what they need

    given: dict[str, Any] = {}
    for name in NUMBERS:
        value = row.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{name!r} is no number")  # noqa: TRY004  a wrong row, not a wrong call
        given[name] = float(value) if abs(value) < 1e9 else math.inf  # noqa: PLR2004  no share: said as such
    samples = row.get("samples", 2)
    if not isinstance(samples, int) or isinstance(samples, bool) or not 1 <= samples <= MOST_SAMPLES:
        raise ValueError(f"'samples' is no count of 1 to {MOST_SAMPLES}")
    rarest = row.get("rarest")
    if rarest is not None and (not isinstance(rarest, int) or isinstance(rarest, bool) or rarest < 0):
        raise ValueError("'rarest' is no count")
    changing = row.get("time_sensitive")
    if changing is not None and not isinstance(changing, bool):
        raise ValueError("'time_sensitive' is neither true nor false")
    return Known(**given, samples=samples, rarest=rarest, time_sensitive=changing)


def as_row(name: object, found: "Gated") -> dict[str, object]:
    """What is written of a question."""
    return {
        "id": name,
        "decision": "retrieve" if found.retrieve else "answer",
        "required": found.required,
        "probability": round(found.probability, 6),
        "p_wrong": round(found.p_wrong, 6),
        "p_fix": round(found.p_fix, 6),
        "p_harm": round(found.p_harm, 6),
        "value": round(found.value, 6),
        "threshold": round(found.threshold, 6),
        "reason": found.reason,
        "tokens_saved": found.saving,
    }
