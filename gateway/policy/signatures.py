"""The policy's `signatures`: an admin's own rules for the check of that name, in the policy or in files that it names.

A file's rules become a part of the document when it is read, so that its digest says which rules were in force, a
changed file is a new version, and a rollback brings the rules back, whatever the file says now.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, StringConstraints, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from conclave.gateway.policy.part import CATEGORY, Flag, Part
from conclave.gateway.policy.source import Loc, Problem, dotted
from conclave.gateway.policy.watch import Seen, look_at
from conclave.safety.api import Origin, Severity

if TYPE_CHECKING:
    from conclave.gateway.policy.document import PolicyDocument
    from conclave.gateway.policy.load import Where
    from conclave.safety.detect.signatures import Signature

ALL: Final = tuple(Origin)
WORDS: Final[Mapping[Severity, Literal["low", "medium", "high"]]] = {
    Severity.LOW: "low",
    Severity.MEDIUM: "medium",
    Severity.HIGH: "high",
}
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Texts = Annotated[tuple[Text, ...], Field(max_length=10_000)]


class SignatureRule(Part):
    """One rule: what is looked for, and where."""

    name: Annotated[str, StringConstraints(pattern=CATEGORY)] = Field(
        description="Its name; findings are of the kind `signature.<name>`."
    )
    severity: Literal["low", "medium", "high"] = Field(default="medium", description="How severe a find is.")
    pattern: Text | None = Field(default=None, description="What is looked for, in RE2's syntax.")
    literals: Texts = Field(default=(), description="Texts that are looked for, whatever their case.")
    origins: tuple[Origin, ...] = Field(default=ALL, min_length=1, description="Whose texts are looked at.")
    directions: tuple[Literal["request", "answer"], ...] = Field(
        default=("request",), min_length=1, description="Whether requests are looked at, or answers, or both."
    )
    unless: Texts = Field(default=(), description="Patterns that excuse a match in the same line.")
    begins: Texts = Field(
        default=(), description="For a pattern in answers: the texts, one of which every match begins with."
    )
    message: str | None = Field(default=None, max_length=500, description="What people should do instead.")

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        self.signature().check()
        return self

    def signature(self) -> "Signature":
        """As the check takes it."""
        from conclave.safety.detect.signatures import Signature  # noqa: PLC0415  most policies have no rules

        return Signature(
            name=self.name,
            severity=Severity[self.severity.upper()],
            pattern=self.pattern or "",
            literals=self.literals,
            origins=frozenset(self.origins),
            directions=frozenset(self.directions),
            unless=self.unless,
            begins=self.begins,
            message=self.message or "",
        )

    @classmethod
    def of(cls, rule: "Signature") -> Self:
        """A rule that was read from a file."""
        return cls(
            name=rule.name,
            severity=WORDS[rule.severity],
            pattern=rule.pattern or None,
            literals=rule.literals,
            origins=tuple(one for one in ALL if one in rule.origins),
            directions=tuple(sorted(rule.directions, reverse=True)),
            unless=rule.unless,
            begins=rule.begins,
            message=rule.message or None,
        )


class Pack(Part):
    """Rules that belong together; in a policy's file the path of theirs may stand for it."""

    path: Path | None = Field(default=None, description="The file that they are read from; it is looked at again.")
    rules: tuple[SignatureRule, ...] = Field(
        default=(), max_length=1000, description="The rules; of a path those that the file had when it was read."
    )

    @model_validator(mode="before")
    @classmethod
    def _of_a_path(cls, data: Any) -> Any:
        return {"path": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _has_something(self) -> Self:
        if self.path is None and not self.rules:
            raise ValueError("needs the path of a file, or rules")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "format": "path"}, handler(core_schema)]}


class SignatureSettings(Part):
    """What the check `signatures` looks for."""

    shipped: Flag = Field(
        default=True, description="Use the rules that come with Conclave, too; one of your own replaces its namesake."
    )
    packs: tuple[Pack, ...] = Field(default=(), max_length=64, description="Your own rules, by the path of their file.")

    def rules(self) -> "tuple[Signature, ...]":
        """All rules that count."""
        from conclave.safety.detect.packs import shipped  # noqa: PLC0415  where the check is used

        own = [rule.signature() for pack in self.packs for rule in pack.rules]
        names = {rule.name for rule in own}
        return (*own, *(rule for rule in shipped() if self.shipped and rule.name not in names))


class PackFiles:
    """The packs that a policy names, as their files say now: `document` has their rules, `seen` what they were."""

    def __init__(self, document: "PolicyDocument", where: "Where") -> None:
        self._where = where
        self.problems: list[Problem] = []
        self.seen: dict[Path, Seen] = {}
        tenants = dict(document.tenants)
        for name, tenant in document.tenants.items():
            if tenant.signatures is not None:
                at: Loc = ("policy", "tenants", name, "signatures")
                tenants[name] = tenant.model_copy(update={"signatures": self._filled(tenant.signatures, at)})
        signatures = self._filled(document.signatures, ("policy", "signatures"))
        self.document = document.model_copy(update={"signatures": signatures, "tenants": tenants})

    def _filled(self, settings: SignatureSettings, loc: Loc) -> SignatureSettings:
        filled = settings.model_copy(update={"packs": tuple(map(self._read, settings.packs))})
        first: dict[str, int] = {}
        for index, pack in enumerate(filled.packs):
            for rule in pack.rules:
                if first.setdefault(rule.name, index) != index:
                    words = f"the rule {rule.name!r} stands in packs[{first[rule.name]}], too; rename one of them"
                    self._blame((*loc, "packs", index), words)
        if not self.problems and filled.packs:
            from conclave.safety.detect.signatures import Signatures  # noqa: PLC0415

            try:
                Signatures(filled.rules())
            except ValueError as error:
                self._blame((*loc, "packs"), str(error))
        return filled

    def _read(self, pack: Pack) -> Pack:
        if pack.path is None:
            return pack
        from conclave.safety.detect.packs import PackError, read_pack  # noqa: PLC0415

        self.seen.setdefault(pack.path, look_at(pack.path))  # before it is read: a change in between is seen
        try:
            rules = tuple(map(SignatureRule.of, read_pack(pack.path)))
        except PackError as error:
            self.problems += [Problem(f"{pack.path}:{fault.line}", "", fault.message) for fault in error.faults]
            return pack
        except ValueError as error:  # a length that a document does not take
            self.problems.append(Problem(f"{pack.path}:1", "", f"holds a rule that is too long: {error}"))
            return pack
        return pack.model_copy(update={"rules": rules})

    def _blame(self, loc: Loc, words: str) -> None:
        self.problems.append(Problem(self._where(loc), dotted(loc), words))
