"""The checks of requests by their names in the policy. A check is made when a version is published that uses it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Final

from conclave.safety.api import Check
from conclave.safety.detect.crescendo import Crescendo
from conclave.safety.detect.hidden import HiddenCheck
from conclave.safety.detect.learned import ORIGINS, Heads, Ids, LearnedCheck
from conclave.safety.detect.pii import PiiCheck
from conclave.safety.detect.second_check import NAME as SECOND
from conclave.safety.detect.second_check import SecondCheck
from conclave.safety.detect.secrets import SecretsCheck
from conclave.safety.detect.shift import ShiftCheck
from conclave.safety.detect.signatures import NAME as SIGNATURES
from conclave.safety.detect.signatures import Signature, SignatureCheck
from conclave.safety.detect.sponge import SpongeCheck
from conclave.safety.detect.topics import NAME as TOPICS
from conclave.safety.detect.topics import Space, TopicsCheck

RULES: Final[Mapping[str, Callable[[], Check]]] = {
    "hidden": HiddenCheck,
    "secrets": SecretsCheck,
    "pii": PiiCheck,
    "sponge": SpongeCheck,
}
NAMES: Final = (*RULES, SIGNATURES, TOPICS, *ORIGINS, SECOND)
Examples = Mapping[str, Sequence[str]]


class Checks:
    """Makes checks. `ids` turns a text into the tokens that the learned ones were trained on; `space` has the vectors
    that topics are learned in.
    """

    def __init__(self, ids: Ids, space: Space | None = None) -> None:
        self._ids = ids
        self._space = space

    @cached_property
    def _heads(self) -> Heads:
        return Heads.load(self._ids)

    def make(self, name: str, *, threshold: float | None = None) -> Check:
        """The check of that name; a learned one at its own threshold, if no other is given. Raises KeyError."""
        if name in RULES:
            return RULES[name]()
        heads = self._heads
        return LearnedCheck(name, heads, heads.threshold(name) if threshold is None else threshold)

    def signatures(self, rules: Iterable[Signature]) -> Check:
        """The check of these rules. Raises ValueError."""
        return SignatureCheck(rules)

    def second(self, folder: Path, *, from_score: float, timeout_s: float, threads: int) -> Check:
        """The check that asks the transformer in this folder in doubt. Raises SecondError. Takes seconds."""
        from conclave.safety.detect.second import Opinion  # noqa: PLC0415  torch

        opinion = Opinion.open(folder)
        thresholds = {head.name: head.threshold for head in opinion.about.heads}
        pool = ThreadPoolExecutor(threads, thread_name_prefix="second")
        return SecondCheck(self._heads, opinion, thresholds, from_score, timeout_s, pool)

    def shift(self, *, threshold: float) -> Check:
        """The check of wishes that a frame hides."""
        return ShiftCheck(self._heads.scores, threshold=threshold)

    def crescendo(self, topics: Examples, scope: Sequence[str], *, threshold: float) -> Crescendo:
        """What looks at where conversations go; topics are known by these examples. Raises ValueError."""
        if self._space is None:
            raise ValueError("topics need the vectors of an encoder, and none was handed in")
        return Crescendo(self._space.encode, topics, scope, threshold=threshold)

    def topics(self, *, deny: Examples, allow_only: Examples) -> Check:
        """The check of topics that are known by these examples. Raises TopicError."""
        if self._space is None:
            raise ValueError("topics need the vectors of an encoder, and none was handed in")
        return TopicsCheck(self._space, deny=deny, allow_only=allow_only)
