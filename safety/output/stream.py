"""One text of an answer on its way out: cut into excerpts, judged by each check once, and let go as far as is safe.

What is found, and what becomes of the text, follows from the text alone: however it arrives in pieces, findings and
result are the same, and the whole text is judged by the same machine, fed once. Excerpts are judged in the order in
which the text settles what they are; the first finding that blocks ends it. A check whose findings are only told makes
nothing wait. For one that redacts or blocks, prose waits from one of its triggers or behind one of its leads on, code
by lines, 256 characters at most, or a fenced block as a whole if the check must see it so. Bounded in memory.
"""

from collections.abc import Sequence
from typing import Final

from conclave.safety.api import Action, Finding
from conclave.safety.output.api import Excerpt
from conclave.safety.output.cuts import Cuts
from conclave.safety.output.excerpts import BARE, LINE_END, MOST_CHARS, MOST_LINES, Fence, closes, goes_on, opened
from conclave.safety.output.judging import Judging, Spot
from conclave.safety.output.plan import Plan
from conclave.safety.output.triggers import LONGEST, Finder, Folded, edge
from conclave.safety.output.watch import Watch

WINDOW: Final = 256  # characters from a trigger on that a long line is judged by
STEP: Final = 128  # to the next window; what begins before it is judged with as much behind it at least
CODE_BEFORE: Final = WINDOW - LONGEST  # of a line of code, before a trigger, that a finding may cover: `name==1.0`
BEFORE: Final = 512  # of the line, before a window, that is seen with it
PART: Final = 65_536  # characters of a block that are judged at once
PART_STEP: Final = 61_440  # to its next part
KEPT: Final = MOST_CHARS + LONGEST  # characters before what waits, that lines and words reach back
TRIM: Final = 4 * KEPT  # from which on it pays to forget


