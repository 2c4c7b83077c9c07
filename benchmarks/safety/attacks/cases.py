"""The suite as requests: what an application would send that was attacked so. The data is `suite.yaml`."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from benchmarks.safety.attacks.encodings import image, written

SUITE: Final = Path(__file__).with_name("suite.yaml")
HONEST: Final = Path(__file__).with_name("honest.yaml")
QUESTION: Final = "What does it say, in one sentence?"  # of an honest user, about data
DECLARED: Final = frozenset({"retrieved", "memory"})
MEDIA: Final = {"txt": "text/plain", "csv": "text/csv", "html": "text/html", "md": "text/markdown"}
Kind = Literal["structural", "semantic", "not-text"]


@dataclass(frozen=True, slots=True)
class Case:
    """One attack: the class that it belongs to, and the body of the request."""

    about: str
    kind: Kind
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Suite:
    """All cases, and the orders as they are: what the detectors say of those is the ground that the rest stands on."""

    cases: tuple[Case, ...]
    plain: tuple[Case, ...]
    reasons: Mapping[str, str]  # of classes that are no text

    @property
    def kinds(self) -> dict[str, Kind]:
        """Each class with its kind, in the suite's order."""
        return {case.about: case.kind for case in self.cases}


def load(path: Path = SUITE) -> Suite:
    """The suite."""
    said = yaml.safe_load(path.read_text())
    orders, system = said["orders"], said["system"]
    cases = [
        Case(one["name"], one["kind"], body_of(case, system, orders))
        for one in said["classes"]
        for case in one["cases"]
    ]
    plain = tuple(Case("plain orders", "structural", body_of(order, system, orders)) for order in orders)
    reasons = {one["name"]: one["reason"] for one in said["classes"] if "reason" in one}
    return Suite(tuple(cases), plain, reasons)


def honest(path: Path = HONEST) -> tuple[Case, ...]:
    """The honest requests; `about` is their kind."""
    system = yaml.safe_load(SUITE.read_text())["system"]
    return tuple(
        Case(kind, "structural", body_of(_asked(frame.replace("{}", fill, 1)), system))
        for kind, said in yaml.safe_load(path.read_text()).items()
        for frame in said["frames"]
        for fill in said["fills"]
    )


def _asked(text: str) -> str | list[dict[str, str]]:
    """`tool|TEXT` as a question about data, `turns|ONE|TWO` as turns, anything else as one message."""
    what, _, rest = text.partition("|")
    if what == "turns":
        return [{"user": turn} for turn in rest.split("|")]
    return [{"user": QUESTION}, {what: rest}] if what in {"tool", "file", *DECLARED} else text


def body_of(case: str | Sequence[Mapping[str, str]], system: str, orders: Sequence[str] = ()) -> dict[str, Any]:
    """The request of a case."""
    steps = [{"user": case}] if isinstance(case, str) else case
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
    origins: dict[str, str] = {}
    for step in steps:
        about = {key: written(str(text), orders) for key, text in step.items()}
        what = next(iter(about))
        if what in {"user", "assistant", "system"}:
            _talk(messages, what, about)
        elif what == "call":
            name, _, arguments = about["call"].partition("|")
            _talk(messages, "assistant", {"assistant": None, "call": _call(name, arguments)})
        elif what == "tool":
            if "tool_calls" not in messages[-1]:
                _talk(messages, "assistant", {"assistant": None, "call": _call("look", "{}")})
            messages.append({"role": "tool", "tool_call_id": "call_1", "content": about["tool"]})
        else:
            parts = _parts_of(messages[-1])
            if what in DECLARED:
                origins[f"messages[{len(messages) - 1}].content[{len(parts)}]"] = what
            parts.append(_part(what, about[what]))
    body: dict[str, Any] = {"model": "auto", "messages": messages}
    return body | ({"conclave": {"origins": origins}} if origins else {})


def _talk(messages: list[dict[str, Any]], role: str, about: Mapping[str, Any]) -> None:
    if role == "user" and messages[-1]["role"] == "user":
        messages.append({"role": "assistant", "content": "Understood."})
    message = {"role": role, "content": about[role]}
    if about.get("call"):
        message["tool_calls"] = [about["call"]]
    if about.get("name"):
        message["name"] = about["name"]
    messages.append(message)


def _call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def _parts_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    if isinstance(message["content"], str):
        message["content"] = [{"type": "text", "text": message["content"]}]
    found: list[dict[str, Any]] = message["content"]
    return found


def _part(what: str, said: str) -> dict[str, Any]:
    name, _, rest = said.partition("|")
    if what == "image":
        media_type, data = image(name, rest)
        url = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
        return {"type": "image_url", "image_url": {"url": url}}
    if what == "audio":
        return {
            "type": "input_audio",
            "input_audio": {"format": name, "data": base64.b64encode(rest.encode()).decode()},
        }
    if what == "file":
        url = f"data:{MEDIA[name.rpartition('.')[2]]};base64,{base64.b64encode(rest.encode()).decode()}"
        return {"type": "file", "file": {"filename": name, "file_data": url}}
    return {"type": "text", "text": said}
