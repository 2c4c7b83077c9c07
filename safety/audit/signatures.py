"""Whether heads.jsonl is whole and signed by a trusted key. What its heads say of the chains is for verify.py."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from conclave.safety.audit.chain import NO_HASH
from conclave.safety.audit.findings import Report
from conclave.safety.audit.heads import HEADS_FILE, Dropped, Head, Signature, Tombstone, is_torn, line_hash, read_line
from conclave.safety.audit.keys import is_signed


@dataclass(slots=True)
class Claims:
    """What the signed entries claim: heads and prunings in order, and every line's hash by its number."""

    heads: list[Head] = field(default_factory=list)
    dropped: tuple[Dropped, ...] = ()
    hashes: dict[int, str] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """The number of the first entry that is still there."""
        return min(self.hashes, default=0)

    def dropped_to(self, chain: str) -> Dropped | None:
        """The last pruned rows of a chain."""
        ours = [item for item in self.dropped if item.chain == chain]
        return max(ours, key=lambda item: item.last) if ours else None


def read_claims(raw: bytes) -> Claims:
    """The claims of heads.jsonl, unverified."""
    return _claims(signature for _, signature in _signatures(raw) if signature)


def verify_heads(raw: bytes, trusted: frozenset[str], report: Report) -> Claims:
    """Check numbers, links and signatures; returns the claims of all entries that can be read."""
    if tail := raw[raw.rfind(b"\n") + 1 :]:
        if is_torn(tail):
            report.note(f"{HEADS_FILE}: torn tail: its last line was begun ({len(tail)} bytes) and not finished")
        else:
            report.fault(HEADS_FILE, None, "the last line is cut off or something was added to it")
    read = list(_signatures(raw))
    sound = _check_links(read, report)
    found = [signature for _, signature in read if signature]
    _check_signatures(found, trusted, report, sound=sound)
    claims = _claims(found)
    report.entries, report.dropped = len(read), claims.dropped
    _check_start(found, report)
    return claims


def _signatures(raw: bytes) -> Iterator[tuple[str, Signature | None]]:
    """Each line's hash and, if it can be read, what it says; a torn last line is left out."""
    for line in raw[: raw.rfind(b"\n") + 1].split(b"\n")[:-1]:
        yield line_hash(line), read_line(line)


def _claims(found: Iterable[Signature]) -> Claims:
    claims = Claims()
    for signature in found:
        claims.hashes[signature.entry.n] = signature.hash
        match signature.entry:
            case Head() as head:
                claims.heads.append(head)
            case Tombstone(dropped=dropped):
                claims.dropped = dropped
    return claims


def _check_links(read: list[tuple[str, Signature | None]], report: Report) -> bool:
    """Whether each line names the one before it."""
    sound = True
    expected, before = None, None
    for at, (digest, signature) in enumerate(read):
        if signature is None:
            report.fault(HEADS_FILE, None, f"line {at + 1} is not a signed entry")
        elif expected is not None and signature.entry.n != expected:
            lost = signature.entry.n > expected
            what = f"entries {expected} to {signature.entry.n - 1} are missing" if lost else "out of order or repeated"
            report.fault(HEADS_FILE, signature.entry.n, f"{what} (line {at + 1})")
        elif before is not None and signature.entry.prev != before:
            report.fault(HEADS_FILE, signature.entry.n, f"the entry before it was changed (line {at + 1})")
        else:
            expected, before = signature.entry.n + 1, digest
            continue
        sound = False
        expected, before = (signature.entry.n if signature else (expected or 0)) + 1, digest
    return sound


def _check_signatures(found: list[Signature], trusted: frozenset[str], report: Report, *, sound: bool) -> None:
    """The last signature covers, by the links, all lines before it; where that breaks, each is checked."""
    strangers = [signature.entry.n for signature in found if signature.entry.key not in trusted]
    for n in strangers:
        report.fault(HEADS_FILE, n, "signed with a key that is not trusted")
    if sound and not strangers and (not found or _fits(found[-1], trusted)):
        return
    for signature in found:
        if signature.entry.key in trusted and not _fits(signature, trusted):
            report.fault(HEADS_FILE, signature.entry.n, "the signature does not fit the entry")


def _fits(signature: Signature, trusted: frozenset[str]) -> bool:
    return is_signed(signature.signed, signature.sig, by=signature.entry.key, trusted=trusted)


def _check_start(found: list[Signature], report: Report) -> None:
    """The first entry is number 0, or a tombstone says where the file now begins."""
    if not found:
        return
    first = found[0].entry
    cuts = [signature.entry.cut for signature in found if isinstance(signature.entry, Tombstone)]
    if first.n == 0 and first.prev == NO_HASH:
        return
    if not any(cut is not None and (cut.n + 1, cut.hash) == (first.n, first.prev) for cut in cuts):
        report.fault(HEADS_FILE, first.n, f"entries 0 to {first.n - 1} are missing and no pruning dropped them")
