"""What becomes of the measurements: ratios, verdicts, the CSV, and the table in a page that others write too."""

from pathlib import Path

import pytest

from benchmarks.gateway.claims import CLAIMS
from benchmarks.gateway.results import Place, Results, read_csv, write_csv
from benchmarks.gateway.table import BEGIN, END, markdown, put_into

PLACE = Place("2026-01-02 03:04 UTC", "abc1234", "2", "a machine", "python 3.11")
CPU = "plain.c1.cpu_ms"


def results(**samples: list[float]) -> Results:
    """The samples of one metric by target."""
    made = Results(PLACE)
    for target, values in samples.items():
        for value in values:
            made.add(target, CPU, value)
    return made


def test_a_ratio_is_taken_within_each_round() -> None:
    """The machine was ten times slower in the last round, for both: the ratio does not change."""
    assert results(F=[1, 1, 10], conclave=[2, 2, 20]).to_reference("conclave", CPU) == 2


def test_the_time_of_the_mock_itself_is_subtracted_round_by_round() -> None:
    made = results(direct=[1, 2], F=[4, 6])
    made.subtract_direct(CPU, "added")
    assert made.samples["F", "added"] == [3, 4]
    assert ("direct", "added") not in made.samples


@pytest.mark.parametrize(
    ("conclave", "verdict"),
    [pytest.param(2.0, "pass", id="at the limit"), pytest.param(2.1, "falls short", id="above it")],
)
def test_the_verdict_compares_with_f(conclave: float, verdict: str) -> None:
    (row,) = [line for line in markdown(results(F=[1], conclave=[conclave])).splitlines() if "concurrency 1" in line]
    assert row.endswith(f"| <= 2 F | {verdict} |")


def test_a_time_below_the_mock_s_own_gets_no_verdict() -> None:
    """An added time below zero is noise, and noise must not pass."""
    made = results(F=[1], conclave=[-0.1])
    (claim,) = [claim for claim in CLAIMS if claim.metric == CPU]
    assert claim.held(made) is None


def test_without_conclave_nothing_is_judged() -> None:
    assert "verdict" not in markdown(results(F=[1]))


def test_failed_requests_are_said() -> None:
    made = results(F=[1])
    made.add("F", "plain.c1.errors", 3)
    assert "**Failed requests: F plain.c1: 3.**" in markdown(made)


def test_the_csv_gives_back_what_it_was_given(tmp_path: Path) -> None:
    made = results(F=[1.5, 2.5], conclave=[3, 4])
    write_csv(made, tmp_path / "out.csv")
    assert read_csv(tmp_path / "out.csv") == made


def test_the_text_around_the_table_stays(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# Ours\n\nbefore\n{BEGIN}\nold\n{END}\nafter\n")
    put_into(page, "| new |")
    put_into(page, "| newer |")
    assert page.read_text() == f"# Ours\n\nbefore\n{BEGIN}\n\n| newer |\n\n{END}\nafter\n"


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("# Ours\n")
    with pytest.raises(ValueError, match="gateway-benchmark:begin"):
        put_into(page, "| new |")
    assert page.read_text() == "# Ours\n"


def test_a_page_that_is_absent_is_begun(tmp_path: Path) -> None:
    put_into(tmp_path / "docs" / "performance.md", "| new |")
    assert f"{BEGIN}\n\n| new |\n\n{END}" in (tmp_path / "docs" / "performance.md").read_text()
