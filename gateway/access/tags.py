"""Request tags: a few short words that a client ties to a call, to find it by in the record and to count it by.

They come in the header `x-conclave-tags: team=search, env=prod` and in the body's `conclave.tags`, which wins where
both name a tag. They are checked here, stand in the record in clear, and are never sent to an expert. Raises
InvalidRequest for what is not a tag: a typing error must not make calls vanish from somebody's bill.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import InvalidRequest

HEADER: Final = "x-conclave-tags"
EXTENSION: Final = "conclave"  # the field of a body that is Conclave's own
IN_BODY: Final = f"{EXTENSION}.tags"
KNOWN: Final = ("tags", "conversation", "origins", "scope", "confirmed", "retrieval", "moe")  # the keys of that field
CONVERSATION_CHARS: Final = 256  # of a conversation's name
MOST: Final = 8
MOST_CHARS: Final = 64  # of a key that is not known, in the answer
NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
VALUE: Final = re.compile(r"[!-~](?:[ -~]{0,62}[!-~])?")
VALUE_IN_HEADER: Final = re.compile(r"[!-+\--~](?:[ -+\--~]{0,62}[!-+\--~])?")  # a comma begins the next tag
NAMES_ARE: Final = "up to 64 of a-z, 0-9, `_`, `.` and `-`, beginning with a letter"
VALUES_ARE: Final = "1 to 64 printable ASCII characters"
NONE: Final[Mapping[str, str]] = {}

Parse = Callable[[bytes], ModelRequest]


def tagged(parse: Parse, header: str | None) -> Parse:
    """`parse`, and then the tags: checked, and those of the header put beside those of the body."""

    def with_tags(body: bytes) -> ModelRequest:
        request = parse(body)
        own = request.body.get(EXTENSION)
        if isinstance(own, dict):
            _check_known(own)
            _check_conversation(own.get("conversation"))
        if header is None and (not isinstance(own, dict) or own.get("tags") is None):
            return request
        extension = own if isinstance(own, dict) else {}
        tags = {**(of_header(header) if header is not None else NONE), **of_body(extension.get("tags"))}
        if len(tags) > MOST:
            raise InvalidRequest(f"a call may have {MOST} tags, not {len(tags)}", param=IN_BODY)
        return replace(request, body={**request.body, EXTENSION: {**extension, "tags": tags}})

    return with_tags


def _check_known(extension: Mapping[str, Any]) -> None:
    """Of a mistyped `tag` nothing would be heard again: no expert is sent it, and no record keeps it."""
    for name in extension:
        if name not in KNOWN:
            close = difflib.get_close_matches(name.casefold(), KNOWN, n=1)
            words = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(KNOWN)}"
            shown = name[:MOST_CHARS]
            raise InvalidRequest(f"unknown key {shown!r} in {EXTENSION}; {words}", param=f"{EXTENSION}.{shown}")


def _check_conversation(name: Any) -> None:
    """What the client calls the conversation; the record keeps a keyed digest of it."""
    if name is None or (isinstance(name, str) and 0 < len(name) <= CONVERSATION_CHARS):
        return
    words = f"conclave.conversation must be a string of 1 to {CONVERSATION_CHARS} characters"
    raise InvalidRequest(words, param=f"{EXTENSION}.conversation")


def tags_of(request: ModelRequest) -> Mapping[str, str]:
    """The tags of a request that `tagged` has read."""
    own = request.body.get(EXTENSION)
    tags = own.get("tags") if isinstance(own, dict) else None
    return tags if isinstance(tags, dict) else NONE


def of_header(header: str) -> Mapping[str, str]:
    """`team=search, env=prod`; empty parts between commas are passed over."""
    tags: dict[str, str] = {}
    for part in header.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not name and not equals:
            continue
        if not equals:
            raise InvalidRequest(f"{HEADER} must look like `team=search, env=prod`", param=HEADER)
        if name in tags:
            raise InvalidRequest(f"{HEADER} names a tag twice", param=HEADER)
        tags[name] = value
    return _checked(tags, HEADER)


def of_body(tags: Any) -> Mapping[str, str]:
    """The object of `conclave.tags`."""
    if tags is None:
        return NONE
    if not isinstance(tags, dict):
        raise InvalidRequest('conclave.tags must be an object such as {"team": "search"}', param=IN_BODY)
    return _checked(tags, IN_BODY)


def _checked(tags: Mapping[Any, Any], where: str) -> Mapping[str, str]:
    if len(tags) > MOST:
        raise InvalidRequest(f"a call may have {MOST} tags", param=where)
    for name, value in tags.items():
        if NAME.fullmatch(name) is None:
            raise InvalidRequest(f"the name of a tag is {NAMES_ARE}", param=where)
        if not isinstance(value, str) or VALUE.fullmatch(value) is None:
            raise InvalidRequest(f"the value of a tag is {VALUES_ARE}; see the tag {name!r}", param=where)
    return tags
