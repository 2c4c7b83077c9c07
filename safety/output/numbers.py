"""Hosts that are numbers: dotted, in one piece, hexadecimal, octal, or of version 6, as browsers and curl read them."""

import ipaddress
import re
from typing import Final, NamedTuple

NUMBERS: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}")
PLAIN: Final = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")
PUBLIC: Final = frozenset(
    {"1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9", "208.67.222.222"}
)  # everybody's names
PARTS: Final = 4
MOST_DIGITS: Final = 40


class Number(NamedTuple):
    """`private`: nobody else's, or reserved for documents; `hidden`: written so that nobody knows it for an address."""

    private: bool
    hidden: bool


def number_of(host: str) -> Number | None:  # noqa: PLR0911  the first that fits counts
    """The address that a host is; None for a name."""
    if ":" in host or host.startswith("["):
        try:
            six = ipaddress.IPv6Address(host.strip("[]").partition("%")[0])
        except ValueError:
            return None
        four = six.ipv4_mapped
        return Number(not (four or six).is_global, hidden=four is not None and four.is_global)
    if len(host) > MOST_DIGITS or NUMBERS.fullmatch(host) is None:
        return None
    value = _value(host)
    if value is None:
        return None
    if PLAIN.fullmatch(host) is not None:
        return Number(host in PUBLIC or not ipaddress.IPv4Address(value).is_global, hidden=False)
    short = "." in host or value < 1 << 24  # a bare small number is a version or a port, not a hidden address
    if short and not host.startswith("0") and "x" not in host and host.count(".") < PARTS - 1:
        return None
    return Number(not ipaddress.IPv4Address(value).is_global, hidden=True)


def _value(host: str) -> int | None:
    """What the parts make together; the last one fills what is left (WHATWG URL, IPv4 parser)."""
    try:
        parts = [_part(part) for part in host.split(".")]
    except ValueError:
        return None
    if any(part > 255 for part in parts[:-1]) or parts[-1] >= 256 ** (PARTS + 1 - len(parts)):  # noqa: PLR2004  bytes
        return None
    value = parts[-1]
    for place, part in enumerate(parts[:-1]):
        value += part * 256 ** (PARTS - 1 - place)
    return value


def _part(digits: str) -> int:
    if digits.startswith("0x"):
        return int(digits[2:] or "0", 16)
    return int(digits, 8) if digits.startswith("0") and len(digits) > 1 else int(digits)
