"""A long stream, one step at a time: memory must not grow, the state must stay finite, and a prefix of the stream must
equal the call on the whole sequence.

    python benchmarks/streaming.py --steps 1000000

Prints one line of JSON at the end; exits with 1 where a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time

import torch

from relational_rnn import RelationalMemory

PREFIX = 10_000  # steps compared with the sequence call
GROWTH_MIB = 5.0
TOLERANCE = 2e-5  # relative to the largest value; float32
WARM_UP = 1_000  # steps before memory is first read: allocators fill their pools


def resident_mib() -> float:
    """Resident memory of this process (Linux)."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return pages * 4096 / 2**20


def inputs(step: int, width: int) -> torch.Tensor:
    """The input of a step, [1, width]: a function of the step alone, so that the stream need not be kept."""
    phase = torch.arange(1, width + 1, dtype=torch.float64) * (step * 0.618033988749895)
    return torch.sin(phase).float()[None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="length of the stream, more than 10,000")
    arguments = parser.parse_args()
    if arguments.steps <= PREFIX:
        parser.error(f"--steps must be more than {PREFIX}")

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layer = RelationalMemory(input_size=16, mem_slots=4, head_size=8, num_heads=2)
    with torch.inference_mode():
        x = torch.stack([inputs(step, 16) for step in range(PREFIX)], dim=1)  # [1, PREFIX, 16]
        _, whole = layer(x)
        del x

        state = layer.initial_state(1)
        assert isinstance(state, torch.Tensor)
        start, before, prefix_error = time.perf_counter(), 0.0, float("nan")
        for step in range(arguments.steps):
            _, state = layer.step(inputs(step, 16), state)
            if step + 1 == WARM_UP:
                before = resident_mib()
            if step + 1 == PREFIX:
                prefix_error = ((state - whole).abs().max() / whole.abs().max()).item()
            if (step + 1) % 100_000 == 0:
                seconds = time.perf_counter() - start
                print(f"{step + 1:,} steps, {seconds:.0f} s, {resident_mib() - before:+.2f} MiB", file=sys.stderr)
        seconds, growth = time.perf_counter() - start, resident_mib() - before
        finite = bool(state.isfinite().all())

    record = {
        "steps": arguments.steps,
        "resident_growth_mib": round(growth, 3),
        "state_finite": finite,
        "prefix_steps": PREFIX,
        "prefix_relative_error": prefix_error,
        "ms_per_step": round(seconds / arguments.steps * 1e3, 4),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": 1,
    }
    print(json.dumps(record))
    return 0 if finite and growth < GROWTH_MIB and prefix_error < TOLERANCE else 1


if __name__ == "__main__":
    raise SystemExit(main())
