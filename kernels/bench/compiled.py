"""What Triton makes of each kernel for sm_90, read from the machine code: no GPU and no driver needed.

    python -m conclave.kernels.bench.compiled > compiled.jsonl   # about a second a kernel

One JSON object a kernel: registers, stack and spills (LDL), shared memory, and how many instructions of each kind that
matters: HGMMA (tensor cores of Hopper), HMMA (the older ones), UTMALDG (TMA loads), LDGSTS (cp.async), LDG128 (16-byte
loads). It says nothing about speed, races or a misaligned descriptor. Needs TRITON_INTERPRET unset: that is read at
import.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import msgspec
import triton
from tqdm import tqdm
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from conclave.kernels.align_slots.kernel import align_slots, count_slots
from conclave.kernels.combine.kernel import combine
from conclave.kernels.down_decode.kernel import down_decode, down_token
from conclave.kernels.down_prefill.kernel import down_prefill
from conclave.kernels.experts.launch import DECODE_TILES, DOWN_TILES, GATE_UP_TILES
from conclave.kernels.gate_up_decode.kernel import finish_split, gate_up_decode
from conclave.kernels.gate_up_prefill.kernel import gate_up_prefill
from conclave.kernels.route_topk.kernel import route_topk
from conclave.kernels.tiles.api import Tile

SM90 = GPUTarget("cuda", 90, 32)
INTS = "*i32"
INSTRUCTIONS = {
    "hgmma": r"HGMMA",
    "hmma": r"\bHMMA",
    "utmaldg": r"UTMALDG",
    "ldgsts": r"LDGSTS",
    "ldl": r"\bLDL",
    "ldg128": r"LDG\.E\.(?:[A-Z.]*)?128",
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One kernel with its types and constants; arguments that stand in neither are int32 multiples of 16."""

    name: str
    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]
    options: dict[str, int] = field(default_factory=dict)
    uneven: tuple[str, ...] = ()  # integers that are no multiples of 16


def variants() -> Iterator[Variant]:
    """Every tile that `launch.py` chooses from, and one of each other form."""
    for tile in DECODE_TILES:
        yield _gate_up_decode(tile)
        yield _down_decode(tile)
    yield _gate_up_decode(DECODE_TILES[0], direct=True, split_k=4)
    yield _gate_up_decode(DECODE_TILES[0], tma=False)
    yield _gate_up_decode(DECODE_TILES[0], weights="i8")
    yield _down_decode(DECODE_TILES[0], weights="i8")
    for tile in GATE_UP_TILES:
        yield _gate_up_prefill(tile)
    yield _gate_up_prefill(GATE_UP_TILES[1], tma=False)
    for tile in DOWN_TILES:
        yield _down_prefill(tile)
    yield from _others()


def facts(variant: Variant) -> dict[str, Any]:
    """Compile for sm_90 and read the machine code."""
    names = variant.kernel.arg_names
    signature = {n: "constexpr" if n in variant.constants else variant.types.get(n, "i32") for n in names}
    attrs = {
        (i,): [["tt.divisibility", 16]]
        for i, n in enumerate(names)
        if signature[n].startswith("*") or (signature[n] == "i32" and n not in variant.uneven)
    }  # without these no load is 16 bytes wide, and the facts are of another kernel
    constants = {(names.index(n),): value for n, value in variant.constants.items()}
    source = ASTSource(fn=variant.kernel, signature=signature, constexprs=constants, attrs=attrs)
    compiled = triton.compile(source, target=SM90, options=variant.options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage, code = _cuobjdump("-res-usage", cubin.name), _cuobjdump("-sass", cubin.name)
    found = re.search(r"REG:(\d+).*?STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump says nothing of registers: {usage[:200]}")
    counts = {name: len(re.findall(pattern, code)) for name, pattern in INSTRUCTIONS.items()}
    sizes = {"registers": int(found[1]), "stack": int(found[2]), "shared_bytes": int(compiled.metadata.shared)}
    return {"kernel": variant.name, "triton": triton.__version__} | sizes | counts


def _cuobjdump(option: str, path: str) -> str:
    """The Triton wheel brings the tool."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    done = subprocess.run([str(tool), option, path], capture_output=True, text=True, check=True)  # noqa: S603  our own file
    return done.stdout


def _descriptor(dtype: str, *shape: int) -> str:
    """The type's spelling changed with Triton 3.8 (seen: 3.6 and 3.9)."""
    new = tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 8)
    return f"tensordesc<{dtype}[{(', ' if new else ',').join(map(str, shape))}]>"


def _rows(dtype: str, tile: Tile, *, tma: bool) -> str:
    return _descriptor(dtype, tile.cols, tile.depth) if tma else f"*{dtype}"


