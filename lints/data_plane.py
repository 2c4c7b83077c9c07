"""The stream's three laws in the data plane (`gateway/pipeline.py`, `gateway/api/`, `gateway/experts/`).

No `finally` awaits: an await there is cancelled again when the client has left. No time limit surrounds a `yield`: it
would cancel whoever consumes the stream. One async generator is on the way, in the pipeline: a nested one is closed
later than the record is written.
"""

import ast
from collections.abc import Iterator

from lints.rule import Finding, Module, last_name, own_nodes

PIPELINE = "gateway/pipeline.py"
PLACES = (PIPELINE, "gateway/api/", "gateway/experts/")
TIME_LIMITS = frozenset({"timeout", "timeout_at", "fail_after", "fail_at", "move_on_after", "move_on_at"})


def no_finally_awaits(module: Module) -> Iterator[Finding]:
    if not module.place.startswith(PLACES):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Try | ast.TryStar):
            for inner in own_nodes(node.finalbody):
                if _waits(inner):
                    yield Finding(module.place, _line(inner, node), "a `finally` of the data plane awaits")


def no_time_limit_around_a_yield(module: Module) -> Iterator[Finding]:
    if not module.place.startswith(PLACES):
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.With | ast.AsyncWith) or not any(map(_is_time_limit, node.items)):
            continue
        if any(isinstance(inner, ast.Yield | ast.YieldFrom) for inner in own_nodes(node.body)):
            yield Finding(module.place, node.lineno, "a time limit surrounds a `yield`")


def the_pipeline_is_the_only_async_generator(module: Module) -> Iterator[Finding]:
    if not module.place.startswith(PLACES):
        return
    found = sorted(_async_generators(module.tree))
    if module.place != PIPELINE:
        for line in found:
            yield Finding(module.place, line, f"an async generator; the only one on the way stands in {PIPELINE}")
    elif len(found) != 1:
        yield Finding(module.place, found[1] if found else 1, f"one async generator is expected here, not {len(found)}")


def _waits(node: ast.AST) -> bool:
    match node:
        case ast.Await() | ast.AsyncFor() | ast.AsyncWith():
            return True
        case ast.comprehension(is_async=is_async):
            return bool(is_async)
        case _:
            return False


def _line(node: ast.AST, fallback: ast.stmt) -> int:
    return getattr(node, "lineno", fallback.finalbody[0].lineno if isinstance(fallback, ast.Try) else fallback.lineno)


def _is_time_limit(item: ast.withitem) -> bool:
    return isinstance(item.context_expr, ast.Call) and last_name(item.context_expr.func) in TIME_LIMITS


def _async_generators(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.AsyncFunctionDef(body=body) if any(isinstance(inner, ast.Yield) for inner in own_nodes(body)):
                yield node.lineno
            case ast.GeneratorExp(generators=loops) if any(loop.is_async for loop in loops):
                yield node.lineno
