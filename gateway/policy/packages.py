"""The policy's `packages`: what an application's people use already, so that no check of answers warns of it.

The names of a lockfile become a part of the document when it is read: its digest says which were known, a changed file
is a new version, and a rollback brings the names back, whatever the file says now.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeAlias

from pydantic import Field, GetJsonSchemaHandler, StringConstraints, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from conclave.gateway.policy.part import Part
from conclave.gateway.policy.source import Loc, Problem, dotted
from conclave.gateway.policy.watch import Seen, look_at
from conclave.safety.output.packages.ecosystems import Ecosystem, canonical

if TYPE_CHECKING:
    from conclave.gateway.policy.document import PolicyDocument
    from conclave.gateway.policy.load import Where
    from conclave.safety.output.api import OutputCheck
    from conclave.safety.output.packages.grade import Allowed

CHECKS: Final = ("packages", "dependencies")
GLOB: Final = frozenset("*?[")
Name = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,214}$")]
Allow: TypeAlias = dict[Ecosystem, Annotated[tuple[Name, ...], Field(max_length=10_000)]]
Locked: TypeAlias = dict[Ecosystem, Annotated[tuple[Name, ...], Field(max_length=50_000)]]


class Lockfile(Part):
    """A lockfile or SBOM; in a policy's file its path may stand for it."""

    path: Path | None = Field(default=None, description="The file that the names are read from; it is looked at again.")
    names: Locked = Field(
        default_factory=dict, description="The names by ecosystem; of a path those that the file had when it was read."
    )

    @model_validator(mode="before")
    @classmethod
    def _of_a_path(cls, data: Any) -> Any:
        return {"path": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _has_something(self) -> Self:
        if self.path is None and not self.names:
            raise ValueError("needs the path of a file, or names")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "format": "path"}, handler(core_schema)]}


class PackageSettings(Part):
    """What the checks `packages` and `dependencies` take for known, beside the names that everybody uses."""

    allow: Allow = Field(
        default_factory=dict,
        description="Names by ecosystem; `*` stands for anything, such as `@acme/*`. A name said in full is allowed "
        "even if it is on the list of malicious ones.",
    )
    lockfiles: tuple[Lockfile, ...] = Field(
        default=(),
        max_length=64,
        description="Lockfiles and SBOMs, by the path of their file, whose packages are known.",
    )

    def allowed(self) -> "Allowed":
        """As the checks take it."""
        from conclave.safety.output.packages.grade import Allowed  # noqa: PLC0415  where the checks are used

        names = {
            one: frozenset(canonical(one, name) for name in own if not GLOB & {*name})
            for one, own in self.allow.items()
        }
        globs = {one: tuple(name.lower() for name in own if GLOB & {*name}) for one, own in self.allow.items()}
        locked: dict[Ecosystem, frozenset[str]] = {}
        for lockfile in self.lockfiles:
            for one, own in lockfile.names.items():
                locked[one] = locked.get(one, frozenset()) | {canonical(one, name) for name in own}
        return Allowed(names, globs, locked)

    def check(self, name: str) -> "OutputCheck":
        """The check of that name, `packages` or `dependencies`."""
        from conclave.safety.output.packages.check import DependencyCheck, PackageCheck  # noqa: PLC0415

        kind = PackageCheck if name == CHECKS[0] else DependencyCheck
        return kind(allowed=self.allowed())


class LockFiles:
    """The lockfiles that a policy names, as they say now: `document` has their names, `seen` what they were."""

    def __init__(self, document: "PolicyDocument", where: "Where") -> None:
        self._where = where
        self.problems: list[Problem] = []
        self.seen: dict[Path, Seen] = {}
        tenants = dict(document.tenants)
        for name, tenant in document.tenants.items():
            if tenant.packages is not None:
                at: Loc = ("policy", "tenants", name, "packages")
                tenants[name] = tenant.model_copy(update={"packages": self._filled(tenant.packages, at)})
        packages = self._filled(document.packages, ("policy", "packages"))
        self.document = document.model_copy(update={"packages": packages, "tenants": tenants})

    def _filled(self, settings: PackageSettings, loc: Loc) -> PackageSettings:
        files = tuple(self._read(one, (*loc, "lockfiles", index)) for index, one in enumerate(settings.lockfiles))
        return settings.model_copy(update={"lockfiles": files})

    def _read(self, lockfile: Lockfile, loc: Loc) -> Lockfile:
        if lockfile.path is None:
            return lockfile
        from conclave.safety.output.packages.lockfiles import read_lockfile  # noqa: PLC0415  few policies name any

        self.seen.setdefault(lockfile.path, look_at(lockfile.path))  # before it is read: a change in between is seen
        try:
            found: Mapping[Ecosystem, frozenset[str]] = read_lockfile(lockfile.path)
            names = {one: tuple(sorted(own)) for one, own in sorted(found.items())}
            return Lockfile(path=lockfile.path, names=names)
        except OSError as error:
            words = f"{lockfile.path} cannot be read: {error.strerror or error}"
        except ValueError as error:
            words = f"{lockfile.path} {str(error).splitlines()[0]}"
        self.problems.append(Problem(self._where(loc), dotted(loc), words))
        return lockfile
