"""The tool calls of a conversation since its user last spoke. Reads whatever a client may send; raises nothing."""

from collections.abc import Collection, Iterator, Mapping
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Any, Final

import msgspec

EXACT: Final = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
WHOLE_DIGITS: Final = 32  # whole numbers up to this length are written out: `1e4000` is short, its digits are not


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
    """Arguments in one spelling: the same for JSON of the same value, whatever its spaces, order and numbers' form."""
    if not isinstance(arguments, str):
        arguments = ""
    try:
        return ENCODER.encode(DECODER.decode(arguments))
    except (msgspec.DecodeError, ArithmeticError, UnicodeError, RecursionError):
        return arguments.strip().encode("utf-8", "surrogatepass")


def _number(written: str) -> int | Decimal:
    """`0.0` is 0 and `1e3` is 1000. Exact, at 1 us: a person who let one amount pass let no other pass."""
    value = EXACT.normalize(Decimal(written))
    return int(value) if value.adjusted() < WHOLE_DIGITS and value == value.to_integral_value() else value


DECODER: Final = msgspec.json.Decoder(float_hook=_number)
ENCODER: Final = msgspec.json.Encoder(order="deterministic", decimal_format="number")


def past_calls(messages: object) -> list[tuple[str, bytes]]:
    """All calls since the user spoke that have an answer; those of the newest turn without one do not count."""
    found: list[tuple[str, bytes]] = []
    answered = False
    for message in since_user(messages) if isinstance(messages, list) else ():
        answered |= message.get("role") in {"tool", "function"}
        if answered:
            found += [(name, spelt(arguments)) for name, arguments in calls_of(message)]
    return found
