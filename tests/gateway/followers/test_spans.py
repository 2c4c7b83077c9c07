from collections.abc import Callable, Mapping
from typing import Any

from conclave.gateway.followers.api import Row
from conclave.gateway.followers.spans import Spans
from conclave.gateway.telemetry.spans import Told


def names(spans: list[Told]) -> list[str]:
    return [span.name for span in spans]


def test_a_row_of_a_call_is_told_and_no_other(row: Callable[..., Row], data: Mapping[str, dict[str, Any]]) -> None:
    told: list[Told] = []
    Spans(told.append, providers={}).follow([row(0, data["genesis"]), row(1, data["unauthenticated"]), row(2)])
    assert names(told)[0] == "conclave.call"
    assert names(told).count("conclave.call") == 1
    assert told[-1].attributes["conclave.audit.seq"] == 2
    assert told[-1].attributes["conclave.audit.chain"] == "c"


def test_each_row_is_told_only_once_even_if_it_comes_again(row: Callable[..., Row]) -> None:
    told: list[Told] = []
    spans = Spans(told.append, providers={})
    spans.follow([row(0), row(1)])
    spans.follow([row(1), row(2)])
    assert names(told).count("conclave.call") == 3
    assert spans.position() == {"c": 2}


def test_the_rows_of_a_process_that_has_ended_are_not_asked_for() -> None:
    """Its spans were sent while it ran: sent again by the next process they would stand there twice."""
    assert Spans(lambda _: None, providers={}).past is False
