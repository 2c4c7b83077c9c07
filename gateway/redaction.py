"""Puts other texts in the places of a request that were read from them. Copies what changes, and nothing else."""

import re
from collections.abc import Mapping
from typing import Any, Final

from conclave.safety.api import INSIDE
from conclave.safety.boundary.segments import TEXT_PARTS

STEP: Final = re.compile(r"[^.\[\]]+|\[(\d+)\]")  # `messages[2].content[0]`: a key or an index


def replaced(body: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """The body with the text at each place (as a Segment names it) replaced.

    What was read out of a file takes the place of the file; what stood beside an image's pixels went with it already.
    """
    changed: Any = dict(body)
    for place, text in texts.items():
        steps = [int(match[1]) if match[1] else match[0] for match in STEP.finditer(place.removesuffix(INSIDE))]
        changed = _with(changed, steps, text)
    built: dict[str, Any] = changed
    return built


def _with(value: Any, steps: list[str | int], text: str) -> Any:
    if not steps:
        if isinstance(value, str):
            return text
        if value["type"] in TEXT_PARTS:
            return {**value, TEXT_PARTS[value["type"]]: text}
        return {"type": "text", "text": text} if value["type"] == "file" else value
    step, *rest = steps
    if isinstance(value, list):
        assert isinstance(step, int)  # noqa: S101  for mypy: places are made by the reader of this very body
        return [*value[:step], _with(value[step], rest, text), *value[step + 1 :]]
    return {**value, step: _with(value[step], rest, text)}
