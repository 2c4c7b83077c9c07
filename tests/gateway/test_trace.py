"""W3C Trace Context, by the letter: https://www.w3.org/TR/trace-context/."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.gateway.trace import STATE_CHARS, Trace, passed_on

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize("flags", ["00", "01", "03"])
def test_what_came_is_passed_on_as_it_came(flags: str) -> None:
    trace = passed_on(f"00-{TRACE}-{PARENT}-{flags}", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
    assert trace is not None
    assert trace.onward(0) == {
        "traceparent": f"00-{TRACE}-{PARENT}-{flags}",
        "tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
    }
    assert trace.onward(0) == trace.onward(3)
    assert trace.sampled is (flags != "00")


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("", id="empty"),
        pytest.param(GOOD.upper(), id="upper case"),
        pytest.param(f" {GOOD}", id="a space"),
        pytest.param(f"{GOOD}-", id="version 00 with more"),
        pytest.param(f"{GOOD}-what", id="version 00 with a part more"),
        pytest.param(f"{GOOD},{GOOD}", id="two of them"),
        pytest.param(f"ff-{TRACE}-{PARENT}-01", id="version ff"),
        pytest.param(f"00-{'0' * 32}-{PARENT}-01", id="no trace"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", id="no parent"),
        pytest.param(f"00-{TRACE[:-1]}-{PARENT}-01", id="short"),
        pytest.param(f"00-{TRACE}-{PARENT}-1", id="short flags"),
        pytest.param(f"00-{TRACE}-{PARENT}-0g", id="no hex"),
        pytest.param(f"cc-{TRACE}-{PARENT}-01.what", id="a newer version with something else"),
        pytest.param(f"00-{TRACE}-{PARENT}-0\u0661", id="a digit that is not ASCII"),
        pytest.param(f"{GOOD}\n", id="a line break"),
        pytest.param("x" * 100_000, id="long"),
    ],
)
def test_a_malformed_header_counts_as_absent(header: str) -> None:
    assert passed_on(header, "congo=1") is None


def test_without_a_parent_there_is_no_state_either() -> None:
    assert passed_on(None, "congo=1") is None


@pytest.mark.parametrize("more", ["", "-what-the-future-will-be-like"])
def test_of_a_newer_version_only_what_is_known_is_taken(more: str) -> None:
    trace = passed_on(f"cc-{TRACE}-{PARENT}-ff{more}", None)
    assert trace is not None
    assert trace.onward(0) == {"traceparent": f"00-{TRACE}-{PARENT}-03"}


@pytest.mark.parametrize(
    ("came", "goes"),
    [
        ("congo=1", "congo=1"),
        (" congo=1 ,\trojo=2", "congo=1,rojo=2"),
        ("congo=1,,rojo=2,", "congo=1,rojo=2"),
        ("fw529a3039@dt=FfAAAA", "fw529a3039@dt=FfAAAA"),
        ("0a*/-_=with space", "0a*/-_=with space"),
        ("congo=1,congo=2", ""),
        ("congo", ""),
        ("congo=", ""),
        ("Congo=1", ""),
        ("congo=a=b", ""),
        ("congo=1\u00e9", ""),
        (f"{'k' * 257}=1", ""),
        (f"k={'v' * 257}", ""),
        (",".join(f"k{i}=1" for i in range(33)), ""),
        (",".join(f"k{i}=1" for i in range(32)), ",".join(f"k{i}=1" for i in range(32))),
        (f"long={'v' * 200},big={'v' * 250},a=1,b={'v' * 100}", f"a=1,b={'v' * 100}"),
        (",".join(f"k{i}={'v' * 90}" for i in range(9)), ",".join(f"k{i}={'v' * 90}" for i in range(5))),
    ],
)
def test_a_state_is_passed_on_whole_or_not_at_all_and_never_longer_than_its_bound(came: str, goes: str) -> None:
    trace = passed_on(GOOD, came)
    assert trace is not None
    assert trace.state == goes
    assert len(trace.state) <= STATE_CHARS


def test_a_call_with_spans_tells_each_expert_the_id_of_its_own() -> None:
    trace = Trace.below(int(TRACE, 16), int(PARENT, 16), flags=1, state="congo=1")
    first, second = trace.onward(0)["traceparent"], trace.onward(1)["traceparent"]
    assert first == f"00-{TRACE}-{trace.part(1):016x}-01"
    assert second == f"00-{TRACE}-{trace.part(2):016x}-01"
    assert len({trace.span_id, trace.part(1), trace.part(2)}) == 3


def test_no_part_of_a_call_has_the_id_that_means_none() -> None:
    last = Trace(1, 2, span_id=2**64 - 1)
    assert 0 < last.part(1) < 2**64
    assert passed_on(last.onward(0)["traceparent"], None) is not None


def test_calls_have_ids_of_their_own() -> None:
    assert len({Trace.below(1, 2, flags=1).span_id for _ in range(1000)}) == 1000


@given(st.text(), st.text())
def test_whatever_comes_what_goes_on_is_a_header_that_can_be_sent(parent: str, state: str) -> None:
    for trace in (passed_on(parent, state), passed_on(GOOD, state)):
        if trace is not None:
            for value in trace.onward(0).values():
                assert value.isascii()
                assert value.isprintable()
                assert len(value) <= STATE_CHARS
