"""Compiles the Triton kernels for a Hopper GPU, which needs none, and prints what they take of a multiprocessor.

    python benchmarks/triton_kernels.py --shapes a e --dtypes float32 bfloat16

Registers per thread, bytes of spilled registers per thread, and bytes of shared memory per program, as ptxas counts
them. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.ops.relational_scan import _triton_backward, _triton_forward
from relational_rnn.ops.relational_scan import triton_scan as scan
from relational_rnn.ops.relational_scan.pieces import Marks

HOPPER = GPUTarget("cuda", 90, 32)
# Batch, steps, features per step, then the sizes of a cell.
SHAPES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "a": (1600, 8, 40, dict(mem_slots=8, head_size=32, num_heads=8)),
    "c": (32, 20, 128, dict(mem_slots=4, head_size=16, num_heads=4)),
    "e": (32, 16, 128, dict(mem_slots=8, head_size=32, num_heads=4)),
    "one slot, wide": (
        64,
        100,
        512,
        dict(mem_slots=1, head_size=128, num_heads=4, key_size=64, attention_mlp_layers=3),
    ),
    "memory gates": (6, 3, 5, dict(mem_slots=3, head_size=9, num_heads=4, gate_style="memory", input_rows=2)),
    "no gates": (6, 3, 5, dict(mem_slots=3, head_size=9, num_heads=4, gate_style=None, attention_mlp_layers=1)),
    "chapter": (6, 3, 5, dict(mem_slots=3, head_size=11, num_heads=2, gate_style=None, formulation="chapter")),
}


class Hopper:
    """What Triton asks of a GPU's driver before it launches a kernel, answered without a GPU."""

    def get_current_target(self) -> GPUTarget:
        return HOPPER

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Compiler:
    """Stands in for a kernel: a launch compiles it, as a launch on a GPU would, and notes the resources."""

    def __init__(self, kernel: Any):
        self.kernel, self.found, self.arg_names = kernel, [], kernel.arg_names

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return partial(self.compile, grid)

    def compile(self, grid: tuple[int, ...], *, num_warps: int, **arguments: Any) -> None:
        before = time.perf_counter()
        compiled = self.kernel.warmup(grid=grid, num_warps=num_warps, **arguments)
        seconds = time.perf_counter() - before
        self.found.append(
            {
                "kernel": self.kernel.__name__,
                "threads": 32 * num_warps,
                "rows": arguments["BM"],
                **resources(compiled.asm["ptx"]),
                "shared_bytes": compiled.metadata.shared,
                "tensor_cores": next((op for op in ("wgmma", "mma.sync") if op in compiled.asm["ptx"]), "no"),
                "seconds": round(seconds, 1),
            }
        )


def resources(ptx: str) -> dict[str, int]:
    """Registers and spills of the one kernel in `ptx`, as the assembler that comes with Triton reports them."""
    assembler = triton.knobs.nvidia.ptxas.path
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx, encoding="utf-8")
        command = [assembler, "-v", "--gpu-name=sm_90a", str(source), "-o", str(Path(folder, "kernel.cubin"))]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    words = said.replace(",", " ").split()

    def before(*following: str) -> int:
        at = [i for i in range(len(words)) if words[i : i + len(following)] == [*following]]
        return int(words[at[-1] - 1])

    return {"registers": before("registers"), "spilled_bytes": before("bytes", "spill", "stores")}


def compile_shape(shape: str, dtype: torch.dtype, masks: bool) -> list[dict[str, Any]]:
    """Both kernels as a training call of this shape launches them."""
    batch, steps, features, sizes = SHAPES[shape]
    cell = RelationalMemoryCell(features, **sizes, dtype=dtype)
    forward, backward = Compiler(_triton_forward.forward_kernel), Compiler(_triton_backward.backward_kernel)
    kernels = _triton_forward.forward_kernel, _triton_backward.backward_kernel
    _triton_forward.forward_kernel, _triton_backward.backward_kernel = forward, backward
    try:
        marks = Marks()
        if masks:
            reset = torch.zeros(batch, steps, dtype=torch.bool)
            marks = Marks(torch.full((batch,), steps), reset, cell.initial_memory(1)[0])
        x = torch.zeros(batch, steps, cell.input_rows or 1, features, dtype=dtype)
        y, final, _ = scan.relational_scan_triton(x, cell.initial_memory(batch), cell.scan_parameters(), marks)
        (y.sum() + final.sum()).backward()
    finally:
        _triton_forward.forward_kernel, _triton_backward.backward_kernel = kernels
    return [{"shape": shape, "dtype": str(dtype)[6:], **row} for row in forward.found + backward.found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=[*SHAPES])
    parser.add_argument("--dtypes", nargs="+", choices=[str(t)[6:] for t in scan.DTYPES], default=["float32"])
    parser.add_argument("--tf32", action="store_true", help="products of float32 matrices in tf32")
    parser.add_argument("--masks", action="store_true", help="with lengths and resets")
    given = parser.parse_args()
    torch.backends.cuda.matmul.fp32_precision = "tf32" if given.tf32 else "ieee"
    triton.runtime.driver.set_active(Hopper())
    rows = []
    for shape in given.shapes:
        for dtype in given.dtypes:
            for row in compile_shape(shape, getattr(torch, dtype), given.masks):
                rows.append(row)
                print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    print(json.dumps({"triton": triton.__version__, "target": "sm_90", "tf32": given.tf32, "rows": rows}))


if __name__ == "__main__":
    main()
