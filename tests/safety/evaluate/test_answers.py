"""The cases for the rules for answers: read, judged, and good enough on every surface."""

from pathlib import Path

import msgspec
import pytest

from conclave.safety.evaluate.answers import cases_of, measure, score
from conclave.safety.evaluate.report import FLOORS
from conclave.safety.output.links import LinkCheck
from conclave.safety.output.shell import ShellCheck
from conclave.safety.scan import below

CASES = Path(__file__).parent.parent / "output" / "cases"


def test_the_cases_are_found_and_their_twins_are_not() -> None:
    floors = msgspec.json.decode(FLOORS.read_bytes(), type=dict[str, float])
    floors = {name: floor for name, floor in floors.items() if name.startswith("answers ")}
    assert floors
    assert below(measure([LinkCheck(), ShellCheck()], CASES), floors) == []


def test_every_surface_has_sixty_cases_at_least_and_nearly_half_are_honest() -> None:
    cases = cases_of(CASES)
    for surface in {case.surface for case in cases}:
        own = [case for case in cases if case.surface == surface]
        assert len(own) >= 60, surface
        assert sum(not case.kinds or case.told for case in own) >= 0.4 * len(own), surface


def test_what_is_missed_or_wrongly_found_is_counted(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(
        "# a comment\n\nlinks.ip - :: http://52.1.2.3/\nlinks.ip - :: nothing\nfine - :: http://52.1.2.3/\n"
        "told links.ip - :: Never open http://52.1.2.3/.\ntold links.ip - :: Open http://52.1.2.3/.\n"
    )
    found = score([LinkCheck()], cases_of(tmp_path))
    assert (found.cases, found.attacks, len(found.missed), len(found.false)) == (5, 2, 1, 2)
    assert (found.recall, found.precision) == (0.5, pytest.approx(1 / 3))


def test_a_line_that_is_no_case_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("fine - no colons\n")
    with pytest.raises(ValueError, match=r"x\.txt, line 1"):
        cases_of(tmp_path)


def test_a_folder_without_cases_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no cases"):
        measure([LinkCheck()], tmp_path)
