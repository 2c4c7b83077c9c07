"""Heavy packages are imported when they are first needed: no module of the gateway imports one at its top level.

The modules in `LAZY` may, because they are themselves imported only when first needed; so importing one of them at the
top level counts as heavy too.
"""

import ast
from collections.abc import Iterator

from lints.rule import Finding, Module

HEAVY = frozenset({"faiss", "httpx", "litellm", "sqlalchemy", "torch", "transformers", "alembic"})
LAZY = (
    "gateway/access/key_table.py",
    "gateway/followers/audit_table.py",
    "gateway/followers/feedback_table.py",
    "gateway/followers/reached.py",
    "gateway/followers/shadow.py",
    "gateway/policy/kept_calls.py",
    "gateway/policy/store.py",
    "gateway/policy/trial_report.py",
    "gateway/state/migrations/",
    "gateway/state/sql.py",
    "gateway/state/tables.py",
)


def heavy_packages_are_imported_late(module: Module) -> Iterator[Finding]:
    if not module.place.startswith("gateway/") or module.place.startswith(LAZY):
        return
    for node in _at_import(module.tree.body):
        for name in _imported(node):
            if name.split(".")[0] in HEAVY or _is_lazy(name):
                yield Finding(
                    module.place, node.lineno, f"`{name}` is imported at the top level; import it when needed"
                )


def _at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported: not inside functions, not under TYPE_CHECKING."""
    for node in body:
        yield node
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"), orelse=orelse):
                yield from _at_import(orelse)
            case ast.If() | ast.For() | ast.While() | ast.With() | ast.ClassDef():
                yield from _at_import(node.body)
                yield from _at_import(getattr(node, "orelse", []))
            case ast.Try() | ast.TryStar():
                inner = [node.body, node.orelse, node.finalbody, *(handler.body for handler in node.handlers)]
                for block in inner:
                    yield from _at_import(block)


def _imported(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=str() as package, names=names, level=0):
            yield package
            yield from (f"{package}.{alias.name}" for alias in names if package.startswith("conclave."))
        case _:
            return


def _is_lazy(name: str) -> bool:
    place = name.removeprefix("conclave.").replace(".", "/")
    return name.startswith("conclave.") and any(place == lazy.removesuffix(".py").removesuffix("/") for lazy in LAZY)
