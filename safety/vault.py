"""Placeholders for what an expert need not see, and the way back: `[EMAIL_K3FQ7ZAB]` for an address.

A placeholder's code is a keyed hash of kind and value. So nobody without the key can learn the value from it, the same
value has the same placeholder in every turn of a conversation (a provider's prompt cache still hits), and two
conversations share none. The values stay in memory, for as long as the vault does: one call. What is replaced, and in
which texts placeholders are restored, is for the caller to say.

The form is chosen so that it survives: capitals, digits and an underscore are copied like the name of a constant, and
neither JSON nor HTML nor Markdown writes any of these characters in another way (`<` is `\\u003c` in Go's JSON).
"""

import base64
import hashlib
import re
from typing import Final

import msgspec

CODE_CHARS: Final = 8  # 40 bits; two values that share one are told apart by `_made`
LABEL_CHARS: Final = 24
PLACEHOLDER: Final = re.compile(rf"\[[A-Z][A-Z_]{{0,{LABEL_CHARS - 1}}}_[A-Z2-7]{{{CODE_CHARS}}}\]")
MOST_CHARS: Final = LABEL_CHARS + CODE_CHARS + 3  # of a placeholder: what a stream holds back at most
BEGUN: Final = re.compile(r"\[[A-Z2-7_]*\Z")  # how the end of a chunk looks if a placeholder may have begun there
KEY_BYTES: Final = (16, hashlib.blake2b.MAX_KEY_SIZE)


class Vault:
    """The placeholders of one conversation. `key` is its secret: 16 bytes at least, of this conversation alone."""

    __slots__ = ("_keyed", "_made", "_values")

    def __init__(self, key: bytes) -> None:
        least, most = KEY_BYTES
        if not least <= len(key) <= most:
            raise ValueError(f"a vault's key has {least} to {most} bytes, not {len(key)}")
        self._keyed = hashlib.blake2b(key=key, digest_size=CODE_CHARS * 5 // 8)
        self._values: dict[str, str] = {}
        self._made: dict[tuple[str, str], str] = {}

    def __repr__(self) -> str:
        return f"Vault({len(self._values)} values)"

    def __len__(self) -> int:
        return len(self._values)

    def placeholder(self, value: str, *, label: str) -> str:
        """What stands for a value; it is remembered, so that it can be restored."""
        shown = re.sub("[^A-Z]+", "_", label.upper())[:LABEL_CHARS].strip("_") or "VALUE"
        known = self._made.get((shown, value))
        if known is not None:
            return known
        hashed = self._keyed.copy()
        hashed.update(f"{shown}\0{value}".encode("utf-8", "surrogatepass"))
        made = _written(shown, hashed.digest())
        while made in self._values:  # once in 10^6 vaults of 1,000 values
            hashed.update(b"\0")
            made = _written(shown, hashed.digest())
        self._values[made] = value
        self._made[shown, value] = made
        return made

    def restore(self, text: str, *, in_json: bool = False) -> str:
        """The text with this vault's placeholders turned back; others stay. `in_json`: within a JSON document's text,
        where a value's quotes and line ends are escaped.
        """

        def value(match: re.Match[str]) -> str:
            kept = self._values.get(match[0])
            if kept is None:
                return match[0]
            return escaped(kept) if in_json else kept

        return PLACEHOLDER.sub(value, text) if "[" in text else text


class Restorer:
    """Restores a stream: `feed` each chunk, `finish` at its end. Together they give what `restore` gives of the whole.

    At most a placeholder's length is held back, and only behind a `[` that may be the start of one.
    """

    __slots__ = ("_held", "_in_json", "_vault")

    def __init__(self, vault: Vault, *, in_json: bool = False) -> None:
        self._vault = vault
        self._in_json = in_json
        self._held = ""

    def feed(self, text: str) -> str:
        """What can be sent on now; empty if all of it waits for more."""
        text = self._held + text
        begun = BEGUN.search(text, max(0, len(text) - MOST_CHARS + 1))  # one that is whole is not held
        ready, self._held = (text[: begun.start()], text[begun.start() :]) if begun else (text, "")
        return self._vault.restore(ready, in_json=self._in_json)

    def finish(self) -> str:
        """What was held back: no placeholder, for it never ended."""
        held, self._held = self._held, ""
        return held


def _written(label: str, digest: bytes) -> str:
    return f"[{label}_{base64.b32encode(digest).decode()}]"


def escaped(value: str) -> str:
    """A value as it stands between the quotes of a JSON string; a lone surrogate as its escape."""
    pieces = re.split("([\ud800-\udfff])", value)
    return "".join(
        f"\\u{ord(piece):04x}" if at % 2 else msgspec.json.encode(piece).decode()[1:-1]
        for at, piece in enumerate(pieces)
    )


def unescaped(value: str) -> str:
    """The other way; what is no part of a JSON string stays as it is."""
    if "\\" not in value:
        return value
    try:
        said: str = msgspec.json.decode(f'"{value}"'.encode("utf-8", "surrogatepass"), type=str)
    except (msgspec.DecodeError, UnicodeError):
        return value
    return said
