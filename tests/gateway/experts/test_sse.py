"""The splitter against a slow, plain reading of the standard, for any stream and any way that it is cut into reads."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.gateway.errors import ExpertFailed
from conclave.gateway.experts.sse import EventSplitter

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
VALUES = st.binary(max_size=12).map(lambda value: value.replace(b"\r", b"r").replace(b"\n", b"n"))
FIELDS = st.sampled_from([b"data: ", b"data:", b"data", b": ", b"event: ", b"id:", b"retry: ", b"datax: ", b" data: "])
LINES = st.builds(lambda field, value: field + value, FIELDS, VALUES) | st.just(b"") | VALUES
USUAL = st.lists(
    st.binary(min_size=1, max_size=9).map(lambda v: b"data: " + v.replace(b"\n", b"n").replace(b"\r", b"r"))
)


def reference(stream: bytes) -> list[bytes]:
    """WHATWG HTML, 9.2.6, a line at a time; events without data are dropped, an unfinished last event too."""
    stream = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    payloads: list[bytes] = []
    values: list[bytes] = []
    for line in stream.split(b"\n")[:-1]:
        if not line:
            if payload := b"\n".join(values):
                payloads.append(payload)
            values = []
        elif line == b"data" or line.startswith(b"data:"):
            value = line[5:]
            values.append(value[1:] if value[:1] == b" " else value)
    return payloads


def fed(pieces: list[bytes]) -> list[bytes]:
    splitter = EventSplitter()
    return [payload for piece in pieces for payload in splitter.feed(piece)]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@given(lines=st.lists(st.tuples(LINES, LINE_ENDS)), bom=st.booleans(), places=st.lists(st.integers(0, 10_000)))
def test_any_stream_cut_anywhere_gives_what_the_standard_says(
    lines: list[tuple[bytes, bytes]], bom: bool, places: list[int]
) -> None:
    stream = b"\xef\xbb\xbf" * bom + b"".join(line + end for line, end in lines)
    assert fed(cut(stream, places)) == reference(stream)


@given(events=USUAL, places=st.lists(st.integers(0, 10_000)))
def test_the_usual_stream_cut_anywhere_gives_its_payloads(events: list[bytes], places: list[int]) -> None:
    stream = b"".join(event + b"\n\n" for event in events)
    assert fed(cut(stream, places)) == [event[6:] for event in events]


@given(stream=st.binary(max_size=60), places=st.lists(st.integers(0, 60)))
def test_any_bytes_at_all_are_read_as_the_standard_says(stream: bytes, places: list[int]) -> None:
    assert fed(cut(stream, places)) == reference(stream)


@pytest.mark.parametrize(
    ("stream", "payloads"),
    [
        pytest.param(b"data: a\n\ndata: b\n\n", [b"a", b"b"], id="many in one read"),
        pytest.param(b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"], id="CRLF"),
        pytest.param(b"data: a\r\rdata: b\r\r", [b"a", b"b"], id="CR"),
        pytest.param(b"data: a\ndata: b\n\n", [b"a\nb"], id="two data lines"),
        pytest.param(b": keep-alive\n\ndata: a\n\n", [b"a"], id="comment"),
        pytest.param(b"event: message\nid: 7\ndata: a\n\n", [b"a"], id="other fields"),
        pytest.param(b"data:a\n\ndata:  b\n\n", [b"a", b" b"], id="one space is dropped, no more"),
        pytest.param(b"data: \n\ndata\n\n\n\ndata: a\n\n", [b"a"], id="events without data"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [b"a"], id="byte order mark"),
        pytest.param(b"data: \xff\x00\xef\xbb\xbf\n\n", [b"\xff\x00\xef\xbb\xbf"], id="bytes that are no UTF-8"),
    ],
)
def test_a_payload_is_the_data_lines_untouched(stream: bytes, payloads: list[bytes]) -> None:
    assert fed([stream]) == payloads
    assert fed([bytes([byte]) for byte in stream]) == payloads


@pytest.mark.parametrize(
    ("stream", "rest"),
    [
        pytest.param(b"data: a\n\ndata: b", b"b", id="no line end"),
        pytest.param(b"data: a\n\ndata: b\n", b"b", id="no empty line"),
        pytest.param(b"data: a\r\n\r\ndata: b\r\n", b"b", id="CRLF"),
        pytest.param(b"data: a\n\n", b"", id="whole"),
        pytest.param(b"data: a\n\n: bye", b"", id="a comment"),
        pytest.param(b"\xef", b"", id="half a byte order mark"),
        pytest.param(b"", b"", id="nothing"),
    ],
)
def test_what_an_unfinished_event_said_is_told_at_the_end(stream: bytes, rest: bytes) -> None:
    splitter = EventSplitter()
    splitter.feed(stream)
    assert splitter.finish() == rest


def test_an_event_ends_with_its_empty_line_and_not_with_the_byte_after_it() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\r\n\r") == [b"a"]
    assert splitter.feed(b"\ndata: b\n\n") == [b"b"]


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 200, b": x\n" * 60], ids=["a long line", "endless comments"])
def test_an_event_without_an_end_is_given_up(stream: bytes) -> None:
    splitter = EventSplitter(limit_bytes=100)

    def feed() -> None:
        for byte in stream:
            splitter.feed(bytes([byte]))

    with pytest.raises(ExpertFailed) as caught:
        feed()
    assert caught.value.kind == "malformed"


def test_events_within_the_limit_may_go_on_for_ever() -> None:
    splitter = EventSplitter(limit_bytes=100)
    assert sum(len(splitter.feed(b"data: " + b"x" * 90 + b"\n\n")) for _ in range(50)) == 50
