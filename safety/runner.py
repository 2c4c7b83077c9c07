"""Runs the checks of a policy over a request, in the order in which the policy lists them. One loop.

The runner, not the check, applies `on_error` and `timeout_s`, and says which check failed or was late. What a check
found in a text is remembered under a keyed hash of tenant, origin and text, so that a conversation that is sent again
costs only its last turn. It never logs, counts or raises for what a check does.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from conclave.safety.api import Action, Check, Finding, Segment, Severity, View, tool_of
from conclave.safety.verdict import OnError, Ran, Verdict, consequence

REMEMBERED: Final = 4_096  # texts; with 3 checks and few findings about 2 MB
CHECK_FAILED: Final = "check_failed"  # the kind of a finding that stands for a check's own failure
MOST_FINDINGS: Final = 64  # of one check in one text: more say nothing new

ViewsOf = Callable[[Segment], Sequence[View]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A check as policy uses it. With `observe` its findings are noted, and nothing follows from them.

    Findings milder than `from_severity` are annotated at most.
    """

    check: Check
    action: Action
    observe: bool = False
    on_error: OnError = "block"
    timeout_s: float = 1.0
    from_severity: Severity = Severity.LOW


class Memo:
    """What checks found in texts, the most recent ones. `key` keeps the hashes from being guessed."""

    def __init__(self, key: bytes, *, size: int = REMEMBERED) -> None:
        self._keyed = hashlib.blake2b(key=key, digest_size=16)
        self._size = size
        self._found: OrderedDict[bytes, tuple[Finding, ...]] = OrderedDict()
        self._lock = threading.Lock()  # large requests are looked at in threads

    def name_of(self, rules: str, tenant: str, segment: Segment) -> bytes:
        """The hash under which findings in this segment's text are remembered; `rules` names the checks' versions."""
        hashed = self._keyed.copy()
        for part in (rules, tenant, segment.origin):
            hashed.update(part.encode("utf-8", "surrogatepass"))
            hashed.update(b"\0")
        hashed.update(segment.text.encode("utf-8", "surrogatepass"))
        return hashed.digest()

    def name_of_tool(self, rules: str, tenant: str, tool: str, segments: Sequence[Segment]) -> bytes:
        """The hash of all that the tool at the place `tool` says of itself, wherever it stands among others."""
        start = len(tool)
        said = [f"{one.place[start:]} {len(one.text)} {one.text}" for one in segments]  # lengths: no two are the same
        hashed = self._keyed.copy()
        hashed.update(f"{rules}\0{tenant}\0offered\0{''.join(said)}".encode("utf-8", "surrogatepass"))
        return hashed.digest()

    def get(self, name: bytes) -> tuple[Finding, ...] | None:
        """What was found, if it is still known."""
        with self._lock:
            found = self._found.get(name)
            if found is not None:
                self._found.move_to_end(name)
            return found

    def put(self, name: bytes, found: tuple[Finding, ...]) -> None:
        """Remember, and forget the oldest."""
        with self._lock:
            self._found[name] = found
            if len(self._found) > self._size:
                self._found.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Runner:
    """The checks of one policy version. `version` names them and their artifacts: another version, other findings."""

    rules: tuple[Rule, ...]
    version: str
    views_of: ViewsOf
    memo: Memo
    now_s: Callable[[], float] = time.perf_counter

    def action_of(self, finding: Finding) -> Action:
        """What policy does about a finding."""
        rule = next(rule for rule in self.rules if rule.check.name == finding.check)
        return consequence(rule.action, finding, from_severity=rule.from_severity)

    def screen(self, segments: Iterable[Segment], *, tenant: str) -> Verdict:
        """What the checks say of a request. Blocks for as long as they take; pure but for what is remembered."""
        spent = dict.fromkeys((rule.check.name for rule in self.rules), 0.0)
        errors: dict[str, str] = {}
        found: list[Finding] = []
        for tool, group in groupby(segments, _tool):
            if tool:
                found += self._inspected_tool(tool, list(group), tenant, spent, errors)
                continue
            for segment in group:
                found += self._inspected(segment, tenant, spent, errors)
        acts = {rule.check.name for rule in self.rules if not rule.observe}
        acted = tuple(one for one in found if one.check in acts)
        action = max(map(self.action_of, acted), default=Action.ALLOW)
        ran = tuple(
            Ran(name, ms=1e3 * spent[name], late=spent[name] > rule.timeout_s, error=errors.get(name))
            for rule in self.rules
            for name in (rule.check.name,)
        )
        return Verdict(action, tuple(found), acted, ran, would=max(map(self.action_of, found), default=Action.ALLOW))

    def _inspected(
        self, segment: Segment, tenant: str, spent: dict[str, float], errors: dict[str, str]
    ) -> tuple[Finding, ...]:
        name = self.memo.name_of(self.version, tenant, segment)
        known = self.memo.get(name)
        if known is not None:
            return tuple(replace(finding, place=segment.place) for finding in known)
        found, sound = self._looked_at(segment, spent, errors)
        if sound:
            self.memo.put(name, tuple(found))
        return tuple(found)

    def _inspected_tool(
        self, tool: str, segments: Sequence[Segment], tenant: str, spent: dict[str, float], errors: dict[str, str]
    ) -> tuple[Finding, ...]:
        """As `_inspected`, of all texts of one offered tool: they come again with every turn, and are one memory."""
        name = self.memo.name_of_tool(self.version, tenant, tool, segments)
        known = self.memo.get(name)
        if known is not None:
            return tuple(replace(finding, place=f"{tool}{finding.place}") for finding in known)
        looks = [self._looked_at(segment, spent, errors) for segment in segments]
        found = [finding for one, _ in looks for finding in one]
        if all(sound for _, sound in looks):
            self.memo.put(name, tuple(replace(one, place=one.place[len(tool) :]) for one in found))
        return tuple(found)

    def _looked_at(
        self, segment: Segment, spent: dict[str, float], errors: dict[str, str]
    ) -> tuple[list[Finding], bool]:
        """What the checks find, and whether none of them failed."""
        views = self.views_of(segment)
        found: list[Finding] = []
        sound = True
        for rule in self.rules:
            if segment.origin not in rule.check.origins:
                continue
            started_s = self.now_s()
            try:
                found += inspected(rule.check, views)
            except Exception as error:  # noqa: BLE001  a check's own edge: policy says what its failure means
                sound = False
                errors[rule.check.name] = type(error).__name__
                if rule.on_error == "block":
                    found.append(_failure(rule.check.name, segment))
            spent[rule.check.name] += self.now_s() - started_s
        return found, sound


def _tool(segment: Segment) -> str:
    return "" if segment.place.startswith("messages") else tool_of(segment.place)


def inspected(check: Check, views: Sequence[View]) -> list[Finding]:
    """What a check finds in the views of a text. One that has `inspect_all` is shown all at once: that is quicker."""
    shown = views if check.decodes else views[:1]
    every: Callable[[Sequence[View]], Sequence[Finding]] | None = getattr(check, "inspect_all", None)
    if every is not None:
        return list(every(shown))
    return [found for view in shown for found in check.inspect(view)[:MOST_FINDINGS]]


def _failure(check: str, segment: Segment) -> Finding:
    """A check that could not look stands for what it might have found."""
    return Finding(
        check=check,
        kind=CHECK_FAILED,
        severity=Severity.HIGH,
        confidence=1.0,
        place=segment.place,
        start=0,
        end=len(segment.text),
    )
