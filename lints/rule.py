"""What a rule is: a function from one parsed module to its findings. Rules read code; they never run it."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Module:
    """One parsed file. `place` is its path from the repository's root, with slashes: `gateway/api/chat.py`."""

    place: str
    tree: ast.Module
    root: Path

    @classmethod
    def of(cls, source: str, *, place: str, root: Path) -> "Module":
        return cls(place, ast.parse(source, filename=place), root)


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation, told as `place:line: words`."""

    place: str
    line: int
    words: str

    def __str__(self) -> str:
        return f"{self.place}:{self.line}: {self.words}"


Rule = Callable[[Module], Iterator[Finding]]


def own_nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Every node that runs as part of `body`: functions, lambdas and classes defined in it are left out."""
    queue: list[ast.AST] = list(body)
    while queue:
        node = queue.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        yield node
        queue[:0] = ast.iter_child_nodes(node)


def last_name(node: ast.AST) -> str | None:
    """The name that a reader sees last: `x` of `x`, `b` of `a.b`; None for anything else."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return None
