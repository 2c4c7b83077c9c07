"""The policy's `second_opinion`: the transformer that is asked where the learned detectors are in doubt.

A value, checked for shape, and for whether its folder can be used; `safety/detect/second.py` opens it when a version is
put in force whose `defences` name the check.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import Field

from conclave.gateway.policy.part import Part
from conclave.gateway.policy.source import Loc, Problem, dotted

if TYPE_CHECKING:
    from conclave.gateway.policy.document import PolicyDocument
    from conclave.gateway.policy.load import Where

CHECK: Final = "second_opinion"


class SecondSettings(Part):
    """What the check `second_opinion` asks, and when. Without a folder it cannot be listed."""

    folder: Path | None = Field(
        default=None, description="Folder of all-MiniLM-L6-v2, as sentence-transformers writes it; null: none."
    )
    from_score: float = Field(
        default=0.5, gt=0, lt=1, description="A detector is in doubt from this score on, up to its own threshold."
    )
    threads: int = Field(default=1, ge=1, le=16, description="Texts that are read at once, a core each.")


def unusable_second(document: "PolicyDocument", where: "Where") -> Iterator[Problem]:
    """A second opinion that is listed, and whose folder is not the one that it was trained on; opens no model."""
    lists = [document.defences, *(tenant.defences or () for tenant in document.tenants.values())]
    if not any(one.check == CHECK and one.action != "off" for checks in lists for one in checks):
        return
    loc: Loc = ("policy", CHECK, "folder")
    folder = document.second_opinion.folder
    if folder is None:
        yield Problem(where(loc), dotted(loc), f"the check {CHECK} is listed, and no folder of a transformer is given")
        return
    from conclave.safety.detect.second import SecondError, checked  # noqa: PLC0415  for those who have one

    try:
        checked(folder)
    except SecondError as error:
        yield Problem(where(loc), dotted(loc), str(error))
