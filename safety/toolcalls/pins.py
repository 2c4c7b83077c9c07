"""Tools whose description changed: what a model is told a tool does is data of whoever serves the tool.

A tool is what its name, description and schema say, as a SHA-256. What a policy pins counts first; else the first
version that a caller sent is remembered, in this process, for a bounded number of callers and tools.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from conclave.safety.api import Finding, Severity
from conclave.safety.toolcalls.api import NAME, Tool

MOST_CALLERS: Final = 5_000
MOST_TOOLS: Final = 256  # of one caller
CHANGED: Final = "toolcall.changed_description"
REMEDY: Final = "Read the new description; if it is right, pin it: `tools.pins` in the policy."


def digest_of(tool: Tool) -> str:
    """The SHA-256 (hex) of what the tool says of itself."""
    said = [tool.name, tool.description, tool.parameters]
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()


class Pins:
    """What callers' tools were when they were first seen."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str | None], dict[str, str]] = OrderedDict()
        self._lock = threading.Lock()

    def changed(
        self, tools: Sequence[Tool], pinned: Mapping[str, str], *, tenant: str, key_id: str | None
    ) -> Sequence[Finding]:
        """The tools that are not what was pinned (high), or not what this caller's first were (medium)."""
        found: list[Finding] = []
        with self._lock:
            known = self._seen.setdefault((tenant, key_id), {})
            self._seen.move_to_end((tenant, key_id))
            if len(self._seen) > MOST_CALLERS:
                self._seen.popitem(last=False)
            for tool in tools:
                digest = digest_of(tool)
                if tool.name in pinned:
                    if digest != pinned[tool.name]:
                        found.append(_changed(tool, Severity.HIGH))
                elif known.get(tool.name, digest) != digest:
                    found.append(_changed(tool, Severity.MEDIUM))
                elif len(known) < MOST_TOOLS:
                    known[tool.name] = digest
        return found


def _changed(tool: Tool, severity: Severity) -> Finding:
    place = f"{tool.place}.description"
    return Finding(NAME, CHANGED, severity, 1.0, place, 0, len(tool.description), remedy=REMEDY)
