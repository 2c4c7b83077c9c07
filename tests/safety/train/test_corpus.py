"""Templates: they parse, they fill without a slot left over, and one seed gives one corpus."""

import re
from random import Random

import pytest

from conclave.safety.train.corpus import TEMPLATES, fill, filled, fold_of, read_templates

NAMES = sorted(path.stem for path in TEMPLATES.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_template_fills_and_names_only_slots_that_exist(name: str) -> None:
    file = read_templates(name)
    draw = Random(1)
    lists = [
        *file.templates,
        *file.hard,
        *file.roleplay,
        *(value for values in file.slots.values() for value in values),
    ]
    for template in lists:
        text = fill(template, file.slots, draw)
        for left in re.findall(r"<([a-z_]+)>", text):
            assert left not in file.slots
            assert "_" not in left, f"{left} in {template!r} is a slot that is not there"


def test_the_same_seed_gives_the_same_texts() -> None:
    file = read_templates("override")
    one, two = (filled(file.templates, file.slots, 300, Random(5)) for _ in range(2))
    assert one == two
    assert len(set(one)) == len(one) == 300
    assert one != filled(file.templates, file.slots, 300, Random(6))


def test_braces_that_are_text_are_written_otherwise() -> None:
    assert fill('⟦"a": <b>⟧ {x|x}', {"b": ["{1|1}"]}, Random(1)) == '{"a": 1} x'


def test_a_template_without_alternatives_is_used_up_and_not_repeated() -> None:
    assert filled(["only this"], {}, 10, Random(1)) == ["only this"]
    assert filled([], {}, 10, Random(1)) == []


def test_a_fold_depends_on_the_name_alone() -> None:
    assert fold_of("advbench", 4) == fold_of("advbench", 4)
    assert {fold_of(str(n), 4) for n in range(50)} == {0, 1, 2, 3}
