"""A report as text for a terminal."""

from collections.abc import Iterator, Mapping

from conclave.router.evaluate.report import Report, Share


def lay_out(report: Report) -> str:
    """All measures, one a line."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield f"category_dev: {report.rows} rows, model {report.model_digest[:12]}"
    yield f"accuracy              {report.accuracy:.3f}"
    yield f"  with typos          {report.accuracy_with_typos:.3f}"
    yield f"  in lower case       {report.accuracy_in_lower_case:.3f}"
    yield f"  in capitals         {report.accuracy_in_capitals:.3f}"
    yield f"  in wrappers         {report.accuracy_in_wrappers:.3f}"
    yield f"  when sure           {report.accuracy_when_sure:.3f} at {report.coverage_when_sure:.3f} coverage"
    yield f"calibration error     {report.calibration_error:.3f}"
    yield f"credible set          holds {report.set_coverage:.3f}, with {report.set_size:.2f} categories"
    speed = report.speed
    yield f"one prompt, 440 bytes {speed.p50_ms:.3f} ms p50, {speed.p99_ms:.3f} ms p99"
    yield f"batch                 {speed.rows_per_s:,.0f} rows/s"
    yield from _shares("by source", report.accuracy_by_source)
    yield from _shares("by category", report.accuracy_by_category)
    yield from _shares("credible set by source", report.set_coverage_by_source)
    yield "confused most often"
    for confusion in report.confusions:
        yield f"  {confusion.category:<20} as {confusion.taken_for:<20} {confusion.rows:>5}"


def _shares(title: str, shares: Mapping[str, Share]) -> Iterator[str]:
    yield title
    for name, share in shares.items():
        yield f"  {name:<20} {share.accuracy:.3f} of {share.rows}"
