"""The arguments of one tool call of an answer: gathered until they are whole, and judged as what they say.

JSON is read, and every string in it is a text of its own, keys too; what a check cuts out is cut out of the string, and
what is sent on is JSON again. What is no JSON is judged as it is written. Without a reason to wait, the pieces pass.
"""

import json
from collections.abc import Callable
from typing import Any, Final

from conclave.safety.api import Finding
from conclave.safety.output.api import Restorer
from conclave.safety.output.judging import Judging
from conclave.safety.output.plan import Plan
from conclave.safety.output.stream import Channel

MOST_CHARS: Final = 1_048_576  # that are read as JSON; more is judged as it is written
KEY_CHARS: Final = 64  # of a key in a finding's place
MakeRestorer = Callable[[], Restorer]


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with every pair of it: which of two equal keys counts is for its reader to say."""


class Arguments:
    """`note` and `feed` what comes of a call, then `finish` it; `blocked` is the finding that stops it."""

    __slots__ = ("_judging", "_pieces", "_place", "_plan", "_waits", "blocked", "call_id", "name", "path")

    def __init__(self, path: tuple[str | int, ...], place: str, judging: Judging, plan: Plan, *, waits: bool) -> None:
        self.path = path
        self.name = self.call_id = ""
        self.blocked: Finding | None = None
        self._place = place
        self._judging = judging
        self._plan = plan
        self._waits = waits
        self._pieces: list[str] = []

    @property
    def written(self) -> str:
        """As the model wrote them."""
        return "".join(self._pieces)

    def note(self, name: object, call_id: object) -> None:
        """What the call is called: said once, or with each piece."""
        self.name = name if isinstance(name, str) and name else self.name
        self.call_id = call_id if isinstance(call_id, str) and call_id else self.call_id

    def feed(self, piece: str) -> str:
        """What may go on now."""
        if piece:
            self._pieces.append(piece)
        return "" if self._waits else piece

    def finish(self, restorer: MakeRestorer | None = None) -> str:
        """The call is whole: what was held of it, with values put back; empty once it is `blocked`."""
        written = self.written
        try:
            read = json.loads(written, object_pairs_hook=_Pairs) if len(written) <= MOST_CHARS else None
        except (ValueError, RecursionError):
            read = None
        if isinstance(read, str | list):
            changed = self._value(read, self._place, restorer)
            said = written if changed is read else json.dumps(changed, ensure_ascii=False, default=str)
        else:
            said = self._string(written, self._place, restorer)
        return said if self._waits and self.blocked is None else ""

    def close(self) -> None:
        """Judge what came of it."""
        self.finish()

    def _value(self, value: Any, place: str, restorer: MakeRestorer | None) -> Any:
        """The same object if nothing changed."""
        if isinstance(value, str):
            return self._string(value, place, restorer)
        if isinstance(value, _Pairs):
            pairs = [
                (self._string(key, place, None), self._value(inner, f"{place}.{key[:KEY_CHARS]}", restorer))
                for key, inner in value
            ]
            same = all(new[0] is old[0] and new[1] is old[1] for new, old in zip(pairs, value, strict=True))
            return value if same else dict(pairs)
        if isinstance(value, list):
            items = [self._value(item, f"{place}[{at}]", restorer) for at, item in enumerate(value)]
            return value if all(new is old for new, old in zip(items, value, strict=True)) else items
        return value

    def _string(self, text: str, place: str, restorer: MakeRestorer | None) -> str:
        if self.blocked is not None or not text:
            return text
        channel = Channel(self._plan, self._judging, place, code=True)
        said = channel.feed(text)
        said += channel.finish()
        if channel.blocked is not None:
            self.blocked = channel.blocked.told()
            return text
        if restorer is not None:
            one = restorer()
            said = one.feed(said)
            said += one.finish()
        return text if said == text else said
