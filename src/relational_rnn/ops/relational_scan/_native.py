"""The compiled kernels of the CPU scan: finding them, what a call tells them, and running one.

The library is loaded by ctypes, which lets go of Python's lock during a call. It takes pointers and sizes and allocates
nothing. `hatch_build.py` compiles it.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from relational_rnn._check import InputError, describe

VARIABLE = "RELATIONAL_RNN_KERNELS"
_FOLDER = Path(__file__).parent
_LIBRARY = _FOLDER / "native" / "kernels.so"
_BUILDING = (
    "with a C compiler, `python hatch_build.py` builds them in a source tree, and elsewhere "
    "`RELATIONAL_RNN_BUILD_KERNELS=require pip install --force-reinstall --no-deps --no-binary relational-rnn "
    "relational-rnn`"
)
_HUGE = 1 << 22  # bytes from which numpy asks the system for huge pages
_NUMPY_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}
_LONG, _POINTER, _DOUBLE = ctypes.c_long, ctypes.c_void_p, ctypes.c_double


class Phase(IntEnum):
    """What the threads work on together; the next phase begins when all are done."""

    PACK_FORWARD = 0
    FORWARD = 1
    PACK_BACKWARD = 2
    BACKWARD = 3
    WEIGHTS = 4
    FINISH = 5


class Numbers(IntEnum):
    """Pieces of memory that a call needs, whose sizes the library tells."""

    PACKED = 0  # once
    KEPT = 1  # per tile
    DIFFERENCES = 2  # per tile
    SUMS = 3  # per tile
    SCRATCH = 4  # per thread


class LibraryCall(ctypes.Structure):
    """A struct that the library works on."""

    family: ClassVar[str]
    """What the library's functions for such calls begin with: "scan" or "fast"."""
    if TYPE_CHECKING:  # a field of every such struct
        next: int

    def put(self, **tensors: Tensor | None) -> None:
        """Where tensors lie that run over batch and time, and how far apart their sequences and steps."""
        for name, t in tensors.items():
            if t is not None:
                for field, value in (
                    (name, t.data_ptr()),
                    (f"{name}_batch", t.stride(0)),
                    (f"{name}_step", t.stride(1)),
                ):
                    setattr(self, field, value)


def over_time(name: str) -> tuple[tuple[str, Any], ...]:
    """The fields of a tensor that runs over batch and time."""
    return (name, _POINTER), (f"{name}_batch", _LONG), (f"{name}_step", _LONG)


class NativeCall(LibraryCall):
    """`Call` of native/call.h, where the fields are explained."""

    family: ClassVar[str] = "scan"
    _fields_ = (
        *((name, _LONG) for name in ("batch", "steps", "slots", "inputs", "features", "width", "heads", "key")),
        *((name, _LONG) for name in ("gates", "blocks", "layers", "sonnet", "competitive", "input_rows")),
        ("input_bias", _DOUBLE),
        ("forget_bias", _DOUBLE),
        *((name, _LONG) for name in ("tile_batch", "tile_from", "tile_to", "step_from", "step_to")),
        *((name, _LONG) for name in ("kept_tile_from", "kept_from", "kept_steps", "packed_weights", "next")),
        *((name, _POINTER) for name in ("parameters", "gradients")),
        *over_time("x"),
        *((name, _POINTER) for name in ("memory", "initial")),
        ("initial_batch", _LONG),
        *((name, _POINTER) for name in ("lengths", "reset", "outputs", "attended", "final")),
        *over_time("d_outputs"),
        *over_time("d_attended"),
        *((name, _POINTER) for name in ("d_memory", "d_initial", "d_x")),
        *((name, _POINTER) for name in ("packed", "kept", "differences", "sums", "scratch")),
    )


