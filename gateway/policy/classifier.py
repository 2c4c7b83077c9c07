"""The server's `classifier`: which one says what category a question is of, and whether it can be used.

Read at start: the shipped classifier, or one of the operator's own (`conclave router train --out`), for all policies
of a process. Never trains anything, and never falls back to another classifier than the one that is named.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from conclave.gateway.policy.part import Part
from conclave.gateway.policy.source import Loc, Problem, dotted

if TYPE_CHECKING:
    from conclave.gateway.policy.load import Where
    from conclave.router.classify import Router


class ClassifierSettings(Part):
    """What says of which category a question is."""

    folder: Path | None = Field(
        default=None, description="Folder that `conclave router train --out` wrote; null: the shipped classifier."
    )
    encoder: Path | None = Field(
        default=None,
        description="Folder of the transformer that it was trained on; null: where it lay then.",
    )
    threads: int = Field(
        default=1, ge=1, le=64, description="Questions that a transformer encodes at once, a core each."
    )

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if self.encoder is not None and self.folder is None:
            raise ValueError("encoder without folder: the shipped classifier uses the built-in encoder")
        return self


def opened(settings: ClassifierSettings) -> "Router":
    """The classifier, ready to use; one for the process, however often it is asked for. Raises OSError, ValueError."""
    return _opened(settings.folder, settings.encoder)


@lru_cache(maxsize=1)
def _opened(folder: Path | None, encoder: Path | None) -> "Router":
    from conclave.router.classify import Router  # noqa: PLC0415  numpy, tokenizers; perhaps torch

    return Router.load(folder, encoder=encoder)


def unusable_classifier(settings: ClassifierSettings, where: "Where") -> Iterator[Problem]:
    """A classifier of the operator's own that is not there, or whose encoder is not; opens no model."""
    if settings.folder is None:
        return
    from conclave.router.classify import read_head  # noqa: PLC0415  for those who have one

    try:
        read_head(settings.folder, encoder=settings.encoder)
    except (OSError, ValueError) as error:
        loc: Loc = ("server", "classifier")
        words = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        yield Problem(where(loc), dotted(loc), words)
