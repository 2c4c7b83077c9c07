"""Which trace a request's headers put its call into."""

import pytest

from conclave.gateway.api.respond import head_of, trace_of
from conclave.gateway.trace import Trace

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{PARENT}-01".encode()


def found(*headers: tuple[bytes, bytes], spans: bool = False) -> Trace | None:
    return trace_of(head_of({"type": "http", "headers": headers, "client": ("127.0.0.1", 1)}), spans=spans)


@pytest.mark.parametrize("spans", [False, True], ids=["spans off", "on, but outside of a request's span"])
def test_a_clients_trace_is_passed_on(spans: bool) -> None:
    expected = Trace(int(TRACE, 16), int(PARENT, 16), state="a=1,b=2")
    assert found((b"traceparent", GOOD), (b"tracestate", b"a=1"), (b"tracestate", b"b=2"), spans=spans) == expected


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="none"),
        pytest.param([(b"tracestate", b"a=1")], id="a state alone"),
        pytest.param([(b"traceparent", GOOD), (b"traceparent", GOOD)], id="two parents"),
        pytest.param([(b"traceparent", b"\xff" * 55)], id="no ASCII"),
    ],
)
def test_without_a_good_parent_there_is_no_trace(headers: list[tuple[bytes, bytes]]) -> None:
    assert found(*headers) is None
