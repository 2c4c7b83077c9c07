"""Where fenced blocks and logical lines begin and end."""

import pytest

from conclave.safety.output.excerpts import Fence, closes, goes_on, opened
from conclave.safety.output.triggers import Finder, Folded, Triggers


@pytest.mark.parametrize(
    ("line", "fence"),
    [
        ("```", Fence("`", 3)),
        ("```Python title=x", Fence("`", 3, "python")),
        ("  > - ~~~~ {.c++}", Fence("~", 4, "c++")),
        ("12. ```sh", Fence("`", 3, "sh")),
        ("        ```", Fence("`", 3)),
        ("``` a`b", None),
        ("text ```", None),
        ("``", None),
        ("```" + "x" * 600, None),
    ],
)
def test_a_fence_may_be_indented_quoted_and_listed(line: str, fence: Fence | None) -> None:
    assert opened(line) == fence


@pytest.mark.parametrize(
    ("line", "closed"),
    [
        ("```", True),
        ("  ````  ", True),
        ("> ```", True),
        ("```py", False),
        ("``", False),
        ("~~~", False),
        ("x```", False),
    ],
)
def test_a_block_ends_with_its_own_fence_alone(line: str, closed: bool) -> None:
    assert closes(line, Fence("`", 3)) is closed


@pytest.mark.parametrize(
    ("line", "code", "goes"),
    [
        ("pip install \\", True, True),
        ("a \\\\", True, False),
        ("Install-Package `", True, True),
        ("use `this`", False, False),
        ("curl x |", True, True),
        ("| a table |", False, False),
        ("<a href=", False, True),
        ("<a>b</a>", False, False),
        ("a < b", True, False),
        ("see [the", False, True),
        ("[a](http://", False, True),
        ("[label]:", False, True),
        ("[a](b) ok", False, False),
        ("x[0", True, False),
        ("   ", False, False),
    ],
)
def test_a_line_goes_on_where_something_is_open(line: str, code: bool, goes: bool) -> None:
    assert goes_on(line, code=code) is goes


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("x PIP install", 2),
        ("\uff50\uff49\uff50 install", 0),
        ("pi\u200bp in\u00adstall", 0),
        ("\U0001f600\u4f60pip install", 2),
    ],
)
def test_a_trigger_is_found_as_it_reads_and_where_it_is_written(text: str, place: int) -> None:
    folded = Folded()
    for at, character in enumerate(text):
        folded.add(character, at)
    assert Finder(Triggers.of(["pip install"])).next(folded, 0, len(text)) == place


@pytest.mark.parametrize("literal", ["Upper", "\u00e9", "x" * 65])
def test_a_trigger_that_no_folded_text_holds_is_refused(literal: str) -> None:
    with pytest.raises(ValueError, match="a trigger is"):
        Triggers.of([literal])
