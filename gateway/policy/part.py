"""What every part of the policy document is made of: the base class, the categories, and an expert's name."""

from types import NoneType
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

Category: TypeAlias = Literal[
    "assistant_chat",
    "code",
    "creative_writing",
    "finance_business",
    "general_knowledge",
    "humanities",
    "law",
    "logic_reasoning",
    "math",
    "medicine",
    "multilingual",
    "reading_extraction",
    "science",
    "social_science",
]
CATEGORIES: Final[tuple[str, ...]] = get_args(Category)  # what the shipped classifier knows
CATEGORY: Final = r"^[a-z][a-z0-9_]{0,63}$"
VIRTUAL_MODELS: Final = ("auto", "auto:cheap", "auto:best")
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def _is_expert_name(value: str) -> str:
    if value in VIRTUAL_MODELS:
        raise ValueError(f"{value!r} is a virtual model's name")
    return value


CategoryName = Annotated[  # a shipped category, or one of the policy's own: `load.py` looks which there are
    str,
    StringConstraints(pattern=CATEGORY),
    WithJsonSchema({"anyOf": [{"enum": list(CATEGORIES)}, {"type": "string", "pattern": CATEGORY}]}),
]
ExpertName = Annotated[str, StringConstraints(pattern=NAME), AfterValidator(_is_expert_name)]
Flag = Annotated[bool, Strict()]  # pydantic would take the words on and yes, and 1
Row = Annotated[tuple[ExpertName, ...], Field(min_length=1)]


class Part(BaseModel):
    """A part of the configuration: frozen, no unknown keys, and a key without a value means its default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields
        return {
            key: value
            for key, value in data.items()
            if value is not None or key not in fields or NoneType in get_args(fields[key].annotation)
        }
