"""The rows of one chain in turn: does each fit its own hash, the row before it, and what is known of it?"""

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from conclave.safety.audit.chain import Evidence, Predecessor, Segment, Signed, hash_in, is_torn, row_bytes
from conclave.safety.audit.findings import Part, Report, span
from conclave.safety.audit.witness import Witness

_evidence: Final = msgspec.json.Decoder(Evidence)


class ChainCheck:
    """Feed it a chain's segments in order with `read`, then `finish`. Findings go to the report.

    `wanted` says by row which hash it must have and who says so; `signed` collects the signatures that rows name.
    """

    def __init__(
        self,
        chain: str,
        start: tuple[int, str | None],  # the first row's number and its `prev`, if that is known
        wanted: dict[int, list[tuple[str, str]]],
        witness: Witness,
        report: Report,
    ) -> None:
        self.expected = start[0]
        self.signed: list[tuple[Segment, int, Signed]] = []
        self.ends_closed = False
        self._chain = chain
        self._prev = start[1]  # None: the row before was changed or pruned, its hash is not known
        self._wanted = {row: said for row, said in wanted.items() if row >= start[0]}
        self._witness = witness
        self._report = report

    def read(self, part: Segment, *, torn_ok: bool) -> None:
        """Check every row of a segment. `torn_ok`: a process may have been stopped while it wrote the last line."""
        newest, first = "", self.expected
        if part.first != self.expected:
            self._misplaced(part, part.first, "the file begins with")
        with part.path.open("rb") as lines:
            for line in lines:
                if line[-1:] == b"\n":
                    evidence = self._row(part, line[:-1])
                    if evidence is not None and evidence.time > newest:
                        newest = evidence.time
                else:
                    self._tail(part, line, torn_ok=torn_ok)
                    break  # a living writer may finish that line meanwhile; what follows is its rest, not a row
        if self.expected > first:
            self._report.rows += self.expected - first
            self._report.parts.append(Part(part.path, self._chain, first, self.expected - 1, self._prev or "", newest))

    def _row(self, part: Segment, line: bytes) -> Evidence | None:
        body = row_bytes(line)
        digest = hashlib.sha256(body).hexdigest() if body is not None else ""
        if body is None or digest != hash_in(line):
            what = "not a row of a chain" if body is None else "was edited: it does not fit its hash"
            self._report.fault(part.path.name, self.expected, what)
            self._pass(None)
            return None
        try:
            evidence = _evidence.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._report.fault(part.path.name, self.expected, "not a row of a chain")
            self._pass(None)
            return None
        if evidence.chain != self._chain:
            self._report.fault(part.path.name, self.expected, f"belongs to the chain {evidence.chain}")
            return None
        if evidence.seq != self.expected and not self._misplaced(part, evidence.seq, "here stands"):
            return None
        if self._prev is not None and evidence.prev != self._prev:
            self._report.fault(part.path.name, evidence.seq, "does not follow the row before it: rows were replaced")
        if self.ends_closed:
            self._report.fault(part.path.name, evidence.seq, "stands after the closing row")
        self._compare(part, evidence, digest)
        self._pass(digest)
        return evidence

    def _misplaced(self, part: Segment, seq: int, what: str) -> bool:
        """Report a jump; whether it goes forward, so that the reading goes on from there."""
        if seq > self.expected:
            lost = span(self.expected, seq - 1)
            self._report.fault(part.path.name, self.expected, f"missing: {what} row {seq}, {lost} are not there")
            self.expected, self._prev = seq, None
            return True
        self._report.fault(part.path.name, seq, f"repeated or out of order: row {self.expected} should stand here")
        return False

    def _compare(self, part: Segment, evidence: Evidence, digest: str) -> None:
        """Hold a sound row against what others say of it."""
        for said, by in self._wanted.pop(evidence.seq, ()):
            if said != digest:
                self._report.fault(part.path.name, evidence.seq, f"rows up to here were replaced: {by} knows another")
        if (wrong := self._witness.see(self._chain, evidence.seq, digest)) is not None:
            self._report.fault(part.path.name, evidence.seq, wrong)
        if evidence.signed is not None:
            self.signed.append((part, evidence.seq, evidence.signed))
        self.ends_closed = evidence.kind == "closed"

    def _pass(self, digest: str | None) -> None:
        if digest is None:
            self._wanted.pop(self.expected, None)
        self.expected, self._prev = self.expected + 1, digest

    def _tail(self, part: Segment, tail: bytes, *, torn_ok: bool) -> None:
        if torn_ok and not self.ends_closed and is_torn(tail):
            begun = f"torn tail: row {self.expected} was begun ({len(tail)} bytes) and not finished"
            self._report.note(f"{part.path.name}: {begun}")
        else:
            self._report.fault(part.path.name, self.expected, "the line is cut off or something was added to it")

    def finish(self, part: Segment) -> None:
        """Report what should have come and did not."""
        missing = max((row for row in self._wanted if row >= self.expected), default=None)
        if missing is not None:
            by = self._wanted[missing][0][1]
            what = f"cut off: {span(self.expected, missing)} are missing ({by})"
            self._report.fault(part.path.name, self.expected, what)
        remembered = [seq for seq, _ in self._witness.rows_of(self._chain)]
        if remembered:
            lost = span(remembered[0], remembered[-1])
            what = f"cut off: {lost} stand in the table but not in the journal"
            self._report.fault(part.path.name, self.expected, what)


def genesis_of(path: Path) -> tuple[Predecessor, ...]:
    """The earlier chains that a chain's first row names; none if the row cannot be read (that is found elsewhere)."""
    try:
        with path.open("rb") as lines:
            body = row_bytes(lines.readline().rstrip(b"\n"))
        return _evidence.decode(body).predecessors if body is not None else ()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
