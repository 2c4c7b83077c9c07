"""What importing costs: the gateway stays light, and our folders never stand in the way of public packages."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("litellm", "torch", "transformers", "triton", "numba", "faiss", "scipy", "sqlalchemy", "httpx")


def python(code: str, *, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_gateway_leaves_heavy_packages_out(tmp_path: Path) -> None:
    """Its CPU time is printed, not asserted: `pytest -s` shows it, benchmarks/ keep it."""
    code = (
        "import sys, time; import conclave.gateway.app; "
        f"print([name for name in {HEAVY!r} if name in sys.modules]); "
        "print(f'{time.process_time():.2f} s CPU', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print("import conclave.gateway.app:", done.stderr.strip())  # noqa: T201  for `pytest -s`
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_a_transformers_model_imports_with_the_root_first_on_the_path() -> None:
    """`python -c` puts the working folder first: a folder of ours named as a public package would be taken for it."""
    out = python("from transformers import BertModel, MixtralForCausalLM; print(BertModel.__name__)", cwd=ROOT)
    assert out.strip() == "BertModel"


def test_the_rooms_import_from_anywhere(tmp_path: Path) -> None:
    rooms = "conclave.gateway, conclave.router, conclave.safety, conclave.retrieval, conclave.moe, conclave.kernels"
    code = f"import {rooms}, conclave; print(conclave.__file__)"
    assert python(code, cwd=tmp_path).strip() == "None"
