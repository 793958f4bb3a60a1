"""`python -m fuzz [--inputs N] [--seed S] [--jobs J] [--only NAME ...]`"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from fuzz.engine import Tally, try_all
from fuzz.families import families


def main() -> int:
    """The number of unexpected inputs decides the exit code."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=30_000, help="how many, all families together")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other inputs")
    parser.add_argument("--jobs", type=int, default=2, help="processes at the same time")
    parser.add_argument("--only", nargs="*", default=None, help="families to try; all by default")
    arguments = parser.parse_args()
    start = time.monotonic()
    chosen = [family for family in families() if arguments.only is None or family.name in arguments.only]
    shares = sum(family.share for family in chosen)
    wanted = [
        (family.name, f"{arguments.seed}:{family.name}:{number}")
        for family in chosen
        for number in range(-(-arguments.inputs * family.share // shares))
    ]
    random.Random(arguments.seed).shuffle(wanted)
    parts = [wanted[number :: arguments.jobs] for number in range(arguments.jobs)]
    with ThreadPoolExecutor(arguments.jobs) as pool:  # each thread waits for a process of its own
        done = list(pool.map(partial(try_all, families), parts))
    return report([family.name for family in chosen], done, time.monotonic() - start)


def report(names: list[str], done: list[dict[str, Tally]], seconds: float) -> int:
    """Print what came of it."""
    total: Counter[str] = Counter()
    print(f"{'family':<28}{'tried':>8}{'refused':>9}{'accepted':>10}{'unexpected':>12}")
    for name in names:
        counts = sum((tallies[name].counts for tallies in done if name in tallies), Counter())
        total += counts
        print(_row(name, counts))
    print(f"{_row('all', total)}   in {seconds:.0f} s")
    for tallies in done:
        for name, tally in tallies.items():
            for place, (case, trace) in tally.findings.items():
                print(f"\n{name}: {place}\n  smallest input: {case!r:.3000}\n{trace}")
    return 1 if total["unexpected"] else 0


def _row(name: str, counts: Counter[str]) -> str:
    numbers = (counts.total(), counts["refused"], counts["accepted"], counts["unexpected"])
    return f"{name:<28}" + "".join(f"{n:>{w},}" for n, w in zip(numbers, (8, 9, 10, 12), strict=True))


if __name__ == "__main__":
    sys.exit(main())
