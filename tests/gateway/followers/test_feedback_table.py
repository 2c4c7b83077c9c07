"""Feedback by call: the last word counts, in whatever order and however often the rows come."""

import itertools
from collections.abc import Callable
from typing import Any

from sqlalchemy import select

from conclave.gateway.followers.api import Row
from conclave.gateway.followers.feedback_table import FeedbackTable
from conclave.gateway.followers.reached import LAG_ROWS
from conclave.gateway.state.sql import Database
from conclave.gateway.state.tables import feedback

Rows = Callable[..., Row]
SAID: dict[str, Any] = {
    "kind": "feedback",
    "time": "2026-11-22T07:30:00.000001Z",
    "request_id": "req_1",
    "tenant": "acme",
    "key_id": None,
    "score": 0.5,
    "label": None,
}


def kept(database: Database) -> list[tuple[str, float, str | None]]:
    with database.read() as connection:
        at = feedback.c
        return [
            tuple(row) for row in connection.execute(select(at.request_id, at.score, at.label).order_by(at.request_id))
        ]


def said(score: float, time: str, **more: Any) -> dict[str, Any]:
    return {**SAID, "score": score, "time": f"2026-11-22T07:30:00.{time}Z", **more}


def test_the_last_word_counts_whichever_replica_heard_it_and_whoever_is_followed_first(
    database: Database, row: Rows
) -> None:
    words = [
        row(1, said(0.1, "000001"), chain="a"),
        row(9, said(0.2, "000005", label="late"), chain="b"),
        row(2, said(0.3, "000003"), chain="a"),
    ]
    for order in itertools.permutations(words):
        table = FeedbackTable(database)
        for one in order:
            table.follow([one])
        assert kept(database) == [("req_1", 0.2, "late")]


def test_of_words_in_the_same_microsecond_the_later_row_counts(database: Database, row: Rows) -> None:
    table = FeedbackTable(database)
    table.follow([row(2, said(0.9, "000001")), row(1, said(0.1, "000001"))])
    assert kept(database) == [("req_1", 0.9, None)]


def test_rows_that_come_again_change_nothing(database: Database, row: Rows) -> None:
    rows = [row(0), row(1, said(0.4, "000001")), row(2, said(1.0, "000002", request_id="req_2"))]
    FeedbackTable(database).follow(rows)
    again = FeedbackTable(database)
    assert again.position() == {"c": 2}
    again.follow(rows)
    assert kept(database) == [("req_1", 0.4, None), ("req_2", 1.0, None)]


def test_rows_of_which_nothing_is_kept_cost_no_write_but_the_position_follows(database: Database, row: Rows) -> None:
    table = FeedbackTable(database)
    table.follow([row(5)])
    assert table.position() == {}  # it would be read again
    table.follow([row(LAG_ROWS + 5)])
    assert table.position() == {"c": LAG_ROWS + 5}
    table.follow([row(LAG_ROWS + 6, {"kind": "closed", "time": SAID["time"]})])
    assert table.position() == {"c": LAG_ROWS + 6}  # a chain that has ended is not read again
