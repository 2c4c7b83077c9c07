"""Names for plug-ins: a class registers beside its own definition, and a setting picks it by name.

A registry decides nothing but which class a name stands for. The package it looks into is imported at the first
question, so that naming a registry costs nothing; a name that is taken twice or unknown is an error that says so.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")
C = TypeVar("C", bound=type)


class Registry(Generic[T]):
    """Frozen dataclasses by name; their fields are their settings."""

    def __init__(self, what: str, *, package: str) -> None:
        self._what = what
        self._package = package
        self._known: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Decorate a frozen dataclass with its name. Raises ValueError if the name is taken."""

        def keep(cls: C) -> C:
            if name in self._known:
                raise ValueError(f"the {self._what} {name!r} is registered twice, by {self._known[name]} and {cls}")
            self._known[name] = cls
            return cls

        return keep

    def names(self) -> list[str]:
        self._load()
        return sorted(self._known)

    def name_of(self, thing: T) -> str:
        return next(name for name, cls in self._known.items() if cls is type(thing))

    def make(self, settings: Mapping[str, Any] | str) -> T:
        """`{"name": "topp", "p": 0.5}` or just the name -> the plug-in. Raises ValueError that says what was meant."""
        given: dict[str, Any] = {"name": settings} if isinstance(settings, str) else dict(settings)
        cls = self._named(given.pop("name", None))
        known = [f.name for f in fields(cls)]  # type: ignore[arg-type]  # T is a dataclass, which no bound can say
        for key in given:
            if key not in known:
                raise ValueError(f"the {self._what} has no setting {key!r}{_nearest(key, known)}; it has {known}")
        try:
            return msgspec.convert(given, cls)
        except msgspec.ValidationError as wrong:
            raise ValueError(f"a setting of the {self._what} is wrong: {wrong}") from None

    def settings(self, thing: T) -> dict[str, Any]:
        """What `make` needs to build it again."""
        return {"name": self.name_of(thing)} | asdict(thing)  # type: ignore[call-overload,no-any-return]  # as above

    def _named(self, name: object) -> type[T]:
        self._load()
        if not isinstance(name, str) or name not in self._known:
            near = _nearest(name, list(self._known)) if isinstance(name, str) else ""
            raise ValueError(f"there is no {self._what} {name!r}{near}; known are {', '.join(sorted(self._known))}")
        return self._known[name]

    def _load(self) -> None:
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
