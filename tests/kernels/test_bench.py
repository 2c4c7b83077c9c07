"""The benches: floors as published for an H200, rows on disk at once, a clear word where there is no GPU."""

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs torch, from the extra `moe`")
pytest.importorskip("transformers", reason="needs transformers, from the extra `moe`")
pytest.importorskip("triton", reason="needs triton, from the extra `moe`")

from conclave.kernels.bench import cpu_moe, gpu_moe  # noqa: E402  an extra may be missing
from conclave.kernels.bench.rows import csv_rows  # noqa: E402
from conclave.kernels.bench.shapes import SHAPES  # noqa: E402

H200 = {"bytes_s": 4.3e12, "operations_s": 790e12}  # a device copy, and a bf16 product of 8192 x 8192
BY_NAME = {shape.name: shape for shape in SHAPES}


@pytest.mark.parametrize(
    ("name", "tokens", "active", "wanted_us"),
    [
        pytest.param("OLMoE-1B-7B", 1, 8, 23, id="one token reads its experts"),
        pytest.param("Qwen3-30B-A3B", 1, 8, 18, id="small experts"),
        pytest.param("Mixtral-8x7B", 64, 8, 657, id="all experts, once"),
        pytest.param("OLMoE-1B-7B", 4096, 64, 522, id="products"),
        pytest.param("DeepSeek-V3", 16384, 256, 14614, id="the largest"),
    ],
)
def test_the_floor_is_bytes_or_products_whichever_takes_longer(
    name: str, tokens: int, active: int, wanted_us: int
) -> None:
    assert round(BY_NAME[name].floor_s(tokens, active=active, **H200) * 1e6) == wanted_us


def test_each_row_is_on_disk_before_the_next_is_measured(tmp_path: Path) -> None:
    with csv_rows(tmp_path, name="x", device="a device") as write:
        write(tokens=1, median_us=2.5)
        (path,) = tmp_path.glob("x-*.csv")
        write(tokens=2, median_us=3.5)
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert [(row["tokens"], row["median_us"], row["device"]) for row in rows] == [
        ("1", "2.5", "a device"),
        ("2", "3.5", "a device"),
    ]
    assert rows[0]["torch"] == torch.__version__


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    """The third round was slow for both, which a ratio of medians would not see."""
    timed = {"eager": [(4.0, 0.0), (6.0, 0.0), (90.0, 0.0)], "ours": [(2.0, 0.0), (2.0, 0.0), (30.0, 0.0)]}
    assert cpu_moe._ratio(timed, ["eager"], "ours", 0) == 3.0


def test_without_a_gpu_the_bench_says_what_it_needs(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        return  # it would measure
    done = CliRunner().invoke(gpu_moe.main, ["--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "needs a CUDA device" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_answers_are_right_and_rows_are_written(tmp_path: Path) -> None:
    done = CliRunner().invoke(gpu_moe.main, ["--budget", "60", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert next(tmp_path.glob("gpu-*.csv")).stat().st_size > 0
