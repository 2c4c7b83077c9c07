"""Request tags: what is one, what is refused with which words, and that no expert sees them."""

import json
import re
from typing import Any

import pytest

from conclave.gateway.access.tags import MOST, of_header, tagged, tags_of
from conclave.gateway.api.chat import parse
from conclave.gateway.errors import InvalidRequest


def request(header: str | None = None, **more: Any) -> Any:
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], **more}
    return tagged(parse, header)(json.dumps(body).encode())


def tags(header: str | None = None, **more: Any) -> dict[str, str]:
    return dict(tags_of(request(header, **more)))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("team=search, env=prod", {"team": "search", "env": "prod"}),
        ("team=search", {"team": "search"}),
        (" team = search ,, ", {"team": "search"}),
        ("url=a=b", {"url": "a=b"}),
        ("note=two words", {"note": "two words"}),
        ("", {}),
    ],
)
def test_the_header_is_a_list_of_names_and_values(header: str, found: dict[str, str]) -> None:
    assert of_header(header) == found


def test_tags_of_header_and_body_stand_together_and_the_bodys_win() -> None:
    """A client's header is set once for all calls, the body for this one."""
    body = {"conclave": {"tags": {"env": "test", "job": "7"}}}
    assert tags("team=search, env=prod", **body) == {"team": "search", "env": "test", "job": "7"}


def test_without_tags_the_request_is_what_it_was() -> None:
    assert tags() == {}
    assert request().body.keys() == {"model", "messages"}
    assert request(conclave={"tags": None}).body["conclave"] == {"tags": None}


def test_metadata_goes_on_to_the_expert_untouched() -> None:
    metadata = {"team": "x" * 500, "Any Thing": "goes"}
    assert request("team=search", metadata=metadata).body["metadata"] == metadata


@pytest.mark.parametrize(
    "header",
    [
        "team",
        "=search",
        "Team=search",
        "1=x",
        "team=",
        "team=é",
        "team=a\tb",
        "a=1,a=2",
        "team=" + "x" * 65,
        "t" * 65 + "=x",
        ",".join(f"t{n}=x" for n in range(MOST + 1)),
    ],
    ids=["no value", "no name", "capital", "digit", "empty", "accent", "tab", "twice", "long", "long name", "many"],
)
def test_what_is_no_tag_in_the_header_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        request(header)
    assert (refused.value.status, refused.value.param) == (400, "x-conclave-tags")


@pytest.mark.parametrize(
    "wrong",
    [
        "team=search",
        ["team"],
        3,
        {"team": 3},
        {"team": None},
        {"team": ""},
        {"team": "x" * 65},
        {"team": " x"},
        {"": "x"},
        {"Team": "x"},
        {"a\nb": "x"},
        {"team": "a\nb"},
        {"team": ["x"]},
        {f"t{n}": "x" for n in range(MOST + 1)},
    ],
    ids=str,
)
def test_what_is_no_tag_in_the_body_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        request(conclave={"tags": wrong})
    assert refused.value.param == "conclave.tags"


@pytest.mark.parametrize(
    ("extension", "words"),
    [({"tag": {}}, "did you mean 'tags'?"), ({"tags": {}, "x" * 100: 1}, "known: tags"), ({"": 1}, "known: tags")],
    ids=["mistyped", "long", "empty"],
)
def test_a_key_of_ours_that_is_not_known_is_refused(extension: dict[str, Any], words: str) -> None:
    """Nobody would ever hear of a mistyped one: no expert is sent it."""
    with pytest.raises(InvalidRequest, match=re.escape(words)) as refused:
        request(conclave=extension)
    assert refused.value.param == f"conclave.{list(extension)[-1][:64]}"


def test_eight_tags_of_sixty_four_characters_are_fine_and_a_ninth_from_the_header_is_not() -> None:
    eight = {f"t{n}": "x" * 64 for n in range(MOST)}
    assert tags(conclave={"tags": eight}) == eight
    with pytest.raises(InvalidRequest, match="8 tags, not 9"):
        request("ninth=x", conclave={"tags": eight})


def test_a_body_that_is_wrong_itself_says_so_first() -> None:
    with pytest.raises(InvalidRequest) as refused:
        tagged(parse, "team")(b"{")
    assert refused.value.code == "invalid_json"


@pytest.mark.parametrize("name", [None, "x", "chat 7", "é" * 256], ids=["null", "short", "spaced", "longest"])
def test_a_conversation_may_have_a_name(name: str | None) -> None:
    assert request(conclave={"conversation": name}).body["conclave"] == {"conversation": name}


@pytest.mark.parametrize("name", ["", "x" * 257, 7, True, ["x"], {}], ids=str)
def test_what_is_no_name_of_a_conversation_is_refused(name: Any) -> None:
    with pytest.raises(InvalidRequest, match="1 to 256 characters") as refused:
        request(conclave={"conversation": name})
    assert refused.value.param == "conclave.conversation"
