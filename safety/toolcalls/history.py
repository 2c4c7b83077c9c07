"""The tool calls of a conversation since its user last spoke. Reads whatever a client may send; raises nothing."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec


def since_user(messages: Collection[object]) -> Iterator[dict[str, Any]]:
    """The messages after the user's last one, the newest first."""
    for message in reversed(list(messages)):
        if isinstance(message, dict):
            if message.get("role") == "user":
                return
            yield message


def calls_of(message: Mapping[str, Any]) -> list[tuple[str, object]]:
    """The calls that an assistant made in a message: the tool, and its arguments as they were written."""
    said = message.get("tool_calls")
    calls = [call for call in said if isinstance(call, dict)] if isinstance(said, list) else []
    inner = [call.get("function") or call.get("custom") for call in calls] + [message.get("function_call")]
    return [(str(one.get("name")), one.get("arguments", one.get("input"))) for one in inner if isinstance(one, dict)]


def spelt(arguments: object) -> bytes:
    """Arguments in one spelling: the same for the same JSON."""
    if not isinstance(arguments, str):
        arguments = ""
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments), order="deterministic")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return arguments.strip().encode("utf-8", "surrogatepass")


def past_calls(messages: object) -> list[tuple[str, bytes]]:
    """All calls since the user spoke that have an answer; those of the newest turn without one do not count."""
    found: list[tuple[str, bytes]] = []
    answered = False
    for message in since_user(messages) if isinstance(messages, list) else ():
        answered |= message.get("role") in {"tool", "function"}
        if answered:
            found += [(name, spelt(arguments)) for name, arguments in calls_of(message)]
    return found
