"""The picture of a run: six claims, a bar per target but the mock, and a line where Conclave's limit stands.

The same run draws the same file.
"""

from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.gateway.claims import CLAIMS, Bound, Claim
from benchmarks.gateway.results import Results
from benchmarks.gateway.table import shown
from benchmarks.gateway.targets import CONCLAVE, DIRECT, REFERENCE

SHOWN: Final = (
    "plain.c1.added_p50_ms",
    "plain.c1.cpu_ms",
    "plain.c16.per_s",
    "stream.c1.cpu_ms",
    "paced.ttft_p50_ms",
    "memory.peak_mb",
)
COLOURS: Final = {CONCLAVE: "#3b5bdb", REFERENCE: "#868e96"}
OTHERS: Final = "#ced4da"


def draw(results: Results, file: Path) -> None:
    """Write the chart as SVG."""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    claims = {claim.metric: claim for claim in CLAIMS}
    axes = figure.subplots(2, 3)
    for panel, metric in zip(axes.flat, SHOWN, strict=True):
        _panel(panel, claims[metric], results)
    place = results.place
    figure.suptitle(
        f"Gateway benchmark, {place.date}, commit {place.commit}, {place.cores} cores; dashed: Conclave's limit",
        fontsize=10,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "gateway-benchmark"}):
        figure.savefig(file, format="svg", metadata={"Date": None})


def _panel(panel: Axes, claim: Claim, results: Results) -> None:
    medians = {target: results.median(target, claim.metric) for target in results.targets if target != DIRECT}
    bars = {target: value for target, value in medians.items() if value is not None}
    names, values = list(bars), list(bars.values())
    drawn = panel.barh(names, values, color=[COLOURS.get(name, OTHERS) for name in names])
    panel.bar_label(drawn, labels=[shown(value) for value in values], padding=3, fontsize=8)
    panel.invert_yaxis()
    panel.margins(x=0.2)
    panel.set_title(f"{claim.label} [{claim.unit}]", fontsize=8)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    limit = _limit(claim, results)
    if limit is not None:
        panel.axvline(limit, color="#e03131", linestyle="--", linewidth=1)


def _limit(claim: Claim, results: Results) -> float | None:
    """Where the limit stands on the axis: a multiple of F's median, or the number itself."""
    its = results.median(REFERENCE, claim.metric)
    if claim.bound in {Bound.AT_MOST_F, Bound.AT_LEAST_F}:
        return None if its is None else its * claim.limit
    return claim.limit if claim.bound is Bound.AT_MOST else None
