"""A few hundred of the inputs of `make fuzz`, run as make does; and that it can find something."""

from __future__ import annotations

import random
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from fuzz.__main__ import main  # noqa: E402
from fuzz.engine import Family, try_all  # noqa: E402
from fuzz.mutations import damage, smaller  # noqa: E402


def broken() -> list[Family]:
    def run(case: bytes, folder: Path) -> bool:
        if 7 in case:
            raise KeyError("seven")
        if 8 in case:
            import os

            os._exit(1)
        return True

    return [
        Family(
            "broken",
            1,
            lambda rng: bytes(rng.choices(range(int(rng.choice("78"))), k=5)) + bytes([rng.choice((0, 7, 8))]),
            run,
        )
    ]


def test_findings_are_counted_and_made_smaller():
    tally = try_all(broken, [("broken", str(number)) for number in range(12)])["broken"]
    assert tally.counts.total() == 12
    assert tally.counts["accepted"] > 0
    found = {place: case for place, (case, _) in tally.findings.items()}
    assert found.pop("the process died")[-1] == 8
    assert list(found.values()) == [b"\x07"]


def test_the_same_seed_makes_the_same_damage():
    data = bytes(range(99))
    assert damage(random.Random("a"), data) == damage(random.Random("a"), data) != damage(random.Random("b"), data)
    assert [] in smaller([1])
    assert {"a": ""} in smaller({"a": "x"})


def test_a_few_hundred_inputs(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["fuzz", "--inputs", "300", "--jobs", "1"])
    code = main()
    said = capsys.readouterr()
    assert code == 0, said.out[-3000:] + said.err[-3000:]
    assert "unexpected" in said.out
