"""Only the pipeline writes to a call: `gateway/pipeline.py`, and `Call`'s own methods in `gateway/call.py`.

A call is read by many; a second writer would make its record a guess. Writing is assigning to or deleting anything
below a call, `setattr` on it, changing one of its lists or tables in place, and ending it.
"""

import ast
from collections.abc import Iterator

from lints.rule import Finding, Module, last_name

WRITERS = frozenset({"gateway/pipeline.py", "gateway/call.py"})
CHANGING = frozenset({"append", "clear", "end", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"})


def only_the_pipeline_writes_to_a_call(module: Module) -> Iterator[Finding]:
    if not module.place.startswith("gateway/") or module.place in WRITERS:
        return
    names = {"call"} | set(_parameters_of_type_call(module.tree))
    for node in ast.walk(module.tree):
        for target in _written(node):
            if _is_below_a_call(target, names):
                words = f"`{ast.unparse(target)}` is written here; only gateway/pipeline.py writes to a call"
                yield Finding(module.place, target.lineno, words)


def _parameters_of_type_call(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            kind = node.annotation
            if last_name(kind) == "Call" or (isinstance(kind, ast.Constant) and kind.value == "Call"):
                yield node.arg


def _written(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions whose value `node` changes."""
    match node:
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            for target in targets:
                yield from target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
        case ast.AugAssign(target=target) | ast.For(target=target) | ast.AsyncFor(target=target):
            yield target
        case ast.AnnAssign(target=target, value=ast.expr()):
            yield target
        case ast.withitem(optional_vars=ast.expr() as target):
            yield target
        case ast.Call(func=ast.Attribute(attr=method) as changed) if method in CHANGING:
            yield changed
        case ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[target, *_]):
            yield ast.Attribute(target, "*", ast.Store(), lineno=target.lineno, col_offset=target.col_offset)
        case _:
            return


def _is_below_a_call(node: ast.expr, names: set[str]) -> bool:
    if not isinstance(node, ast.Attribute | ast.Subscript):
        return False
    owner = node.value
    return last_name(owner) in names or _is_below_a_call(owner, names)
