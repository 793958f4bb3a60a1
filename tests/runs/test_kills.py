"""A hundred kills at random moments, and none of them leaves a trace; the moments are a function of one seed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning_fabric")

import kill_server
import language_runs
import little_runs

from relational_rnn.training import read_metrics

KILLS = {"babi": 30, "task": 30, "language": 30, "compare": 10}
AT_MOST = 4
"""Kills of one run before it is let go on to its end."""
TIMES = {"seconds", "processor_seconds", "data_seconds", "train_seconds", "evaluate_seconds"}


class Server:
    """Starts runs in processes of their own; see `kill_server`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, kill_server.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, kind: str, folder: Path, *, resume: bool = False, dies_at: int | None = None) -> int:
        """The number of the process."""
        assert self.process.stdin is not None
        asked = {"kind": kind, "place": str(self.place), "folder": str(folder), "resume": resume, "dies_at": dies_at}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        return self._number()

    def end(self) -> int:
        """The exit code of the run, when it has ended."""
        return self._number()

    def _number(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    @property
    def said(self) -> str:
        return (self.place / "said.txt").read_text(errors="replace")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    place = tmp_path_factory.mktemp("kills")
    little_runs.write_files(place / "stories", train=60, test=10)
    language_runs.write_text(place / "text.txt")
    os.environ["RELATIONAL_RNN_CACHE"] = str(place / "cache")
    server = Server(place)
    yield server
    del os.environ["RELATIONAL_RNN_CACHE"]
    assert server.process.stdin is not None
    assert server.process.stdout is not None
    server.process.stdin.close()
    assert server.process.wait(timeout=60) == 0
    server.process.stdout.close()


def without_times(value):
    """The same without what no two runs share."""
    if isinstance(value, dict):
        return {name: without_times(inner) for name, inner in value.items() if name not in TIMES}
    return [without_times(inner) for inner in value] if isinstance(value, list | tuple) else value


def assert_same(a, b, where: str) -> None:
    """The same numbers, bit by bit, in tables of tables."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for name in a:
            assert_same(a[name], b[name], f"{where}.{name}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for place, (ours, theirs) in enumerate(zip(a, b, strict=True)):
            assert_same(ours, theirs, f"{where}.{place}")
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, where


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != "train/waiting_for_data"]
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags}


def assert_bit_equal(got: Path, expected: Path) -> None:
    """All that two folders of one run hold, but for times and versions.json."""
    assert {path.name for path in got.iterdir()} == {path.name for path in expected.iterdir()}
    assert [path for path in got.parent.rglob(".*") if path.is_file() or path.suffix == ".part"] == []
    for path in expected.iterdir():
        if path.name in ("config.json", "vocabulary.json", "data.json", "model.safetensors"):
            assert (got / path.name).read_bytes() == path.read_bytes(), path.name
        if path.name in ("summary.json", "result.json"):
            ours, theirs = (json.loads((folder / path.name).read_text()) for folder in (got, expected))
            assert without_times(ours) == without_times(theirs)
    assert without_times(read_metrics(got / "metrics.csv")) == without_times(read_metrics(expected / "metrics.csv"))
    ours, theirs = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (got, expected))
    for part in ("model", "optimizer", "precision", "relational_rnn"):
        assert_same(without_times(ours[part]), without_times(theirs[part]), part)
    assert points(got) == points(expected)


def children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    try:
        return [int(number) for number in path.read_text().split()]
    except FileNotFoundError:
        return []


def killed(server: Server, kind: str, folder: Path, rng: random.Random, seconds: float, moments: int) -> bool:
    """Start or resume a run and kill it at a random moment; false where it ended before."""
    how = rng.choice(["at first", "while saving", "any time"] if kind != "compare" else ["at first", *["any time"] * 3])
    saved = any((folder / name).exists() for name in ("last.ckpt", "metrics.csv", "model.safetensors"))
    resume = folder.exists() and (saved or rng.random() < 0.5)  # before anything is saved, a start works as well
    if how == "while saving":
        server.start(kind, folder, resume=resume, dies_at=rng.randrange(moments))
    else:
        process = server.start(kind, folder, resume=resume)
        time.sleep(rng.uniform(0, 0.2 if how == "at first" else seconds))
        victims = [process, *children(process)] if kind == "compare" else [process]
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(victims), signal.SIGKILL)
    code = server.end()
    if code == 1:  # a comparison whose process was killed says so and gives up
        assert kind == "compare", server.said
        assert "has ended with code -9" in server.said or "trainings are started from was killed" in server.said
    else:
        assert code in (0, -signal.SIGKILL), server.said
    return code != 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KILLS)
def test_a_run_that_is_killed_again_and_again_ends_as_an_undisturbed_one(kind, server, record_property):
    rng = random.Random(f"20180605 {kind}")
    expected = server.place / f"undisturbed-{kind}"
    began = time.monotonic()
    server.start(kind, expected)
    assert server.end() == 0, server.said
    seconds = time.monotonic() - began
    moments = 0 if kind == "compare" else int((server.place / "moments.txt").read_text())
    kills = equal = number = 0
    while kills < KILLS[kind]:
        folder = server.place / kind / f"run-{number}"
        number += 1
        of_this_run = 0
        while of_this_run < min(AT_MOST, KILLS[kind] - kills):
            if not killed(server, kind, folder, rng, seconds, moments):
                break
            of_this_run += 1
        again = folder.exists()
        server.start(kind, folder, resume=again)
        assert server.end() == 0, server.said
        names = ("gru-0", "rnn-0") if kind == "compare" else ("",)
        for name in names:
            assert_bit_equal(folder / name, expected / name)
        kills += of_this_run
        equal += of_this_run
    record_property("kills", (kind, equal, kills))
    assert equal == kills == KILLS[kind]
