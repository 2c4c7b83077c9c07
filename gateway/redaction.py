"""Puts other texts in the places of a request that were read from them. Copies what changes, and nothing else."""

import re
from collections.abc import Mapping
from typing import Any, Final

from conclave.safety.api import INSIDE
from conclave.safety.boundary.segments import TEXT_PARTS

STEP: Final = re.compile(  # `messages[2].content[0]`: a key, an index, or which key of an object it is: `properties{3}`
    r"[^.\[\]{}<>]+|\[(\d+)\]|\{(\d+)\}"
)
NAME: Final = re.compile(r"<(\d+)>$")  # ends the place of a key itself: `properties<3>` is what the fourth is called


def replaced(body: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """The body with the text at each place (as a Segment names it) replaced.

    What was read out of a file takes the place of the file; what stood beside an image's pixels went with it already.
    """
    changed: Any = dict(body)
    names = [place for place in texts if NAME.search(place)]
    for place in [*(one for one in texts if one not in names), *reversed(names)]:  # last: other places count keys
        named, text = NAME.search(place), texts[place]
        path = place.removesuffix(INSIDE)[: named.start() if named else None]
        steps = [int(at) if (at := match[1] or match[2]) else match[0] for match in STEP.finditer(path)]
        changed = _with(changed, steps, text, name=int(named[1]) if named else None)
    built: dict[str, Any] = changed
    return built


def _with(value: Any, steps: list[str | int], text: str, *, name: int | None = None) -> Any:
    """The value with the text below these steps; with `name` as what the key of that number is called there."""
    if not steps:
        if name is not None:
            return {text if at == name else key: inner for at, (key, inner) in enumerate(value.items())}
        return _instead(value, text)
    step, *rest = steps
    if isinstance(value, list):
        assert isinstance(step, int)  # noqa: S101  for mypy: places are made by the reader of this very body
        return [*value[:step], _with(value[step], rest, text, name=name), *value[step + 1 :]]
    key = list(value)[step] if isinstance(step, int) else step
    return {**value, key: _with(value[key], rest, text, name=name)}


def _instead(value: Any, text: str) -> Any:
    """What stands in the place of a text, of words that were read together, or of a part."""
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return text.split("\n")
    if value["type"] in TEXT_PARTS:
        return {**value, TEXT_PARTS[value["type"]]: text}
    return {"type": "text", "text": text} if value["type"] == "file" else value
