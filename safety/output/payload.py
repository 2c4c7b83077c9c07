"""Whether an address carries something out: encoded text, sentences, a place that is to be filled in.

Who opens such an address, or shows such a picture, sends it. An address is judged by what stands in it; a reference
that is encrypted looks like any other reference.
"""

import base64
import binascii
import re
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote_plus

Cargo: TypeAlias = Literal["encoded", "sentence", "template", "named", "person", ""]
LEAST_ENCODED: Final = 20  # characters: shorter ones are ids
LEAST_WORDS: Final = 4
LEAST_LABEL: Final = 24  # of a host's first parts together, that could be text in base32
LEAST_PART: Final = 16  # of one of them: by chance a hexadecimal one reads as text once in 30,000
PRINTABLE: Final = 0.95
SIXTY_FOUR: Final = re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}")
HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){12,}")
THIRTY_TWO: Final = re.compile(r"(?i)[a-z2-7]{24,}={0,6}")
WHOLE_HEX: Final = re.compile(r"(?:[0-9a-f]{2}){8,}")
PLAIN: Final = re.compile(rb"[A-Za-z0-9 .,:;_@=/'\"{}()\n-]+")
SPLIT: Final = re.compile(r"[/?&;#=|,:]+")
PAIR: Final = re.compile(r"[?&;#]([^=&;#]+)=([^&;#]*)")
WORDS: Final = re.compile(r"(?<!\S)[^\W\d_]{2,}[,.;?!]?(?!\S)")
TEMPLATE: Final = re.compile(
    r"\{\{.{1,80}?\}\}|\$\{[^}]{1,80}\}|\{[a-zA-Z_][\w. -]{1,60}\}|\[[A-Z][A-Z_ -]{3,60}\]|<[A-Za-z_ -]{3,60}>|"
    r"%7B%7B|\{%|<%|"
    r"__[A-Z_]{3,40}__|\[[a-z]+[ _][a-z _]{2,60}\]|\b(?:INSERT|REPLACE|APPEND|ENCODED?|URLENCODED)_[A-Z_]+\b"
)
TEMPLATE_SIGN: Final = re.compile(r"[{\[<%_]")  # one of them is in each
TELLING: Final = re.compile(
    r"(?i)^(?:conversation|chat(?:_?(?:log|history|context))?|history|prompt|system_?prompt|secrets?|password|passwd|pwd|cookies?|exfil|"
    r"leak(?:ed)?|stolen|creds?|credentials?|api_?keys?|private_?key|ssn|memory|summary|transcript|messages?|user_?data|data|payload|dump|"
    r"env(?:ironment)?|loot|stuff|info|context|content|note|notes|answer|user_?input|input|question|d|q|p|c|m|x|t|text|msg|body|log)$"
)
SURE: Final = re.compile(
    r"(?i)^(?:conversation|chat_?(?:log|history|context)|system_?prompt|secrets?|password|passwd|cookies?|exfil|leak(?:ed)?|stolen|"
    r"creds?|credentials?|private_?key|user_?data|transcript|loot|api_?keys?)$"
)
PERSON: Final = re.compile(r"(?i)[\w.+-]+(?:@|%40)[\w-]+\.[a-z]{2,}|%7B%22|^\{\"|eyJ[\w-]{10,}\.eyJ")
SHORTEST: Final = 4


def cargo(host: str, domain: str, rest: str) -> Cargo:  # noqa: PLR0911  the first that fits counts
    """What an address carries, the surest sign first; empty for nothing that shows."""
    if is_template(rest) or is_template(host):
        return "template"
    plain = unquote_plus(rest)
    pieces = [piece for piece in SPLIT.split(plain) if len(piece) >= LEAST_ENCODED]
    pairs = PAIR.findall(rest) if "=" in rest else []
    if any(is_text(piece) for piece in pieces) or (pairs and is_text("".join(value for _, value in pairs))):
        return "encoded"
    below = host[: -len(domain)].replace(".", "") if domain and len(host) > len(domain) else ""
    if len(below) >= LEAST_LABEL and is_text(below.replace("-", "")):
        return "encoded"
    if len(below) >= LEAST_PART and any(map(is_named_text, host[: -len(domain)].split("."))):
        return "encoded"
    if _may_be_person(rest) and PERSON.search(rest) is not None:
        return "person"
    for name, value in pairs:
        if SURE.match(name) is not None and len(value) >= SHORTEST:
            return "named"
        said = unquote_plus(value)
        if TELLING.match(name) is not None and len(WORDS.findall(said)) >= LEAST_WORDS:
            return "sentence"
    if any(len(WORDS.findall(unquote_plus(value))) >= 2 * LEAST_WORDS for _, value in pairs):
        return "sentence"
    return ""


def is_template(text: str) -> bool:
    """Whether there is a place that is to be filled in."""
    return TEMPLATE_SIGN.search(text) is not None and TEMPLATE.search(text) is not None


def _may_be_person(rest: str) -> bool:
    return "@" in rest or "%" in rest or "{" in rest or "eyj" in rest.lower()


def is_text(piece: str) -> bool:
    """Whether it is readable text in base64, hex or base32."""
    for match in HEX.finditer(piece):
        if _reads(bytes.fromhex(match[0])):
            return True
    for match in SIXTY_FOUR.finditer(piece):
        if not match[0].isdigit() and _sixty_four(match[0]):
            return True
    match32 = THIRTY_TWO.fullmatch(piece)
    if match32 is not None:
        said = match32[0].rstrip("=").upper()
        try:
            return _reads(base64.b32decode(said + "=" * (-len(said) % 8)))
        except (binascii.Error, ValueError):
            return False
    return False


def is_named_text(label: str) -> bool:
    """Whether a part of a host, which has no capitals, is readable text in hexadecimal or base32."""
    if len(label) < LEAST_PART:
        return False
    try:
        if WHOLE_HEX.fullmatch(label):
            return _usual(bytes.fromhex(label))
        if THIRTY_TWO.fullmatch(label):
            return _usual(base64.b32decode(label.upper() + "=" * (-len(label) % 8)))
    except (binascii.Error, ValueError):
        pass
    return False


def _usual(data: bytes) -> bool:
    """Whether bytes are plain letters, digits and what stands between them, every one."""
    return PLAIN.fullmatch(data) is not None


def _sixty_four(text: str) -> bool:
    said = text.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    said = said[: len(said) - 1] if len(said) % 4 == 1 else said
    try:
        return _reads(base64.b64decode(said + "=" * (-len(said) % 4)))
    except (binascii.Error, ValueError):
        return False


def _reads(data: bytes) -> bool:
    """Whether bytes are text: printable, and no letters by chance."""
    try:
        said = data.decode()
    except UnicodeDecodeError:
        return False
    shown = sum(c.isprintable() or c in "\r\n\t" for c in said)
    usual = sum(c.isalnum() or c in " .,:;_@=/-'\"{}()\n" for c in said)
    return len(said) >= 2 * LEAST_ENCODED // 3 and shown >= PRINTABLE * len(said) and usual >= PRINTABLE * len(said)
