"""Span and metric names stand in `gateway/telemetry/names.py` and nowhere else: they are read and renamed at one place.

Elsewhere a string that looks like one is flagged; import paths, logger names, file names and an error's `param` (which
field of the request is wrong) are not.
"""

import ast
import re
from collections.abc import Iterator

from lints.rule import Finding, Module, last_name

NAMES = "gateway/telemetry/names.py"
NAME = re.compile(r"(conclave|gen_ai)(\.[a-z0-9_]+)+\.?")
METRIC = re.compile(r"conclave_[a-z0-9_]+")
FILE = re.compile(r".*\.(db|json|jsonl|lock|log|pid|sock|toml|yaml|yml)")
METRIC_MAKERS = frozenset({"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"})
TAKES_A_MODULE = frozenset({"find_spec", "getLogger", "get_logger", "files", "import_module"})


def telemetry_names_stand_at_one_place(module: Module) -> Iterator[Finding]:
    if module.place == NAMES:
        return
    exempt = set(_exempt(module.tree))
    for node in ast.walk(module.tree):
        match node:
            case ast.Constant(value=str() as text) if id(node) not in exempt:
                if NAME.fullmatch(text) and not FILE.fullmatch(text) and not _is_import_path(text, module):
                    yield Finding(module.place, node.lineno, f"the telemetry name `{text}` belongs in {NAMES}")
            case ast.Call(func=maker, args=[ast.Constant(value=str() as text), *_]) if METRIC.fullmatch(text):
                if last_name(maker) in METRIC_MAKERS:
                    yield Finding(module.place, node.lineno, f"the metric name `{text}` belongs in {NAMES}")


def _exempt(tree: ast.Module) -> Iterator[int]:
    """Constants that are docstrings, a request's field, or the argument of something that takes a module's name."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant() as docstring):
                yield id(docstring)
            case ast.keyword(arg="param", value=ast.Constant() as field):
                yield id(field)
            case ast.Call(func=function, args=[ast.Constant() as name, *_]) if last_name(function) in TAKES_A_MODULE:
                yield id(name)


def _is_import_path(text: str, module: Module) -> bool:
    """Whether `conclave.room.thing` is a package or module of this tree, or a name inside a module."""
    place = module.root.joinpath(*text.split(".")[1:])
    return text.startswith("conclave.") and (
        place.is_dir() or place.with_suffix(".py").is_file() or place.parent.with_suffix(".py").is_file()
    )
