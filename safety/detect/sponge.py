"""Finds sponge inputs: text that is there to cost time and tokens (after Shumailov et al., arXiv 2006.03463).

Two forms that a person hardly ever writes: one short unit repeated without an end ("a a a a", a character a thousand
times), and long texts of a few passages copied over and over. Both are told by how far they compress, and a
megabyte takes 4 to 60 ms. Text that is costly without repeating itself (rare characters, hard questions) is not seen.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from conclave.safety.api import Finding, Origin, Severity, View

BLOCK_CHARS: Final = 1024
LEAST_BLOCKS: Final = 3  # in a row: 3,072 characters, some 800 tokens of nothing but the same
BLOCK_BYTES: Final = 61  # that a block of one unit compresses to; numbered rows of zeros: 150, prose: 500
UNIT_CHARS: Final = 16  # of the block's beginning, which comes again in it if it is of one unit: a quick look
COPIES_CHARS: Final = 65_536  # from where copies of whole passages count
COPIES_SHARE: Final = 0.045  # of its size that such a text compresses to; 100 copies of a page: 0.03, a dull log: 0.07
SEEN_CHARS: Final = 262_144  # that are looked at for copies
LEVEL: Final = 1  # the quickest; it finds what repeats within 32 KB


class SpongeCheck:
    """A Check: text that repeats itself to no end, wherever it came from."""

    name = "sponge"
    origins = frozenset(Origin)
    decodes = False

    def inspect(self, view: View) -> Sequence[Finding]:
        text = view.text
        if len(text) < LEAST_BLOCKS * BLOCK_CHARS:
            return ()
        runs = [self._finding(view, "sponge.run", start, end) for start, end in _runs(text)]
        if runs or len(text) < COPIES_CHARS or _share(text[:SEEN_CHARS]) >= COPIES_SHARE:
            return runs
        return [self._finding(view, "sponge.copies", 0, len(text))]

    def _finding(self, view: View, kind: str, start: int, end: int) -> Finding:
        return Finding(
            check=self.name,
            kind=kind,
            severity=Severity.LOW,
            confidence=1.0,
            place=view.segment.place,
            start=start,
            end=end,
            evidence=f"{end - start} characters",
            remedy="send what repeats once, and say how often",
        )


def _runs(text: str) -> Iterator[tuple[int, int]]:
    """Stretches of blocks in a row that are next to nothing when compressed."""
    begin = 0
    for start in range(0, len(text) + BLOCK_CHARS, BLOCK_CHARS):
        block = text[start : start + BLOCK_CHARS]
        if len(block) == BLOCK_CHARS and block.find(block[:UNIT_CHARS], 1) > 0 and _packed(block) <= BLOCK_BYTES:
            continue
        if start - begin >= LEAST_BLOCKS * BLOCK_CHARS:
            yield begin, start
        begin = start + BLOCK_CHARS


def _share(text: str) -> float:
    return _packed(text) / len(text.encode("utf-8", "surrogatepass"))


def _packed(text: str) -> int:
    return len(zlib.compress(text.encode("utf-8", "surrogatepass"), LEVEL))
