"""Who may read a passage, as something that can be asked of a hundred thousand passages at once.

Passages of one collection with the same tags have one *audience*, a small number. What a caller may read is therefore a
set of numbers, found once; both indexes take it and look at nothing else. It decides no right: `Rights.allows` does.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from conclave.retrieval.api import Rights

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,99}")
NAME_RULE: Final = "letters, digits and . _ : @ / - , 100 characters at most, the first a letter or digit"
MOST_TAGS: Final = 32  # of one document


@dataclass(frozen=True, slots=True)
class Audience:
    """A collection, and the tags of which a reader needs one; none: everybody who may search the collection."""

    id: int
    collection: str
    tags: tuple[str, ...]
    passages: int


@dataclass(frozen=True, slots=True)
class Readable:
    """What a caller may read: these audiences, or None where that is all there are; and how many passages it is."""

    audiences: frozenset[int] | None
    passages: int


def readable(audiences: Iterable[Audience], rights: Rights) -> Readable:
    every = list(audiences)
    allowed = [one for one in every if rights.allows(one.collection, one.tags)]
    ids = None if len(allowed) == len(every) else frozenset(one.id for one in allowed)
    return Readable(ids, sum(one.passages for one in allowed))


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags in order, each once. Raises ValueError."""
    found = tuple(sorted({checked_name(tag, what="a tag") for tag in tags}))
    if len(found) > MOST_TAGS:
        raise ValueError(f"a document has at most {MOST_TAGS} tags")
    return found


def checked_name(name: str, *, what: str) -> str:
    """The name of a collection or tag. Raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name[:40]!a} cannot be {what}: {NAME_RULE}")
    return name
