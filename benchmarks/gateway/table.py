"""The Markdown table of a run, and its place in docs/performance.md: between two markers; all else stays as it is."""

from pathlib import Path
from typing import Final

from benchmarks.gateway.claims import CLAIMS, Claim
from benchmarks.gateway.results import BUSY, LOOP, Results
from benchmarks.gateway.targets import CONCLAVE, DIRECT, REFERENCE

BEGIN: Final = "<!-- gateway-benchmark:begin -->"
END: Final = "<!-- gateway-benchmark:end -->"
NEW_PAGE: Final = f"# Performance\n\n## Gateway\n\n{BEGIN}\n{END}\n"
VERDICT: Final = {True: "pass", False: "falls short", None: ""}


def markdown(results: Results) -> str:
    """The run as a table: medians over the rounds, multiples of F in brackets, then the limit and the verdict."""
    targets = results.targets
    judged = CONCLAVE in targets
    head = ["", *targets, *(["lean target", "verdict"] if judged else [])]
    rows = [_row(claim, results, targets, judged=judged) for claim in CLAIMS if _measured(claim, results)]
    lines = [_line(head), _line(["---", *["---:"] * len(targets), *["---"] * (2 * judged)]), *map(_line, rows)]
    return "\n".join([*lines, "", _caption(results)])


def _measured(claim: Claim, results: Results) -> bool:
    return any(results.median(target, claim.metric) is not None for target in results.targets)


def _row(claim: Claim, results: Results, targets: list[str], *, judged: bool) -> list[str]:
    cells = [_cell(claim, results, target) for target in targets]
    verdict = [claim.target, VERDICT[claim.held(results)]] if judged else []
    return [f"{claim.label}, {claim.unit}", *cells, *verdict]


def _cell(claim: Claim, results: Results, target: str) -> str:
    value = results.median(target, claim.metric)
    if value is None:
        return "-"
    ratio = results.to_reference(target, claim.metric)
    return shown(value) if ratio is None or target == REFERENCE else f"{shown(value)} ({ratio:.2g}x)"


def shown(value: float) -> str:
    """A figure as a person reads it: three digits are enough."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004  from here on all digits stand


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _caption(results: Results) -> str:
    place = results.place
    rounds = max(len(values) for values in results.samples.values())
    errors = [
        f"{target} {metric.removesuffix('.errors')}: {sum(values):.0f}"
        for (target, metric), values in results.samples.items()
        if metric.endswith(".errors") and any(values)
    ]
    busy, loop = results.median(DIRECT, BUSY), results.median(DIRECT, LOOP)
    weather = "" if busy is None else f" Before each round others used {busy:.0f} % of the cores (median)."
    weather += "" if loop is None else f" A million additions in Python took {loop:.0f} ms."
    failed = f" **Failed requests: {'; '.join(errors)}.**" if errors else ""
    return (
        f"Medians of {rounds} interleaved rounds; in brackets the median of the per-round ratios to F. "
        f"Measured {place.date}, commit {place.commit}, {place.cores} cores ({place.machine}), "
        f"{place.versions}; one process each, loopback, wrk.{weather}{failed}"
    )


def put_into(page: Path, table: str) -> None:
    """Replace what stands between the markers. An absent page is begun; one without markers raises ValueError."""
    text = page.read_text() if page.exists() else NEW_PAGE
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} ... {END}: put the two lines where the table shall stand")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
