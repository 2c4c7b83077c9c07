"""Every kernel compiles for sm_90 without a GPU, and its machine code is the kind that was meant.

In a process of its own: the interpreter, which the other tests run under, and the compiler exclude each other.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch, from the extra `moe`")
pytest.importorskip("triton", reason="needs triton, from the extra `moe`")

SHARED_BYTES = 232_448  # what one program may have on an H100 or H200
TWO_PROGRAMS = 116_224  # so that two share a multiprocessor, which decoding needs to keep enough bytes in flight


@pytest.fixture(scope="module")
def facts() -> dict[str, dict[str, Any]]:
    bare = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "conclave.kernels.bench.compiled"]
    told = bare | {"TRITON_DEFAULT_FP_FUSION": "1"}
    done = subprocess.run(command, env=told, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["kernel"]: row for row in rows}


def test_every_kernel_and_every_tile_is_compiled(facts: dict[str, dict[str, Any]]) -> None:
    counts = {name: sum(row.split()[0] == name for row in facts) for name in {row.split()[0] for row in facts}}
    assert counts == {
        "gate_up_decode": 6,
        "down_decode": 4,
        "gate_up_prefill": 3,
        "down_prefill": 2,
        "align_slots": 2,
        **dict.fromkeys(("down_token", "finish_split", "combine", "count_slots", "route_topk"), 1),
    }


def test_nothing_spills_and_everything_fits(facts: dict[str, dict[str, Any]]) -> None:
    for name, row in facts.items():
        assert (row["stack"], row["ldl"]) == (0, 0), name
        assert row["shared_bytes"] <= SHARED_BYTES, name


def test_products_use_the_hopper_tensor_cores(facts: dict[str, dict[str, Any]]) -> None:
    """One product unrolled over a depth of 64 is four instructions; gate and up make two of them."""
    wanted = {"gate_up_decode": 8, "down_decode": 4, "gate_up_prefill": 8, "down_prefill": 4}
    products = {name: row for name, row in facts.items() if name.split()[0] in wanted}
    assert len(products) == 15
    for name, row in products.items():
        assert (row["hgmma"], row["hmma"]) == (wanted[name.split()[0]], 0), name


def test_weights_stream_by_tma_and_else_by_cp_async(facts: dict[str, dict[str, Any]]) -> None:
    for name, row in facts.items():
        if name.split()[0] in ("gate_up_decode", "down_decode", "gate_up_prefill", "down_prefill"):
            assert (row["utmaldg"] == 0) == name.endswith("pointers"), name
            assert row["ldgsts"] > 0 or name.startswith("down_prefill"), name


def test_small_kernels_load_sixteen_bytes_at_a_time(facts: dict[str, dict[str, Any]]) -> None:
    for name in ("down_token", "combine", "finish_split"):
        assert facts[name]["ldg128"] > 0, name


def test_two_decoding_programs_share_a_multiprocessor(facts: dict[str, dict[str, Any]]) -> None:
    for name, row in facts.items():
        if name.startswith(("gate_up_decode", "down_decode")):
            assert row["shared_bytes"] <= TWO_PROGRAMS, name
            assert row["registers"] * 128 * 2 <= 65_536, name
