"""The quality head that a policy names: opened when the policy is loaded, and only if its files are those it pins."""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import Where
from conclave.gateway.policy.overlay import overlaid
from conclave.gateway.policy.scored import Quality
from conclave.gateway.policy.source import Loc, Problem, dotted
from conclave.router.api import Classification

Expects: TypeAlias = Callable[[str, Classification], Mapping[str, float]]
Heads: TypeAlias = Callable[[Quality], Expects]


class HeadError(ValueError):
    """The head cannot be used; the message says why."""


def opened(quality: Quality) -> Expects:
    """What expects each expert's score on a question. Raises HeadError."""
    return _opened(quality.folder, quality.sha256)


@lru_cache(maxsize=4)  # a version, the one before it, and what is tried beside them
def _opened(folder: Path, sha256: str) -> Expects:
    from conclave.router.quality import Quality as Head  # noqa: PLC0415  numpy; only where a policy names a head
    from conclave.router.quality import quality_digest  # noqa: PLC0415

    try:
        found = quality_digest(folder)
        if found != sha256:
            raise HeadError(f"the quality head in {folder} has the sha256 {found}, not {sha256}")
        return Head.load(folder).expected
    except OSError as error:
        raise HeadError(f"the quality head in {folder} cannot be read: {error.strerror}") from error
    except HeadError:
        raise
    except Exception as error:  # a file of tensors that is none: each library has its own word for that
        raise HeadError(f"the quality head in {folder} cannot be used: {error}") from error


def unusable_heads(document: PolicyDocument, where: Where) -> Iterator[Problem]:
    """A head that is not there, or is another than the policy says."""
    split = document.routing.split
    tried = overlaid(document, split).routing.quality if split is not None and "quality" in split.routing else None
    named: dict[Loc, Quality | None] = {("quality",): document.routing.quality, ("split", "routing", "quality"): tried}
    for below, quality in named.items():
        loc: Loc = ("policy", "routing", *below)
        try:
            if quality is not None:
                opened(quality)
        except HeadError as error:
            yield Problem(where(loc), dotted(loc), str(error))