class Channel:
    """`feed` a text piece by piece, then `finish`: together they give what may be shown of it.

    Once `blocked` is set nothing more comes out. `code`: the text is a block as a whole.
    """

    __slots__ = (
        "_all",
        "_always",
        "_any_from",
        "_anything",
        "_base",
        "_block_at",
        "_block_spots",
        "_cuts",
        "_end",
        "_fence",
        "_folded",
        "_holding",
        "_judging",
        "_led",
        "_line",
        "_lines",
        "_looked",
        "_now",
        "_out",
        "_physical",
        "_place",
        "_plan",
        "_sought",
        "_text",
        "_watches",
        "_woken",
        "blocked",
    )

    def __init__(self, plan: Plan, judging: Judging, place: str = "", *, code: bool = False) -> None:
        self.blocked: Spot | None = None
        self._plan = plan
        self._judging = judging
        self._place = place
        self._text = ""
        self._folded = Folded()
        self._base = 0  # the place of the first character of `_text`; places are counted from the channel's beginning
        self._end = 0
        self._out = 0  # up to where it was let go
        self._sought = 0  # up to where ends of lines were looked for
        self._line = 0  # where the logical line begins
        self._lines = 1  # how many lines it has
        self._physical = 0  # where the last of them begins
        self._looked = False  # whether a trigger was looked for in the logical line
        self._woken = False  # whether a check has a window in it
        self._anything = Finder(plan.any_of)  # to see at once that no check has a trigger
        self._any_from = 0
        self._watches = [Watch(order, Finder(triggers)) for order, triggers in enumerate(plan.triggers)]
        self._led = {
            order: Watch(order, Finder(leads)) for order, leads in enumerate(plan.spoken) if leads.behind
        }  # in prose in place of the others
        self._all = [*self._watches, *self._led.values()]
        self._see(self._in_prose())
        self._fence: Fence | None = None
        self._block_at = 0  # where the part of the block begins that is not judged yet
        self._block_spots: list[Spot] = []
        self._cuts = Cuts(plan.rules)
        if code:
            self._enter(BARE, 0)

    @property
    def held(self) -> int:
        """How many characters wait."""
        return self._end - self._out

    @property
    def out(self) -> int:
        """Up to where the text was let go."""
        return self._out

    @property
    def end(self) -> int:
        return self._end

    @property
    def removed(self) -> list[tuple[int, int]] | None:
        """The places that were cut out of what was let go, once `tell_removed` was said."""
        return self._cuts.removed

    def tell_removed(self) -> None:
        self._cuts.removed = []

    def feed(self, piece: str) -> str:
        """What may be shown now."""
        if self.blocked is not None or not piece:
            return ""
        self._text += piece
        self._folded.add(piece, self._end)
        self._end += len(piece)
        self._walk()
        return self._let_go(self._safe()) if self.blocked is None else ""

    def finish(self) -> str:
        """The text is whole: the rest of what may be shown. Harmless when it is said twice."""
        if self.blocked is None:
            self._walk(final=True)
        if self.blocked is None and self._physical < self._end:
            if not self._is_plain(self._end):
                self._settle(self._end)
            self._end_line(self._end, self._end)
        if self.blocked is None and self._line < self._end:
            self._complete(self._end, self._end)
        if self.blocked is None and self._fence is not None:
            self._end_block(self._end)
        return self._let_go(self._end) if self.blocked is None else ""

    def drop(self) -> None:
        """Forget what waits: somebody else goes on from what was let go."""
        out = self._out
        self._judging.forget(self._place, out)
        self._cuts.clear()
        self._block_spots = []
        self._text = self._text[: out - self._base]
        self._folded = Folded(self._base)
        self._folded.add(self._text, self._base)
        self._end = self._sought = out
        if self._line > out:  # lines of a block that waited as a whole
            self._line = self._physical = out
        elif self._physical > out:
            ends = [match.end() for match in LINE_END.finditer(self._text, self._line - self._base)]
            self._lines = 1 + len(ends)
            self._physical = self._base + ends[-1] if ends else self._line
        self._anything = Finder(self._plan.any_of)
        self._any_from = self._line
        self._looked = True  # what was let go of the line is not judged again
        for watch in self._all:
            watch.finder = Finder(watch.finder.triggers)
            watch.at, watch.spots, watch.cut, watch.floor, watch.seen = None, [], -1, out, self._line

    # How the text is cut.

    def _walk(self, *, final: bool = False) -> None:
        while self.blocked is None and (found := self._line_end(final=final)) is not None:
            content, end = found
            if not self._is_plain(end):
                self._settle(end)
            if self.blocked is None:
                self._end_line(content, end)
        if self.blocked is not None:
            return
        if not self._is_plain(self._end):
            self._settle(self._end)
        elif self._plan.holds:
            self._look_ahead()

    def _is_plain(self, end: int) -> bool:
        """Whether nothing is due before the line is whole: it is no longer than one window."""
        if self._looked or end - self._line >= WINDOW:
            return False
        in_parts = self._fence is not None and (self._plan.blocks or self._plan.holds_blocks)
        return not in_parts or self._block_at + PART > end

    def _line_end(self, *, final: bool) -> tuple[int, int] | None:
        """Where the next line's text and the line end. A carriage return waits for what follows."""
        match = LINE_END.search(self._text, self._sought - self._base)
        if match is None:
            self._sought = self._end
            return None
        start, end = self._base + match.start(), self._base + match.end()
        if end == self._end and match[0] == "\r" and not final:
            self._sought = start
            return None
        self._sought = end
        return start, end

    def _end_line(self, content: int, end: int) -> None:
        line = self._slice(self._physical, content) if content - self._physical <= MOST_CHARS else ""
        fenced = "```" in line or "~~~" in line
        if fenced and self._fence is not None and closes(line, self._fence):
            self._end_pending(end)
            if self.blocked is None:
                self._end_block(self._physical)
                self._begin_line(end)
            return
        fence = opened(line) if fenced and self._fence is None else None
        if fence is not None:
            self._end_pending(end)
            if self.blocked is None:
                self._complete(content, end)
                self._enter(fence, end)
            return
        whole = line if self._line == self._physical else self._slice(self._line, content)
        short = self._lines < MOST_LINES and content - self._line < MOST_CHARS
        if short and line and goes_on(whole, code=self._fence is not None) and not line.isspace():
            self._lines += 1
            self._physical = end
            return
        self._complete(content, end)

    def _end_pending(self, end: int) -> None:
        """A fence ends a logical line that seemed to go on."""
        if self._line < self._physical:
            physical = self._physical
            self._complete(physical, physical)
            if self.blocked is None and not self._is_plain(end):
                self._settle(end)

    def _enter(self, fence: Fence, at: int) -> None:
        self._fence, self._block_at, self._block_spots = fence, at, []
        self._see([self._watches[order] for order in self._plan.lines_in(fence.language)])

    def _in_prose(self) -> list[Watch]:
        return [self._led.get(order, self._watches[order]) for order in self._plan.prose]

    def _see(self, watches: list[Watch]) -> None:
        """Those are the checks that see the lines that come."""
        self._now = watches
        self._holding = [watch for watch in watches if self._plan.rules[watch.order].holds]
        self._always = [watch for watch in self._now if watch.finder.triggers.everywhere]

    @property
    def _in_code(self) -> bool:
        return self._fence is not None

    # How it is judged.

    def _settle(self, end: int) -> None:
        """Judge what is settled by the text up to `end`, in the order in which it was."""
        self._look(end)
        while self.blocked is None:
            due, watch = end + 1, None
            for one in self._now:
                if one.at is not None and one.at + WINDOW < due:
                    due, watch = one.at + WINDOW, one
            if self._in_code and (self._plan.blocks or self._plan.holds_blocks) and self._block_at + PART < due:
                self._judge_part(self._block_at + PART)
            elif watch is not None:
                self._judge_window(watch, due)
                if watch.at is None:
                    self._wake(watch, end)
            else:
                return

    def _look_ahead(self) -> None:
        """Find where those that text waits for will look; the line is judged when it is whole."""
        for watch in self._holding:
            if watch.at is None and self._line < self._end:
                if watch.finder.triggers.everywhere:
                    self._wake_at_once(watch)
                else:
                    self._wake(watch, self._end)

    def _look(self, end: int) -> None:
        """Find the triggers before `end` of the checks that have no window yet."""
        self._looked = True
        for watch in self._always:
            if watch.at is None and self._line < end:
                self._wake_at_once(watch)
        found = self._anything.next(self._folded, max(self._any_from, self._line), self._end)
        if found is None:
            self._any_from = max(self._any_from, self._end - LONGEST)
        elif found < end:
            for watch in self._now:
                if watch.at is None:
                    self._wake(watch, end)
            self._any_from = max(self._any_from, end - LONGEST)  # what began there may be a longer one

    def _wake_at_once(self, watch: Watch) -> None:
        self._woken = True
        watch.near = watch.at = max(self._line, watch.floor)

    def _wake(self, watch: Watch, end: int) -> None:
        start = max(watch.seen, watch.floor, self._line)
        found = watch.finder.next(self._folded, start, self._end) if start < end else None
        if found is None or found >= end:
            watch.seen = max(start, end - LONGEST)
        else:
            self._woken = True
            watch.near = found
            behind = watch.finder.triggers.behind
            watch.at = max(found, watch.floor, self._line) if behind else self._edge(found, watch.floor)

    def _edge(self, at: int, floor: int) -> int:
        """Where a finding may begin whose trigger is there."""
        if self._in_code:
            return max(at - CODE_BEFORE, floor, self._line)
        return self._base + edge(self._text, at - self._base, max(floor, self._line) - self._base)

    def _judge_window(self, watch: Watch, end: int) -> None:
        """A window of a line that goes on behind it."""
        assert watch.at is not None  # noqa: S101  for mypy: it was due
        start = watch.at
        self._judge(watch, max(self._line, start - BEFORE), end, zone=start, until=start + STEP)
        if watch.spots:
            watch.run_on(self._slice(watch.cut, end))
        watch.floor, watch.at, watch.cut = start + STEP, start + STEP, end
        watch.spots = [spot for spot in watch.spots if spot.end > watch.floor]
        if watch.finder.triggers.everywhere:
            return
        while (found := watch.finder.next(self._folded, watch.near + 1, self._end)) is not None and found < watch.floor:
            watch.near = found
        if watch.near < watch.floor - BEFORE and not watch.spots:
            watch.at, watch.seen = None, watch.floor

    def _complete(self, content: int, end: int) -> None:
        """The logical line is whole: judge what is left of it, and begin the next."""
        if not self._looked:
            if self._line < content:
                self._judge_line(content, end)
            self._begin_line(end)
            return
        for watch in self._now:
            if watch.at is not None and watch.at < content and self.blocked is None:
                self._judge(watch, max(self._line, watch.at - BEFORE), content, zone=watch.at, until=end)
                if watch.spots:
                    watch.run_on(self._slice(watch.cut, content))
        self._begin_line(end)

    def _judge_line(self, content: int, end: int) -> None:
        """A line that no window of came before: one pass over it says which checks see it."""
        groups = self._plan.groups if self._in_code else self._plan.spoken_groups
        woken = groups.within(self._folded.between(self._line, end))
        if not woken:
            return
        excerpt = None
        for watch in self._now:
            if watch.order not in woken:
                continue
            if excerpt is None:
                language = self._fence.language if self._fence is not None else ""
                excerpt = Excerpt(self._slice(self._line, content), self._fence is not None, language)
            found = self._judging.inspect(watch.order, excerpt)
            if not found:
                continue
            if watch.at is None:
                self._wake(watch, end)
            if watch.at is not None and watch.at < content:
                self._take(watch, found, self._line, content, zone=watch.at, until=end)
                if self.blocked is not None:
                    return

    def _begin_line(self, at: int) -> None:
        self._line = self._physical = at
        self._lines = 1
        self._looked = False
        if not self._woken:
            return
        self._woken = False
        for watch in self._all:
            if watch.at is not None:
                watch.at, watch.cut, watch.spots = None, -1, []

    def _judge_part(self, end: int) -> None:
        start = self._block_at
        self._judge_block(start, end, until=start + PART_STEP)
        self._block_at = start + PART_STEP
        self._block_spots = [spot for spot in self._block_spots if spot.end > self._block_at]

    def _end_block(self, end: int) -> None:
        if self._block_at < end:
            self._judge_block(self._block_at, end, until=end)
        self._fence = None
        self._see(self._in_prose())

    def _judge_block(self, start: int, end: int, *, until: int) -> None:
        for order in self._plan.blocks:
            if self.blocked is None:
                watch = Watch(order, self._watches[order].finder, spots=self._block_spots)
                self._judge(watch, start, end, zone=start, until=until)

    def _judge(self, watch: Watch, start: int, end: int, *, zone: int, until: int) -> None:
        """Let a check see `start` to `end`, and take what it finds from `zone` to `until`."""
        language = self._fence.language if self._fence is not None else ""
        excerpt = Excerpt(self._slice(start, end), self._in_code, language)
        found = self._judging.inspect(watch.order, excerpt)
        if found:
            self._take(watch, found, start, end, zone=zone, until=until)

    def _take(  # noqa: PLR0913  an excerpt's place, and what of it counts
        self, watch: Watch, found: Sequence[Finding], start: int, end: int, *, zone: int, until: int
    ) -> None:
        """What a check found in `start` to `end`, from `zone` to `until`."""
        rule = self._plan.rules[watch.order]
        for finding in sorted(found, key=lambda one: one.start) if len(found) > 1 else found:
            first = min(max(start + finding.start, start), end)
            last = min(max(start + finding.end, first), end)
            if first >= until or last <= zone or (first < zone and watch.grown(first, last)):
                continue
            first = max(first, zone)
            spot = Spot(finding, rule.action_of(finding), not rule.observe, watch.order, first, last, self._place)
            watch.spots.append(spot)
            self._note(spot)
            if self.blocked is not None:
                return

    def _note(self, spot: Spot) -> None:
        self._judging.note(spot)
        if spot.action >= Action.CONFIRM:
            self.blocked = spot
        elif spot.action is Action.REDACT and spot.end > spot.start:
            self._cuts.add(spot)

    # How it is let go.

    def _safe(self) -> int:
        """Up to where no finding can begin any more that would cut something out."""
        plan, safe = self._plan, self._end
        if not plan.holds:
            return safe
        for watch in self._holding:
            if watch.at is not None:
                safe = min(safe, watch.at)
        if self._in_code and plan.holds_blocks:
            safe = min(safe, self._block_at)
        holding = plan.holding_code if self._in_code else plan.holding
        if holding.longest and self._line < self._end:
            safe = min(safe, self._edge(self._end, self._line))
        if holding.longest and self._line < safe:  # else all of the line waits
            first = holding.unfinished(self._folded, max(self._line, self._end - LONGEST))
            if first is not None:
                safe = min(safe, self._edge(first, self._line))
            if self._in_code:
                safe = min(safe, max(self._line, self._end - WINDOW))
        return max(safe, self._out)

    def _let_go(self, safe: int) -> str:
        if self._cuts:
            text = self._cuts.shown(self._out, safe, self._slice, may_grow=self._may_grow)
        else:
            text = self._slice(self._out, safe)
        self._out = max(self._out, safe)
        if len(self._text) > TRIM:
            self._forget()
        return text

    def _may_grow(self, spot: Spot) -> bool:
        return spot in self._block_spots or any(spot in watch.spots for watch in self._all)

    def _forget(self) -> None:
        """What lies so far back that nothing reaches it any more."""
        first = min([self._out, *(watch.at for watch in self._all if watch.at is not None)])
        if self._in_code and self._plan.blocks:
            first = min(first, self._block_at)
        first = max(first - KEPT, self._base)
        if first - self._base < KEPT:
            return
        self._text = self._text[first - self._base :]
        self._folded = Folded(first)
        self._folded.add(self._text, first)
        self._base = first

    def _slice(self, start: int, end: int) -> str:
        return self._text[max(start, self._base) - self._base : end - self._base]


def judged(plan: Plan, text: str, *, place: str = "", code: bool = False) -> tuple[Judging, str]:
    """A whole text: the account of it, and what may be shown."""
    judging = Judging(plan.rules)
    channel = Channel(plan, judging, place, code=code)
    shown = channel.feed(text)
    return judging, shown + channel.finish()
