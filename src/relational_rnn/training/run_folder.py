"""The folder of one run.

    config.json         the resolved configuration
    versions.json       software and machine at the start, and at every continuation
    metrics.csv         one row per validation
    tensorboard/        the same figures and more, for TensorBoard
    model.safetensors   the weights that did best on the validation set
    summary.json        what a finished run came to, and how long it waited for data
    last.ckpt           what a killed run needs to continue; read as plain tensors and numbers, never as code

Every file is whole or absent: a kill or a full disk leaves the version before.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize_tensors
from torch import Tensor

import relational_rnn
from relational_rnn._check import InputError, describe, is_text
from relational_rnn._files import is_part, json_text, make_folder, sweep, write_json, write_whole
from relational_rnn._reading.guard import damaged, shown
from relational_rnn._reading.json_text import Json, read_json_object
from relational_rnn._reading.structure import check_entries
from relational_rnn._reading.tables import number_in, read_table
from relational_rnn._reading.tensors import read_pickled
from relational_rnn.training.config import differences

METRICS_COLUMNS: tuple[str, ...] = (
    "step",
    "seconds",
    "train_loss",
    "train_accuracy",
    "valid_loss",
    "valid_accuracy",
    "learning_rate",
    "questions_seen",
    "processor_seconds",
    "lesson",
)
"""The columns of metrics.csv. Losses are means over questions, accuracies means over groups. Training figures cover the
batches since the row before. Seconds count training and validation over all sittings; processor_seconds add up all
threads. The lesson counts from 1; it is empty where there are none."""
WHOLE_COLUMNS, EMPTY_COLUMNS = ("step", "questions_seen", "lesson"), ("processor_seconds", "lesson")
"""The columns of whole numbers, and those that may be empty."""
TIMES = ("seconds", "processor_seconds")
"""The columns that, unlike a loss, may not be infinite."""

CONFIG, VERSIONS, METRICS, WEIGHTS = "config.json", "versions.json", "metrics.csv", "model.safetensors"
BEGINNING = (CONFIG, VERSIONS, "vocabulary.json", "data.json", "tensorboard")
"""What a folder holds before training has saved anything."""
DAMAGED = "the checkpoint is damaged or incomplete"
RESTORE = "restore the file from a copy, or delete it and resume to train again from the start"
CHECKPOINT_KEY = "relational_rnn"
"""What a checkpoint holds besides the states of the "model", the "optimizer" and the "precision"."""

if sys.platform != "win32":
    import fcntl


class RunFolder:
    """The files of one run; make one with `RunFolder.claim`."""

    def __init__(self, path: Path, configuration: dict[str, Json], *, resumed: bool) -> None:
        self.path = path
        self.configuration = configuration
        self.resumed = resumed
        self.checkpoint = path / "last.ckpt"
        self.tensorboard = path / "tensorboard"
        self._metrics = path / METRICS
        self._summary = path / "summary.json"

    @classmethod
    def claim(
        cls, path: Path, configuration: dict[str, Json], *, resume: bool, files: Collection[str] = ()
    ) -> RunFolder:
        """Check that a run of `configuration` may use the folder `path`; nothing is written yet.

        A run that was killed before it saved anything goes on even without `resume`. A run begins with the further
        `files`.

        Raises:
            InputError: there is a run already and `resume` is false; there is none to resume, or it differs in more
                than `loop.steps`; the folder holds something else; its name is not text.
        """
        if not is_text(path):
            raise InputError(describe(ascii(str(path)), "the name of a run's folder must be text in UTF-8"))
        for place in (path, *path.parents):
            if place.exists() and not place.is_dir():
                raise InputError(describe(place, "is a file, not a folder for a run"))
        there = [entry for entry in path.iterdir() if not is_part(entry)] if path.exists() else []
        exists = (path / CONFIG).exists()
        bare = {entry.name for entry in there} <= {*BEGINNING, *files}
        cut_off = not exists and bare and (path / VERSIONS).exists()  # as earlier versions could leave it
        if resume and not exists and not cut_off:
            raise InputError(describe(path, "there is no run to resume here", hint="leave resume away to start one"))
        if exists and not resume and not bare:
            hint = "continue it with resume (--resume), or name another folder"
            raise InputError(describe(path, "there is a run in this folder already", hint=hint))
        if there and not exists and not cut_off:
            raise InputError(describe(path, "the folder is not empty and not a run", hint="name another folder"))
        if exists:
            refuse_differences(path / CONFIG, read_json_object(path / CONFIG), configuration)
        return cls(path, configuration, resumed=exists)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training in the folder, or raise `InputError`; half-written files of others go."""
        with contextlib.ExitStack() as stack:
            if sys.platform != "win32":
                folder = os.open(self.path, os.O_RDONLY)
                stack.callback(os.close, folder)
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    hint = "wait for it, end it, or name another folder"
                    raise InputError(describe(self.path, "another process trains in this folder", hint=hint)) from error
                except OSError:  # a file system without locks on folders, such as NFS
                    pass
            sweep(self.path, alone=True)
            yield

    def begin(self, *, step: int, device: str, files: Mapping[str, Json]) -> None:
        """Write the configuration (first: it makes the folder a run), the versions, and `files` by their names."""
        self.keep_configuration()
        for name, content in files.items():
            write_json(self.path / name, content)
        versions = self.path / VERSIONS
        record: dict[str, Json] = {"step": step, **describe_software(), **describe_machine(device)}
        if self.resumed and versions.exists():
            now, record = record, read_json_object(versions)
            resumed = record.setdefault("resumed", [])
            if not isinstance(resumed, list):
                raise InputError(describe(versions, "resumed must be a list", got=shown(resumed)))
            resumed.append(now)
        write_json(versions, record)
        self._summary.unlink(missing_ok=True)  # of another budget
        if step == 0 and self.tensorboard.exists():  # points of work that was lost
            shutil.rmtree(self.tensorboard)

    def keep_configuration(self) -> None:
        """Write config.json, unless it is there with the same content."""
        if not self.path.exists():
            make_folder(self.path, {CONFIG: json_text(self.configuration)})
        elif not self.resumed or read_json_object(self.path / CONFIG) != self.configuration:
            write_json(self.path / CONFIG, self.configuration)

    def read_checkpoint(self) -> dict[str, Any] | None:
        """The content of last.ckpt, checked, or None if there is none yet."""
        if not self.checkpoint.exists():
            return None
        where = str(self.checkpoint)
        checkpoint = read_pickled(self.checkpoint, problem=DAMAGED, hint=RESTORE)
        if isinstance(checkpoint, dict) and "pytorch-lightning_version" in checkpoint:
            with damaged(where, DAMAGED, hint=RESTORE):
                checkpoint = _from_lightning(checkpoint)
        entries = checkpoint if isinstance(checkpoint, dict) else {}
        ours, weights = entries.get(CHECKPOINT_KEY), entries.get("model")
        if not isinstance(ours, dict) or "configuration" not in ours or not isinstance(weights, dict):
            raise InputError(describe(where, "is not a checkpoint of relational-rnn", got=type(checkpoint).__name__))
        refuse_differences(self.checkpoint, ours["configuration"], self.configuration)
        score = {"step": int, "valid_accuracy": float, "valid_loss": float}
        needed = {"step": int, "seconds": float, "best": Mapping[str, float] | None}
        check_entries(ours, needed, {"data_seconds": float}, where=where, hint=RESTORE)
        if ours["best"] is not None:
            check_entries(ours["best"], score, {}, where=f"{where}, best", hint=RESTORE)
        for name, tensor in weights.items():
            if not isinstance(tensor, Tensor):
                raise InputError(describe(where, f"{name} must be a tensor", got=type(tensor).__name__, hint=RESTORE))
        return checkpoint

    def read_metrics(self, *, up_to_step: int) -> list[dict[str, str]]:
        """The rows of metrics.csv up to a step; later ones belong to lost work."""
        rows = read_metrics(self._metrics) if self._metrics.exists() else []
        return [row for row in rows if int(row["step"]) <= up_to_step]

    def write_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_whole(self.checkpoint, buffer.getbuffer())

    def write_weights(self, state: Mapping[str, Tensor]) -> None:
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
        write_whole(self.path / WEIGHTS, serialize_tensors(tensors))

    def keep_summary(self, figures: Mapping[str, Json]) -> None:
        """Write summary.json, unless it is there."""
        if not self._summary.exists():
            write_json(self._summary, figures)

    def write_metrics(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(METRICS_COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self._metrics, text.getvalue())


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv as text, checked.

    Raises:
        InputError: the file cannot be read, has other columns (earlier ones lack one or two), or lacks a number.
    """
    header, rows = read_table(path)
    if tuple(header) not in (METRICS_COLUMNS, METRICS_COLUMNS[:-1], METRICS_COLUMNS[:-2]):
        got, expected = shown(",".join(header)), ",".join(METRICS_COLUMNS)
        raise InputError(describe(path, "has other columns than a metrics file", got=got, expected=expected))
    for line, row in enumerate(rows, start=2):
        for name, cell in zip(header, row, strict=True):
            if cell or name not in EMPTY_COLUMNS:
                value = number_in(path, line, name, cell, whole=name in WHOLE_COLUMNS)
                if name in TIMES and not 0 <= value < math.inf:
                    raise InputError(describe(path, f"line {line} has no time under {name!r}", got=shown(cell)))
    return [dict(zip(header, row, strict=True)) for row in rows]


def _from_lightning(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of versions that trained with Lightning's Trainer, in our form."""
    return {
        CHECKPOINT_KEY: checkpoint.get(CHECKPOINT_KEY),
        "model": {name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()},
        "optimizer": next(iter(checkpoint["optimizer_states"]), None),
        "precision": checkpoint.get("MixedPrecision", {}),
    }


def refuse_differences(path: Path, there: Json, here: Json) -> None:
    """Refuse to continue a run under a configuration that differs in more than the budget."""
    lines = [line for line in differences(there, here) if not line.startswith("loop.steps is ")]
    if lines:
        hint = "resume with the configuration of the run, or start a new run in another folder"
        raise InputError(describe(path, f"belongs to another configuration: {'; '.join(lines)}", hint=hint))


def describe_software() -> dict[str, Json]:
    """The versions that affect the numbers, the commit if this package runs from a checkout, and the date."""
    versions: dict[str, Json] = {"relational_rnn": relational_rnn.__version__, "python": platform.python_version()}
    for name in ("torch", "lightning-fabric", "numpy", "safetensors"):
        versions[name] = metadata.version(name)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {**versions, "commit": git_commit(), "date": today, "command": command_line()}


def command_line() -> str:
    """What was typed, without the folder of the program."""
    program = Path(sys.argv[0])
    name = program.parent.name.replace("_", "-") if program.name == "__main__.py" else program.name
    # the caller may have been given words that are not text
    return shlex.join([name, *sys.argv[1:]]).encode(errors="backslashreplace").decode()


def git_commit() -> str | None:
    """The commit this package runs from, with "-dirty" where files were changed; None outside a checkout of it."""
    here = Path(__file__)
    git: list[str] = ["git", "-C", str(here.parent)]
    describe_commit = [*git, "describe", "--always", "--dirty", "--exclude", "*", "--abbrev=7"]
    try:
        # an environment inside some other repository must not lend us that repository's commit
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True)
        return subprocess.run(describe_commit, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git on this machine, or no checkout
        return None


def describe_machine(device: str) -> dict[str, Json]:
    """What the numbers were computed on; `device` is PyTorch's name of the device."""
    cores = usable_cores()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = next(iter(models), platform.processor() or platform.machine())
    capability = torch.backends.cpu.get_cpu_capability()
    machine = f"{cores}-core CPU ({name if capability == 'DEFAULT' else f'{name}, {capability}'})"
    if device.startswith("cuda"):
        machine = f"{torch.cuda.get_device_name(torch.device(device))}, {machine}"
    elif device != "cpu":
        machine = f"{device}, {machine}"
    return {"machine": machine, "device": device, "cores": cores, "threads": torch.get_num_threads()}


def usable_cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
