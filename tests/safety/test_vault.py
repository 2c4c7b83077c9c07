"""A placeholder comes back as exactly what it stood for, however the stream is cut; nobody else's does."""

import json
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conclave.safety.vault import MOST_CHARS, PLACEHOLDER, Restorer, Vault, escaped, unescaped

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
MAIL = "anna.berg@nordwind.org"

texts = st.text(st.one_of(st.characters(), st.sampled_from('[]_"\\\nAZ27')), max_size=60)
labels = st.sampled_from(["email", "card", "aws_access_key", "9", "", "x" * 60, "sk key"])
parts = st.lists(st.tuples(texts, st.none() | labels), max_size=8)


def hidden(vault: Vault, drawn: list[tuple[str, str | None]]) -> str:
    """The parts with a label as placeholders, the others as they are."""
    return "".join(text if label is None else vault.placeholder(text, label=label) for text, label in drawn)


def streamed(vault: Vault, text: str, cuts: list[int], *, in_json: bool = False) -> str:
    restorer = Restorer(vault, in_json=in_json)
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    said = [restorer.feed(text[start:end]) for start, end in pairwise(edges)]
    return "".join(said) + restorer.finish()


@settings(max_examples=200, deadline=None)
@given(drawn=parts, cuts=st.lists(st.integers(0, 400), max_size=30))
def test_any_text_comes_back_however_it_is_cut(drawn: list[tuple[str, str | None]], cuts: list[int]) -> None:
    vault = Vault(KEY)
    text, sent = "".join(text for text, _ in drawn), hidden(vault, drawn)
    assert vault.restore(sent) == text
    assert streamed(vault, sent, cuts) == text
    assert streamed(vault, sent, list(range(len(sent)))) == text


@settings(max_examples=100, deadline=None)
@given(drawn=parts, cuts=st.lists(st.integers(0, 400), max_size=30))
def test_arguments_of_a_tool_stay_json_and_say_the_same(drawn: list[tuple[str, str | None]], cuts: list[int]) -> None:
    vault = Vault(KEY)
    text = "".join(text for text, _ in drawn)
    arguments = json.dumps({"query": hidden(vault, drawn), "n": 1})
    assert json.loads(streamed(vault, arguments, cuts, in_json=True)) == {"query": text, "n": 1}
    assert json.loads(vault.restore(arguments, in_json=True)) == {"query": text, "n": 1}


@pytest.mark.parametrize("in_json", [False, True], ids=["text", "arguments"])
def test_every_way_to_cut_a_short_answer_in_three_gives_the_same(in_json: bool) -> None:
    """All 903 of them, with a value that JSON must escape, two placeholders side by side and a stray bracket."""
    vault = Vault(KEY)
    first, second = vault.placeholder('a"\n[B', label="card"), vault.placeholder("b", label="pin")
    answer = f"[a{first}{second}[N"
    said = vault.restore(answer, in_json=in_json)
    assert said == f"[a{escaped('a' + chr(34) + chr(10) + '[B') if in_json else 'a' + chr(34) + chr(10) + '[B'}b[N"
    for one, two in combinations(range(len(answer) + 1), 2):
        assert streamed(vault, answer, [one, two], in_json=in_json) == said


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.one_of(st.characters(), st.sampled_from("[]_AZ27")), max_size=120), cuts=st.lists(st.integers()))
def test_a_stream_without_placeholders_is_not_changed(text: str, cuts: list[int]) -> None:
    assert streamed(Vault(KEY), text, cuts) == text


def test_a_placeholder_says_what_it_stands_for_and_nothing_of_it() -> None:
    made = Vault(KEY).placeholder(MAIL, label="email")
    assert made.startswith("[EMAIL_")
    assert PLACEHOLDER.fullmatch(made)
    assert "anna" not in made.lower()


def test_a_value_has_one_placeholder_in_all_turns() -> None:
    """Also in another process of the same conversation: nothing is counted or drawn."""
    first, again = Vault(KEY), Vault(KEY)
    again.placeholder("someone@else.org", label="email")
    assert first.placeholder(MAIL, label="email") == again.placeholder(MAIL, label="email")
    assert len({first.placeholder(MAIL, label=label) for label in ("email", "card")}) == 2


def test_a_placeholder_of_another_vault_is_never_restored() -> None:
    mine, other = Vault(KEY), Vault(OTHER)
    theirs = other.placeholder(MAIL, label="email")
    assert mine.placeholder(MAIL, label="email") != theirs
    assert mine.restore(f"see {theirs}") == f"see {theirs}"
    assert streamed(mine, f"see {theirs}", [7, 9]) == f"see {theirs}"


def test_a_placeholder_that_was_not_handed_out_stays() -> None:
    made = Vault(KEY).placeholder(MAIL, label="email")
    assert Vault(KEY).restore(made) == made


def test_many_values_share_no_placeholder() -> None:
    vault = Vault(KEY)
    made = {vault.placeholder(str(number), label="n") for number in range(20_000)}
    assert len(made) == len(vault) == 20_000


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_placeholder_may_be_cut_anywhere(cut: int) -> None:
    vault = Vault(KEY)
    made = vault.placeholder(MAIL, label="email")
    restorer = Restorer(vault)
    assert len(made) == 16
    assert restorer.feed("to " + made[:cut]) == "to "
    assert restorer.feed(made[cut:] + ", now") == f"{MAIL}, now"
    assert restorer.finish() == ""


def test_the_longest_placeholder_may_be_cut_before_its_last_character() -> None:
    vault = Vault(KEY)
    made = vault.placeholder(MAIL, label="x" * 60)
    assert len(made) == MOST_CHARS
    assert streamed(vault, made, [len(made) - 1]) == MAIL


def test_little_is_held_back() -> None:
    restorer = Restorer(Vault(KEY))
    assert restorer.feed("no bracket at all") == "no bracket at all"
    assert restorer.feed("a[0] = b[") == "a[0] = b"
    assert restorer.feed("1] + [lower") == "[1] + [lower"
    said = restorer.feed("[" + "A" * 10_000)
    assert len(said) >= 10_000 - MOST_CHARS


def test_what_was_escaped_in_json_is_the_value_itself() -> None:
    assert unescaped('line\\n\\"quoted\\"') == 'line\n"quoted"'
    assert unescaped("C:\\dir") == "C:\\dir"
    assert unescaped('a\\n"') == 'a\\n"'


@pytest.mark.parametrize("size", [0, 15, 65])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="16 to 64 bytes"):
        Vault(bytes(size))


def test_a_vault_shows_no_values() -> None:
    vault = Vault(KEY)
    vault.placeholder(MAIL, label="email")
    assert repr(vault) == "Vault(1 values)"
