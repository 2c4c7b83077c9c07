"""What a tool is, by its own name and description: what it does, what it is about, which arguments are sensitive.

A guess, for tools that no policy names; whoever declares a tool may lie in its description, so a policy's word counts
first. Pure, remembered by the tool's text.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from conclave.safety.toolcalls.api import Effect, Tool
from conclave.safety.toolcalls.words import (
    EFFECT_OF,
    EFFECTS,
    NOUN_STEMS,
    RUNNER_STEMS,
    VERBS,
    objects_of,
    split_name,
    stem,
    stems,
    words_of,
)

DESCRIBED: Final = 40  # words of a description that are read: what follows is about arguments
STRENGTH: Final = {Effect.NONE: 0, Effect.READ: 1, Effect.WRITE: 2, Effect.EXTERNAL: 3, Effect.CODE: 4}

RECIPIENT: Final = words_of(
    "to cc bcc recipient recipients receiver addressee email emails mail phone mobile contact contacts channel guest "
    "guests attendee attendees invitee invitees member members collaborator collaborators destination target payee "
    "payees beneficiary user username friend friends whom person handle"
)
ADDRESS: Final = words_of(
    "url uri urls link links endpoint webhook host hostname domain domains site website server origin callback remote"
)
ACCOUNT: Final = words_of(
    "account accounts iban bic wallet card payee beneficiary routing sort bank amount amounts price sum total quantity "
    "units value limit number"
)
PLACE: Final = words_of(
    "path paths file filename filepath dir directory folder destination source dest src target location"
)
CODE: Final = words_of("command commands cmd code script sql query args arguments program statement input")
OBJECT: Final = words_of("id ids title repository repo key record device password policy role permission")


@dataclass(frozen=True, slots=True)
class Features:
    """`verbs` are the groups that the tool's own verbs belong to, `objects` what its name says it is about,
    `about` what its description adds."""

    effect: Effect
    verbs: frozenset[str]
    roots: frozenset[str]
    objects: frozenset[str]
    about: frozenset[str]


def features_of(tool: Tool) -> Features:
    """What the tool's words say."""
    return _features(tool.name, tool.description[:1_000])


@lru_cache(maxsize=1_024)
def _features(name: str, description: str) -> Features:
    words = split_name(name)
    roots = [stem(word) for word in words]
    described = [word for word, _ in zip(stems(description), range(DESCRIBED), strict=False)]
    verb = _first_verb(roots)
    if verb is None:
        verb = next((root for root in described[:12] if root in VERBS), None)
    own = frozenset(root for root in roots if root in VERBS) or frozenset({verb} if verb else ())
    verbs = frozenset[str]().union(*(VERBS[root] for root in own))
    objects = objects_of(words) - ({verb} if verb else set())
    about = objects_of(described) - objects - own
    return Features(_effect(verb, roots), verbs, own, objects, about)


def _first_verb(roots: list[str]) -> str | None:
    """`GmailSendEmail` sends, `LastPassGetPasswords` gets: what can be nothing but a verb, else the first that can."""
    candidates = [one for one in roots if one in VERBS]
    return next((one for one in candidates if one not in NOUN_STEMS), next(iter(candidates), None))


def _effect(verb: str | None, roots: list[str]) -> Effect:
    if RUNNER_STEMS & set(roots):
        return Effect.CODE
    if verb is None:
        return Effect.READ
    if verb in EFFECT_OF:
        return EFFECT_OF[verb]
    groups = VERBS[verb]
    if "look" in groups and not {"send", "post", "pay", "trade", "delete"} & groups:
        return Effect.READ
    return max((EFFECTS.get(group, Effect.WRITE) for group in groups), key=STRENGTH.__getitem__)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value of a call's arguments: `path` as in `items[0].to`, `kind` what its name says that it is."""

    path: str
    text: str
    kind: str


MOST_LEAVES: Final = 256
MOST_DEPTH: Final = 32


def leaves_of(arguments: Any, sensitive: frozenset[str] | None = None) -> Iterator[Leaf]:
    """The values of a call's arguments, keys too where they look like values."""
    left = [MOST_LEAVES]
    yield from _leaves(arguments, "", sensitive, left, 0)


def _leaves(value: Any, path: str, sensitive: frozenset[str] | None, left: list[int], depth: int) -> Iterator[Leaf]:
    if left[0] <= 0 or depth > MOST_DEPTH:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key), sensitive, left, depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]", sensitive, left, depth + 1)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        left[0] -= 1
        yield Leaf(path, value if isinstance(value, str) else f"{value:.15g}", kind_of(path, sensitive))


def kind_of(path: str, sensitive: frozenset[str] | None) -> str:
    """`recipient`, `address`, `account`, `place`, `code`, `object`; empty for what is not sensitive."""
    outer = path.partition("[")[0]
    bare = outer.rpartition(".")[2]
    if sensitive is not None:
        return "named" if sensitive & {path, bare, outer.partition(".")[0]} else ""
    words = {word.lower() for word in split_name(bare)}
    for kind, names in KINDS.items():
        if words & names:
            return kind
    return ""


KINDS: Final = {
    "recipient": RECIPIENT, "address": ADDRESS, "account": ACCOUNT, "place": PLACE, "code": CODE, "object": OBJECT,
}  # fmt: skip
