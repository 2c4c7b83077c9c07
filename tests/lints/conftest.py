"""Makes `lints` importable without the repository root on the path, where its folders shadow public packages."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

if "lints" not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        "lints", ROOT / "lints" / "__init__.py", submodule_search_locations=[str(ROOT / "lints")]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["lints"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["lints"])
