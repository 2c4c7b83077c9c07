"""Whether the record is as it was written: every chain against its hashes, the signed heads, and the other chains.

It finds and locates any edit, deletion, insertion, reordering or truncation that someone without the signing key can
make, but for the rows after a killed process's last signature: those only a witness remembers (docs/audit.md). It
changes nothing, and may run beside living gateways: what it reads first is signed no later than what it reads next.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from conclave.safety.audit import heads
from conclave.safety.audit.chain import NO_HASH, SEGMENT, Predecessor, Segment, Signed, segments
from conclave.safety.audit.findings import Report, span
from conclave.safety.audit.heads import HEADS_FILE
from conclave.safety.audit.rows import ChainCheck, genesis_of
from conclave.safety.audit.segment import is_held
from conclave.safety.audit.signatures import Claims, read_claims, verify_heads
from conclave.safety.audit.witness import NOTHING, Witness, Witnessed, left_over

Wanted = dict[str, dict[int, list[tuple[str, str]]]]  # by chain and row: the hash it must have, and who says so
GENESIS_ONLY: Final = 1  # rows of a chain whose process ended before it could sign


@dataclass(slots=True)
class Later:
    """What can only be judged by a second look at heads.jsonl, taken after the chains were read."""

    signed: list[tuple[Segment, int, Signed]] = field(default_factory=list)  # (where, row, what it names)
    closed: list[Segment] = field(default_factory=list)  # ends with a closing row; its signature was not there yet
    gone: list[Segment] = field(default_factory=list)  # listed, then not there: pruned meanwhile?


def verify(folder: Path, trusted: frozenset[str], witness: Iterable[Witnessed] = NOTHING) -> Report:
    """Verify all chains in the folder. `trusted` are public keys in hex. Raises FileNotFoundError without a folder."""
    report, remembered = Report(), Witness(witness)  # first: what it remembers is in the journal by now
    raw, chains = _snapshot(folder, report)
    claims = verify_heads(raw, trusted, report)
    predecessors = {chain: genesis_of(parts[0].path) for chain, parts in chains.items()}
    run = Run(claims, _wanted(claims, predecessors), remembered, report)
    for chain in sorted(chains.keys() | run.wanted.keys()):
        run.check(chain, chains.get(chain, []))
    left_over(run.witness, None, run.pruned, report)
    _look_again(folder, run.later, report)
    report.chains, report.witnessed_rows = len(chains), run.witness.rows
    return report


@dataclass(slots=True)
class Run:
    """One verification: what the signatures claim, what each chain must have, and where it is reported."""

    claims: Claims
    wanted: Wanted
    witness: Witness
    report: Report
    later: Later = field(default_factory=Later)
    pruned: dict[str, int] = field(init=False)
    closed: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.pruned = {item.chain: item.last for item in self.claims.dropped}
        self.closed = frozenset(head.chain for head in self.claims.heads if head.closed)

    def check(self, chain: str, parts: list[Segment]) -> None:
        """One chain; chains come in order of their ids."""
        left_over(self.witness, chain, self.pruned, self.report)
        if parts:
            self._check_rows(chain, parts)
        elif (last := max(self.wanted[chain])) > self.pruned.get(chain, -1):
            what = f"the chain is missing: {span(0, last)} were here ({self.wanted[chain][last][0][1]})"
            self.report.fault(chain, None, what)
            self.witness.skip_to(chain, None)
        else:
            self.witness.skip_to(chain, self.pruned[chain] + 1)

    def _check_rows(self, chain: str, parts: list[Segment]) -> None:
        dropped, wanted = self.claims.dropped_to(chain), self.wanted.get(chain, {})
        start, prev = (dropped.last + 1, dropped.hash) if dropped else (0, NO_HASH)
        self.witness.skip_to(chain, start)
        self._check_left([part for part in parts if part.first < start])
        check = ChainCheck(chain, (start, prev), wanted, self.witness, self.report)
        for part in parts:
            if part.first < start:
                continue
            try:
                check.read(part, torn_ok=part is parts[-1] and chain not in self.closed)
            except FileNotFoundError:
                self.later.gone.append(part)
                self.witness.skip_to(chain, None)
                return
        check.finish(parts[-1])
        self._hold_against_heads(check)
        if chain in self.closed:
            return
        if check.ends_closed:
            self.later.closed.append(parts[-1])
        elif check.expected > start and not is_held(parts[-1].path):
            _note_unclosed(chain, check, max(wanted, default=-1), self.report)

    def _check_left(self, left: list[Segment]) -> None:
        """Pruned files that are still there: an interrupted pruning left them, if the tombstone knows their rows."""
        if not left:
            return
        chain, found = left[0].chain, Report()
        known = {item.last: item.hash for item in self.claims.dropped if item.chain == chain}
        wanted = {row: [(said, "the tombstone")] for row, said in known.items()}
        check = ChainCheck(chain, (left[0].first, None), wanted, Witness(NOTHING), found)
        try:
            for part in left:
                check.read(part, torn_ok=part is left[-1] and chain not in self.closed)
        except FileNotFoundError:
            return  # a pruning is at work
        if check.expected - 1 not in known:
            found.fault(left[-1].path.name, None, "no tombstone knows its last row")
        for fault in found.faults:
            self.report.fault(fault.file, fault.row, f"was pruned, and put back with other rows: {fault.what}")
        if found.intact:
            for part in left:
                self.report.note(f"{part.path.name}: was pruned, but is still there; prune again")

    def _hold_against_heads(self, check: ChainCheck) -> None:
        """The signatures that rows name must still be in heads.jsonl."""
        for where, row, signed in check.signed:
            if signed.n in self.claims.hashes:
                if self.claims.hashes[signed.n] != signed.hash:
                    self.report.fault(HEADS_FILE, signed.n, f"was changed: row {row} of {where.chain} names another")
            elif signed.n >= self.claims.first:
                self.later.signed.append((where, row, signed))


def _snapshot(folder: Path, report: Report) -> tuple[bytes, dict[str, list[Segment]]]:
    """heads.jsonl and the list of segments, as they stood together."""
    try:
        with heads.locked(folder, exclusive=False) as file:
            raw, chains = file.read(), segments(folder)
    except FileNotFoundError:
        raw, chains = b"", segments(folder)
        if chains:
            report.fault(HEADS_FILE, None, "the file with the signatures is missing")
    for path in sorted(folder.iterdir()):
        if path.name != HEADS_FILE and not SEGMENT.fullmatch(path.name) and not path.name.startswith("."):
            report.note(f"{path.name}: not a file of the journal")
    return raw, chains


def _wanted(claims: Claims, predecessors: dict[str, tuple[Predecessor, ...]]) -> Wanted:
    wanted: Wanted = {}
    for head in claims.heads:
        said = (head.head, f"{HEADS_FILE} entry {head.n}")
        wanted.setdefault(head.chain, {}).setdefault(head.rows - 1, []).append(said)
    for chain, named in predecessors.items():
        for earlier in named:
            said = (earlier.head, f"the genesis row of {chain}")
            wanted.setdefault(earlier.chain, {}).setdefault(earlier.rows - 1, []).append(said)
    return wanted


def _note_unclosed(chain: str, check: ChainCheck, signed_to: int, report: Report) -> None:
    if signed_to < 0 and check.expected > GENESIS_ONLY:
        report.fault(chain, None, f"no signature covers this chain of {check.expected} rows")
    elif signed_to < 0:
        report.note(f"{chain}: its process ended before it could sign")
    elif check.expected - 1 > signed_to:
        after = f"{span(signed_to + 1, check.expected - 1)} came after its last signature"
        report.note(f"{chain}: its process was killed; {after}")
    else:
        report.note(f"{chain}: its process was killed; all its rows are signed")


def _look_again(folder: Path, later: Later, report: Report) -> None:
    """Judge what a living gateway may have signed, closed or pruned while the chains were read."""
    if not (later.signed or later.closed or later.gone):
        return
    living = {part.chain for part in later.closed if part.path.exists() and is_held(part.path)}
    try:
        with heads.locked(folder, exclusive=False) as file:
            claims = read_claims(file.read())
    except FileNotFoundError:
        claims = Claims()
    for where, row, signed in later.signed:
        if signed.n >= claims.first and claims.hashes.get(signed.n) != signed.hash:
            report.fault(HEADS_FILE, signed.n, f"the entry is missing: row {row} of {where.chain} names it")
    closed = {head.chain for head in claims.heads if head.closed}
    for part in later.closed:
        if part.chain not in closed | living:
            what = "the chain was closed, but the signature of its closing row is missing"
            report.fault(HEADS_FILE, None, f"{part.chain}: {what}")
    pruned = {item.chain: item.last for item in claims.dropped}
    for part in later.gone:
        if part.first > pruned.get(part.chain, -1):
            report.fault(part.path.name, part.first, "the file is missing")
