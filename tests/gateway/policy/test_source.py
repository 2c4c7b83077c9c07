"""YAML as plain values with lines: what is refused, what words mean, and that no text makes it fail otherwise."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.gateway.policy.source import MAX_BYTES, ConfigError, parse_source, read_source


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("on", "on", id="on-is-a-word"),
        pytest.param("no", "no", id="no-is-a-word"),
        pytest.param("true", True, id="true"),
        pytest.param("12:30", "12:30", id="no-sexagesimal"),
        pytest.param("010", "010", id="no-octal"),
        pytest.param("2026-11-22", "2026-11-22", id="no-date"),
        pytest.param("-7", -7, id="int"),
        pytest.param("1e3", 1000.0, id="exponent"),
        pytest.param(".5", 0.5, id="float"),
        pytest.param("~", None, id="tilde"),
        pytest.param("", None, id="nothing"),
        pytest.param("'8'", "8", id="quoted"),
        pytest.param("[a, {b: 1}]", ["a", {"b": 1}], id="flow"),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    assert parse_source(f"key: {text}", label="f").data == {"key": value}


def test_every_key_and_item_has_its_line() -> None:
    source = parse_source("a:\n  b:\n    - x\n    - y\n", label="f")
    assert [source.where(loc) for loc in [("a",), ("a", "b"), ("a", "b", 1), ("a", "nothing"), ("z",)]] == [
        *("f:1", "f:2", "f:4", "f:1", "f:1"),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("a: 1\nb: 2\na: 3", "f:3: a: is given twice, first on line 1", id="double-key"),
        pytest.param("a: !!python/object:os.system x", "f:1: a: the tag", id="python-tag"),
        pytest.param("a: !!binary aGk=", "f:1: a: the tag", id="binary-tag"),
        pytest.param("a: !!int x", "f:1: a: cannot be read", id="lying-tag"),
        pytest.param("a: &x {b: 1}\nc:\n  <<: *x", "f:3: c: merge keys", id="merge-key"),
        pytest.param("1: x", "f:1: the key '1' must be a string", id="number-as-key"),
        pytest.param("? [a]\n: x", "f:1: a key must be a string", id="list-as-key"),
        pytest.param(f"a: {'9' * 5000}", "f:1: a: cannot be read", id="number-without-end"),
    ],
)
def test_what_is_not_plain_is_a_problem_with_its_line(text: str, complaint: str) -> None:
    (problem,) = parse_source(text, label="f").problems
    assert str(problem).startswith(complaint)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("a: [1", "f:1: is not YAML", id="open-bracket"),
        pytest.param("a: 1\n b: 2", "f:2: is not YAML", id="indentation"),
        pytest.param("a: 1\n---\nb: 2", "f:2: is not YAML", id="two-documents"),
        pytest.param("- a", "f:1: must be a mapping", id="list"),
        pytest.param("a: *b", "f:1: is not YAML", id="unknown-anchor"),
        pytest.param("a: &a [*a]", "f:1: is nested deeper", id="anchor-in-itself"),
        pytest.param(BOMB, "holds more than", id="billion-laughs"),
        pytest.param("a: " + "[" * 50_000, "is nested deeper", id="deep"),
        pytest.param("a: {" * 30 + "}" * 30, "f:1: is nested deeper", id="deeper-than-any-setting"),
        pytest.param("a: 1\nb: \x00", "f:2: holds a control character", id="nul"),
    ],
)
def test_what_cannot_be_gone_on_with_is_one_error(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_source(text, label="f")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        pytest.param(b"a: \xff", "f.yaml:1: is not UTF-8", id="latin-1"),
        pytest.param(b"#" * (MAX_BYTES + 1), "is larger than", id="large"),
    ],
)
def test_a_file_that_is_no_text_or_no_file_is_refused(tmp_path: Path, raw: bytes, complaint: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=complaint):
        read_source(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_source(tmp_path / "missing.yaml")


def test_an_editors_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_source(path).data == {"a": 1}


@given(st.text(max_size=60) | st.text(alphabet="ab:-{}[]&*!|>'\"#%@? \n,<1.", max_size=60))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_source(text, label="f").data, dict)
