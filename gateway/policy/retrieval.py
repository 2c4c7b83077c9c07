"""The policy's `retrieval`: when a call is looked up in the library of documents, in which part of it, and how much of
what is found an expert is shown.

A value, checked for shape only; `seeking.py` says what it means for a call.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from conclave.gateway.policy.cascade import JudgedAnswer, Share
from conclave.gateway.policy.part import ExpertName, Flag, Part
from conclave.retrieval.acl import NAME

KnowledgeName = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]


class ClosedBookSettings(JudgedAnswer):
    """An expert is heard without documents before it is shown them: one more call at most, and none where it knows."""

    below: Share = Field(default=0.7, description="An expert with less confidence in its own answer does not know.")
    robust: ExpertName | None = Field(
        default=None,
        description="Who is asked where documents speak against an expert that knows; null: its own answer is shown.",
    )
    abstain: Flag = Field(
        default=False, description="An expert that does not know, and that no documents help, gives no answer: 422."
    )
    without_flagged: Flag = Field(
        default=False,
        description="It is heard without those data of the conversation, too, in which a check found something; also "
        "where nothing is looked up.",
    )
    trial_s: float = Field(
        default=30.0, gt=0, le=3600, description="How long that may take; then it is asked as if it had not been heard."
    )


class RetrievalSettings(Part):
    """Whether and where calls are looked up. Without a library nothing is."""

    mode: Literal["auto", "always", "never", "required"] = Field(
        default="auto",
        description="`auto`: where that is worth what it costs; `always`; `never`; `required`: always, and where "
        "nothing is found nobody is asked. A request may choose another by `conclave.retrieval`, but neither leave "
        "`never` nor `required`.",
    )
    collections: Annotated[tuple[KnowledgeName, ...], Field(min_length=1)] | None = Field(
        default=None, description="The only collections that are searched; null: all."
    )
    tags: tuple[KnowledgeName, ...] = Field(
        default=(), max_length=256, description="Tags of documents that may be read, beside those that have no tag."
    )
    passages: int = Field(default=5, ge=1, le=20, description="Passages that an expert is shown at most.")
    tokens: int = Field(default=1500, ge=50, le=100_000, description="Tokens that they have together at most.")
    worth: float = Field(
        default=5e-5, ge=0, le=1, description="What a token costs, in right answers: the lambda of the gate."
    )
    guard: Literal["off", "flag", "isolate", "strict"] = Field(
        default="isolate", description="What of it is believed, docs/retrieval.md: the modes of the context guard."
    )
    closed_book: ClosedBookSettings | None = Field(
        default=None, description="An expert is heard without documents before it is shown them; null: it is not."
    )
    timeout_s: float = Field(default=2.0, gt=0, le=60, description="How long a search may take; then without.")
