"""An independent witness: what another place (the audit table) remembers of the chains, compared row by row."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from conclave.safety.audit.findings import Report, span


@dataclass(frozen=True, slots=True)
class Witnessed:
    """One row as the witness remembers it."""

    chain: str
    seq: int
    hash: str


NOTHING: Final[tuple[Witnessed, ...]] = ()


class Witness:
    """Reads the remembered rows once, in order of (chain, seq), as the chains are verified in that order.

    The rows are one state of the table, fixed when the first is read: a gateway may go on writing to it.
    """

    def __init__(self, rows: Iterable[Witnessed]) -> None:
        self._rows = _in_order(rows)
        self._next = next(self._rows, None)
        self.rows = 0

    def chains_before(self, chain: str | None) -> Iterator[tuple[str, int, int]]:
        """Chains that come before this one (None: all that are left), each with its first and last remembered row."""
        while self._next is not None and (chain is None or self._next.chain < chain):
            here, first, last = self._next.chain, self._next.seq, self._next.seq
            while self._next is not None and self._next.chain == here:
                last = self._next.seq
                self._advance()
            yield here, first, last

    def expects(self, chain: str) -> tuple[int, str] | None:
        """Number and hash of the next remembered row of this chain."""
        row = self._next
        return (row.seq, row.hash) if row is not None and row.chain == chain else None

    def see(self, chain: str, seq: int, digest: str) -> str | None:
        """Compare a row of the journal; returns what is wrong. Remembered rows that were passed over are missing."""
        wrong = None
        first = None
        while (expected := self.expects(chain)) is not None and expected[0] < seq:
            first = expected[0] if first is None else first
            last = expected[0]
            wrong = f"{span(first, last)} stand in the table but not in the journal"
            self._advance()
        if expected is not None and expected[0] == seq:
            if expected[1] != digest:
                wrong = "the table remembers this row with another hash"
            self._advance()
        return wrong

    def rows_of(self, chain: str) -> Iterator[tuple[int, str]]:
        """The remembered rows of this chain that are left."""
        while (expected := self.expects(chain)) is not None:
            self._advance()
            yield expected

    def skip_to(self, chain: str, seq: int | None) -> None:
        """Leave out the rows before `seq` (None: all): pruned from the journal, the table may remember them longer."""
        while (expected := self.expects(chain)) is not None and (seq is None or expected[0] < seq):
            self._advance()

    def _advance(self) -> None:
        self.rows += 1
        self._next = next(self._rows, None)


def _in_order(rows: Iterable[Witnessed]) -> Iterator[Witnessed]:
    before: tuple[str, int] = ("", -1)
    for row in rows:
        if (row.chain, row.seq) <= before:
            raise ValueError("a witness gives its rows ordered by chain, then seq, each once")
        before = (row.chain, row.seq)
        yield row


def left_over(witness: Witness, chain: str | None, known: Mapping[str, int], report: Report) -> None:
    """Report chains that the witness remembers and the journal has no file of, but for what was pruned (`known`)."""
    for missing, first, last in witness.chains_before(chain):
        if last > known.get(missing, -1):
            report.fault(missing, None, f"the chain is missing; {span(first, last)} stand in the table")
