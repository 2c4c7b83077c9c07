"""A benchmark as text for a terminal, and as a chart for each pool."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from conclave.router.evaluate.benchmark import Benchmark, Result

BASE: Final = "best single"
WIDTH, LEFT, RIGHT, ROW, TOP = 760, 190, 110, 24, 58  # of a chart, in pixels


def lay_out(found: Benchmark) -> str:
    """All results, one way a line."""
    return "\n".join(line for result in found.results for line in _lines(result))


def _lines(result: Result) -> Iterator[str]:
    sure = "" if result.category_accuracy is None else f", category found {result.category_accuracy:.3f}"
    yield f"{result.pool}, {result.split}: {result.rows} rows, best single {result.best}{sure} ({result.seconds} s)"
    yield f"  {'way':<24} {'accuracy':>8}   {'gain over best single':<24} {'cost':>6}"
    for name, way in result.ways.items():
        cost = "" if way.cost is None else f"{way.cost:6.2f}"
        gain = f"{100 * way.gain.value:+5.1f} ({100 * way.gain.low:+.1f} to {100 * way.gain.high:+.1f})"
        yield f"  {name:<24} {100 * way.accuracy.value:8.1f}   {gain:<24} {cost:>6}"
    if result.curves is not None:
        area = result.curves.apgr
        yield f"  APGR {area.value:.3f} ({area.low:.3f} to {area.high:.3f})"
        yield f"  CPT(50) {result.curves.cpt_50:.3f}, CPT(80) {result.curves.cpt_80:.3f}"
    yield f"  {result.advice}"
    yield ""


def draw(result: Result, folder: Path) -> Path:
    """Write the result's chart, `router-POOL-SPLIT.svg`: a bar a way from the worst, with its 95 % interval."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"router-{result.pool.replace('_', '-')}-{result.split}.svg"
    file.write_text(chart(result), encoding="utf-8")
    return file


def chart(result: Result) -> str:
    """The SVG; the same result gives the same text."""
    ways = list(result.ways.items())
    lowest = min(way.accuracy.low for _, way in ways)
    highest = max(way.accuracy.high for _, way in ways)
    start = max(0.0, lowest - 0.15 * (highest - lowest or 1.0))
    scale = (WIDTH - LEFT - RIGHT) / (highest - start or 1.0)
    height = TOP + ROW * len(ways) + 16

    def at(value: float) -> float:
        return round(LEFT + (value - start) * scale, 1)

    base = at(result.ways[BASE].accuracy.value)
    size = f'width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect {size} fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="14">{_safe(result.pool)}, {result.split}, {result.rows} questions</text>',
        f'<text x="12" y="40" fill="#495057">{_safe(result.advice)}</text>',
    ]
    for number, (name, way) in enumerate(ways):
        y = TOP + ROW * number
        colour = "#3b5bdb" if name.startswith("blend") else "#868e96" if name == BASE else "#ced4da"
        middle = y + ROW / 2 - 3
        low, high = at(way.accuracy.low), at(way.accuracy.high)
        long = round(at(way.accuracy.value) - LEFT, 1)
        cost = "" if way.cost is None else f", cost {way.cost:.2f}"
        parts += [
            f'<text x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">{_safe(name)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{long}" height="{ROW - 6}" fill="{colour}"/>',
            f'<line x1="{low}" y1="{middle}" x2="{high}" y2="{middle}" stroke="#212529"/>',
            f'<text x="{high + 6}" y="{middle + 4}">{100 * way.accuracy.value:.1f}{cost}</text>',
        ]
    parts += [
        f'<line x1="{base}" y1="{TOP - 6}" x2="{base}" y2="{height - 14}" stroke="#e03131" stroke-dasharray="4 3"/>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _safe(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
