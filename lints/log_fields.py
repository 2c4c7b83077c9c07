"""No user text in logs: an event is a literal `noun.verb`, and its fields are facts about the text, never the text.

Looked at are calls on `log` and `logger` (also `self._log`) and `bind` on them. A field may not be named, nor hold,
anything in `PRIVATE`; a measure of it (`len(text)`) may.
"""

import ast
import re
from collections.abc import Iterator

from lints.rule import Finding, Module, last_name

LOGGERS = frozenset({"log", "logger", "_log", "_logger"})
LEVELS = frozenset({"debug", "info", "warning", "warn", "error", "critical", "exception", "fatal", "msg", "log"})
ASYNC_LEVELS = frozenset(f"a{level}" for level in LEVELS)
BINDERS = frozenset({"bind", "new", "try_unbind"})
CONTEXT_BINDERS = frozenset({"bind_contextvars", "bound_contextvars"})
PRIVATE = frozenset(
    {
        "answer", "api_key", "args", "arguments", "authorization", "body", "completion", "content", "data", "delta",
        "folded", "key", "message", "messages", "password", "payload", "prompt", "question", "query", "reply",
        "request", "secret", "segment", "segments", "text", "token",
    }
)  # fmt: skip
SHOWING = frozenset({"str", "repr", "ascii", "format", "bytes", "list", "tuple", "dict", "sorted"})
EVENT = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


def no_user_text_in_logs(module: Module) -> Iterator[Finding]:
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr=verb)) if _is_logger(owner):
                if verb in LEVELS | ASYNC_LEVELS:
                    yield from _event(module, node)
                if verb in LEVELS | ASYNC_LEVELS | BINDERS:
                    yield from _fields(module, node)
            case ast.Call(func=name) if last_name(name) in CONTEXT_BINDERS:
                yield from _fields(module, node)


def _is_logger(owner: ast.expr) -> bool:
    if isinstance(owner, ast.Call) and isinstance(owner.func, ast.Attribute):  # log.bind(...).info(...)
        return owner.func.attr in BINDERS and _is_logger(owner.func.value)
    return last_name(owner) in LOGGERS


def _event(module: Module, call: ast.Call) -> Iterator[Finding]:
    event = call.args[0] if call.args else None
    if not (isinstance(event, ast.Constant) and isinstance(event.value, str) and EVENT.fullmatch(event.value)):
        yield Finding(module.place, call.lineno, "a log event is one literal `noun.verb`; what varies goes into fields")
    if len(call.args) > 1:
        yield Finding(module.place, call.lineno, "a log event takes fields by name only")


def _fields(module: Module, call: ast.Call) -> Iterator[Finding]:
    for field in call.keywords:
        if field.arg is None:
            yield Finding(module.place, field.value.lineno, "log fields are written out, not unpacked with **")
        elif field.arg in PRIVATE:
            yield Finding(
                module.place, field.value.lineno, f"the log field `{field.arg}` would hold user text or a key"
            )
        for name in sorted(PRIVATE.intersection(_shown(field.value))):
            yield Finding(module.place, field.value.lineno, f"`{name}` is logged here; log a measure of it instead")


def _shown(value: ast.expr) -> Iterator[str]:
    """Names whose value a reader of the log would see. A call's result is its own, but for `SHOWING` and methods."""
    match value:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            yield name
        case ast.Call(func=ast.Name(id=function), args=args) if function in SHOWING:
            for arg in args:
                yield from _shown(arg)
        case ast.Call(func=ast.Attribute(value=owner)):
            yield from _shown(owner)
        case ast.Subscript(value=owner) | ast.FormattedValue(value=owner) | ast.Starred(value=owner):
            yield from _shown(owner)
        case ast.JoinedStr(values=parts) | ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
            for part in parts:
                yield from _shown(part)
        case ast.BinOp(left=left, right=right) | ast.IfExp(body=left, orelse=right):
            yield from _shown(left)
            yield from _shown(right)
        case ast.Dict(values=parts):
            for part in parts:
                yield from _shown(part)
        case _:
            return
