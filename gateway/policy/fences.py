"""The policy's `fences`: how data stands apart from orders in what an expert is sent, and what is stripped of it.

A value, checked for shape only; `safety/boundary/fence.py` says what it means for a text.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from conclave.gateway.policy.part import Part
from conclave.safety.boundary.fence import Fences, is_mark
from conclave.safety.boundary.marker import warm


def _sound_mark(sign: str) -> str:
    if not is_mark(sign):
        raise ValueError(
            "must be one visible character that is no letter, digit or punctuation of ASCII, such as \u00a6"
        )
    return sign


class FenceSettings(Part):
    """What becomes of results of tools, files and other data on the way to an expert."""

    mode: Literal["off", "delimit", "mark"] = Field(
        default="delimit",
        description="`off`: sent as it came; `delimit`: between markers that it cannot forge; `mark`: and with its "
        "words joined by a sign.",
    )
    mark: Annotated[str, AfterValidator(_sound_mark)] = Field(
        default="\u00a6", description="The sign that joins the words of data in the mode `mark`."
    )
    strip: Literal["off", "data", "all"] = Field(
        default="data",
        description="Whose characters that only hide are taken away: nobody's, those of data, or of users, too.",
    )

    def compiled(self) -> Fences:
        """As requests are changed by it."""
        if self.mode != "off":
            warm()  # 70 ms, once: no request should wait for it
        return Fences(self.mode, self.mark, self.strip)