def _plan(*, direct: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """Types and constants of the arguments that hold a plan, which are None where there is none."""
    names = ("slots_ptr", "block_expert_ptr", "num_blocks_ptr")
    return ({}, dict.fromkeys(names)) if direct else (dict.fromkeys(names, INTS), {})


def _gate_up_decode(
    tile: Tile, *, direct: bool = False, split_k: int = 1, tma: bool = True, weights: str = "bf16"
) -> Variant:
    types, constants = _plan(direct=direct)
    out = "*fp32" if split_k > 1 else "*bf16"
    types |= {"x_ptr": "*bf16", "w": _rows(weights, tile, tma=tma), "out_ptr": out, "ids_ptr": "*i64"}
    types |= {"scale_ptr": "*fp32"} if weights == "i8" else {}
    constants |= {} if weights == "i8" else {"scale_ptr": None}
    constants |= {"BLOCK_T": tile.rows, "BLOCK_N": tile.cols, "BLOCK_K": tile.depth, "SPLIT_K": split_k}
    constants |= {"DIRECT": direct, "W8": weights == "i8", "ACT": "silu", "TMA": tma, "F32_DOT": False}
    name = (
        f"gate_up_decode {_name(tile)} {weights}{' direct' * direct}{' split' * (split_k > 1)}{' pointers' * (not tma)}"
    )
    return Variant(name, gate_up_decode, types, constants, tile.options, ("top_k", "num_slots", "NPROG"))


def _down_decode(tile: Tile, *, weights: str = "bf16") -> Variant:
    types, constants = _plan(direct=False)
    types |= {"h_ptr": "*bf16", "w": _rows(weights, tile, tma=True), "y_ptr": "*fp32"}
    types |= {"weights_ptr": "*fp32", "ids_ptr": "*i64"} | ({"scale_ptr": "*fp32"} if weights == "i8" else {})
    constants |= {} if weights == "i8" else {"scale_ptr": None}
    constants |= {"BLOCK_T": tile.rows, "BLOCK_N": tile.cols, "BLOCK_K": tile.depth, "DIRECT": False}
    constants |= {"W8": weights == "i8", "TMA": True, "F32_DOT": False}
    name = f"down_decode {_name(tile)} {weights}"
    return Variant(name, down_decode, types, constants, tile.options, ("num_slots", "NPROG"))


def _gate_up_prefill(tile: Tile, *, tma: bool = True) -> Variant:
    types, constants = _plan(direct=False)
    types |= {"x_ptr": "*bf16", "w": _rows("bf16", tile, tma=tma), "h_ptr": "*bf16"}
    constants |= {"BLOCK_M": tile.rows, "BLOCK_N": tile.cols, "BLOCK_K": tile.depth, "GROUP_M": tile.group}
    constants |= {"ACT": "silu", "TMA": tma, "F32_DOT": False}
    name = f"gate_up_prefill {_name(tile)}{' pointers' * (not tma)}"
    return Variant(name, gate_up_prefill, types, constants, tile.options, ("top_k", "num_slots", "NPROG"))


def _down_prefill(tile: Tile) -> Variant:
    types, constants = _plan(direct=False)
    types |= {"h": _descriptor("bf16", tile.rows, tile.depth), "w": _rows("bf16", tile, tma=True)}
    types |= {"y_ptr": "*bf16", "weights_ptr": "*fp32"}
    constants |= {"BLOCK_M": tile.rows, "BLOCK_N": tile.cols, "BLOCK_K": tile.depth, "GROUP_M": tile.group}
    constants |= {"TMA_H": True, "TMA": True, "F32_DOT": False}
    return Variant(f"down_prefill {_name(tile)}", down_prefill, types, constants, tile.options, ("num_slots", "NPROG"))


def _others() -> Iterator[Variant]:
    """The small kernels, which no tensor core has a part in."""
    types = {"h_ptr": "*bf16", "w_ptr": "*bf16", "weights_ptr": "*fp32", "ids_ptr": "*i64", "out_ptr": "*bf16"}
    sizes = {"TOP_K": 8, "BLOCK_N": 16, "BLOCK_K": 256, "W8": False, "scale_ptr": None}
    yield Variant("down_token", down_token, types, sizes)
    types = {"parts_ptr": "*fp32", "ids_ptr": "*i64", "h_ptr": "*bf16"}
    yield Variant("finish_split", finish_split, types, {"SPLIT_K": 4, "BLOCK_N": 1024, "ACT": "silu"})
    types = {"y_ptr": "*bf16", "ids_ptr": "*i64", "out_ptr": "*bf16"}
    yield Variant("combine", combine, types, {"K": 8, "BLOCK_H": 1024})
    types = dict.fromkeys(("counts_ptr", "slots_ptr", "block_expert_ptr", "num_blocks_ptr"), INTS)
    for count, chunk in ((True, 4096), (False, 2048)):
        sizes = {"BLOCK_M": 64, "BLOCK_S": chunk, "BLOCK_E": 128, "COUNT": count}
        yield Variant(f"align_slots {chunk}", align_slots, types | {"ids_ptr": "*i64"}, sizes, {}, ("num_slots", "E"))
    yield Variant("count_slots", count_slots, {"ids_ptr": "*i64", "counts_ptr": INTS}, {"BLOCK_S": 2048})
    types = {"logits_ptr": "*bf16", "bias_ptr": "*fp32", "remap_ptr": INTS, "scale_ptr": "*fp32"}
    flags = dict.fromkeys(("SOFTMAX", "RENORM", "TOP_P", "HAS_BIAS", "HAS_REMAP", "HAS_SCALE"), True)
    types |= {"ids_ptr": INTS, "weights_ptr": "*fp32", "top_p": "fp32"}
    yield Variant("route_topk", route_topk, types, flags | {"K": 8, "BLOCK_K": 8, "BLOCK_E": 256}, {"num_warps": 1})


def _name(tile: Tile) -> str:
    return f"{tile.rows}x{tile.cols}x{tile.depth} w{tile.warps} s{tile.stages}"


@click.command()
def main() -> None:
    """Compile every kernel for sm_90 and print what its machine code holds."""
    for variant in tqdm(list(variants()), disable=not sys.stderr.isatty()):
        click.echo(msgspec.json.encode(facts(variant)).decode())


if __name__ == "__main__":
    main()