@dataclass(frozen=True)
class Kernels:
    """The library, and which of its instances runs."""

    library: Any
    instance: int
    name: str
    team: int | None
    """Address of the GOMP_parallel of the OpenMP that torch runs on, if that is how it has its threads."""

    def numbers(self, call: LibraryCall, what: int, *, double: bool) -> int:
        function = getattr(self.library, call.family + "_numbers")
        return function(ctypes.byref(call), self.instance, double, int(what))

    def run(self, call: LibraryCall, phases: Sequence[int], threads: int, *, double: bool) -> None:
        """The phases one after the other, each by that many threads."""
        if self.team is not None or threads == 1:
            every = (ctypes.c_int * len(phases))(*phases)
            run = getattr(self.library, call.family + "_run")
            run(ctypes.byref(call), self.instance, double, every, len(phases), threads, self.team)
            return
        work = getattr(self.library, call.family + "_work")
        with ThreadPoolExecutor(threads) as pool:
            for phase in phases:
                call.next = 0
                jobs = [
                    pool.submit(work, ctypes.byref(call), self.instance, double, int(phase), worker)
                    for worker in range(threads)
                ]
                for job in jobs:
                    job.result()


def find() -> Kernels | str:
    """The kernels that run, or why none do, as the environment variable RELATIONAL_RNN_KERNELS has it.

    "auto" or nothing: the fastest instance that this processor can run; "off": none; or an instance by its name:
    "avx512", "avx2", "baseline".

    Raises:
        InputError: the variable names an instance that is not there, or that this processor cannot run.
    """
    return _find(os.environ.get(VARIABLE) or "auto")


@functools.cache
def _find(choice: str) -> Kernels | str:
    if choice == "off":
        return f"{VARIABLE}=off"
    library = _load()
    if isinstance(library, str):
        if choice != "auto":
            raise InputError(describe(VARIABLE, "names kernels, and there are none", got=choice, hint=library))
        return library
    names: list[str] = []
    while (name := library.scan_instance(len(names))) is not None:
        names.append(name.decode())
    can_run = [name for i, name in enumerate(names) if library.scan_supported(i)]
    if choice != "auto" and choice not in can_run:
        expected = ", ".join(["auto", "off", *can_run])
        raise InputError(describe(VARIABLE, "does not name kernels that can run here", got=choice, expected=expected))
    name = can_run[0] if choice == "auto" else choice
    return Kernels(library, names.index(name), name, _team())


def _load() -> Any:
    """The library, or why there is none."""
    if not _LIBRARY.exists():
        return f"the compiled kernels are missing: installation found no C compiler, or skipped them; {_BUILDING}"
    try:
        library = ctypes.CDLL(str(_LIBRARY))
        library.scan_sources.restype = library.scan_instance.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:  # for another system, damaged, or another library
        return f"the compiled kernels cannot be loaded: {error}; {_BUILDING}"
    library.scan_call_bytes.restype = _LONG
    sources = sorted((_FOLDER / "native").glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(path.name.encode() + b"\0" + path.read_bytes() for path in sources))
    if sources and library.scan_sources().decode() != digest.hexdigest()[:16]:
        return f"the compiled kernels are not those of the sources beside them; {_BUILDING}"
    assert library.scan_call_bytes() == ctypes.sizeof(NativeCall)
    library.fast_call_bytes.restype = _LONG
    for family in ("scan", "fast"):
        run, work, numbers = (getattr(library, f"{family}_{name}") for name in ("run", "work", "numbers"))
        run.restype = work.restype = None
        numbers.restype = _LONG
        run.argtypes = [_POINTER, *[ctypes.c_int] * 2, _POINTER, *[ctypes.c_int] * 2, _POINTER]
        work.argtypes = [_POINTER, *[ctypes.c_int] * 4]
        numbers.argtypes = [_POINTER, *[ctypes.c_int] * 3]
    return library


def _team() -> int | None:
    """torch loads its OpenMP for everyone to see, under the names of GNU's (other OpenMPs have these names too)."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, _POINTER).value
    except (AttributeError, OSError, TypeError):
        return None


def address(t: Tensor | None) -> int | None:
    """Where the numbers of a tensor lie."""
    return None if t is None else t.data_ptr()


def addresses(tensors: Sequence[Tensor | None]) -> Any:
    """A table of addresses, which has to live as long as the call that gets its own."""
    return (_POINTER * len(tensors))(*map(address, tensors))


def fresh(count: int, dtype: torch.dtype) -> Tensor:
    """`count` numbers, not initialised; large ones on huge pages, which take a quarter of the time to touch first."""
    if count * dtype.itemsize >= _HUGE:
        return torch.from_numpy(np.empty(count, _NUMPY_DTYPES[dtype]))
    return torch.empty(count, dtype=dtype, device="cpu")  # whatever device PyTorch has as its default
