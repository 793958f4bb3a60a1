"""The compiled kernels of the CPU scans: finding them, what a call tells them, and running one.

The library, which `hatch_build.py` compiles, is loaded by ctypes. It takes pointers and sizes and allocates nothing.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import threading
import weakref
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
_HUGE = 1 << 20  # bytes from which memory is used again; from 4 MiB on numpy asks the system for huge pages
_NUMPY_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}
_LONG, _POINTER = ctypes.c_long, ctypes.c_void_p


class Phase(IntEnum):
    """What the threads work on together; a phase begins when the one before it is done."""

    PACK_FORWARD = 0
    FORWARD = 1
    PACK_BACKWARD = 2
    BACKWARD = 3
    WEIGHTS = 4
    FINISH = 5


class LibraryCall(ctypes.Structure):
    """A struct that the library works on."""

    family: ClassVar[str]  # what the library's functions for such calls begin with: "scan" or "fast"
    room: ClassVar[tuple[str, ...]]  # the fields for memory to work in, in the order of the library's numbers
    if TYPE_CHECKING:  # a field of every such struct
        next: int

    def point(self, **given: Tensor | Sequence[Tensor | None] | ctypes.Array[Any] | None) -> None:
        """Set fields to addresses (and strides) of tensors or tables of them, which then live as long as this call."""
        for name, one in given.items():
            if one is None:
                setattr(self, name, None)
            elif isinstance(one, Tensor):
                setattr(self, name, one.data_ptr())
                if hasattr(self, f"{name}_step"):
                    setattr(self, f"{name}_batch", one.stride(0))
                    setattr(self, f"{name}_step", one.stride(1))
                setattr(self, f"_{name}", one)
            else:
                table = one if isinstance(one, ctypes.Array) else addresses(one)
                setattr(self, name, ctypes.addressof(table))
                setattr(self, f"_{name}", (one, table))


def longs(names: str) -> list[tuple[str, Any]]:
    """Fields of whole numbers."""
    return [(name, _LONG) for name in names.split()]


def pointers(names: str) -> list[tuple[str, Any]]:
    """Fields of addresses."""
    return [(name, _POINTER) for name in names.split()]


def over_time(name: str) -> list[tuple[str, Any]]:
    """The fields of a tensor that runs over batch and time."""
    return [*pointers(name), *longs(f"{name}_batch {name}_step")]


class NativeCall(LibraryCall):
    """`Call` of native/call.h, where the fields are explained."""

    family: ClassVar[str] = "scan"
    room: ClassVar[tuple[str, ...]] = ("packed", "kept", "differences", "sums", "scratch")
    _fields_ = (
        *longs("batch steps slots inputs features width heads key gates blocks layers sonnet competitive input_rows"),
        ("input_bias", ctypes.c_double),
        ("forget_bias", ctypes.c_double),
        *longs(
            "tile_batch tile_from tile_to step_from step_to kept_tile_from kept_from kept_steps packed_weights next"
        ),
        *pointers("parameters gradients"),
        *over_time("x"),
        *pointers("memory initial"),
        *longs("initial_batch"),
        *pointers("lengths reset outputs attended final"),
        *over_time("d_outputs"),
        *over_time("d_attended"),
        *pointers("d_memory d_initial d_x packed kept differences sums scratch"),
    )


@dataclass(frozen=True)
class Kernels:
    """The library, and which of its instances runs."""

    library: Any
    instance: int
    name: str
    team: int | None  # address of GOMP_parallel, if torch has its threads from such an OpenMP

    def numbers(self, call: LibraryCall, what: str, dtype: torch.dtype) -> int:
        """How many numbers one piece of a kind of memory has."""
        numbers = getattr(self.library, call.family + "_numbers")
        return numbers(ctypes.byref(call), self.instance, dtype == torch.float64, call.room.index(what))

    def give_room(self, call: LibraryCall, dtype: torch.dtype, **pieces: int) -> dict[str, Tensor]:
        """Memory for the call, as many pieces of each kind as named; sums start from 0."""
        sizes = {what: count * self.numbers(call, what, dtype) for what, count in pieces.items()}
        room = {what: fresh(size, dtype) for what, size in sizes.items()}
        if "sums" in room:
            room["sums"].zero_()
        call.point(**room)
        return room

    def run(self, call: LibraryCall, phases: Sequence[int], threads: int, dtype: torch.dtype) -> None:
        """Run the phases one after the other, each by that many threads."""
        double = dtype == torch.float64
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
    """The kernels that run, or why none do.

    The environment variable RELATIONAL_RNN_KERNELS chooses: "auto" or nothing, the fastest instance that this processor
    can run; "off", none; or the name of an instance, "avx512", "avx2" or "baseline".

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
    """The GOMP_parallel of torch's OpenMP, which is loaded for everyone to see; other OpenMPs have this name too."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, _POINTER).value
    except (AttributeError, OSError, TypeError):
        return None


def addresses(tensors: Sequence[Tensor | None]) -> Any:
    """A table of addresses, which must outlive the call that reads it."""
    return (_POINTER * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))


def fresh(count: int, dtype: torch.dtype) -> Tensor:
    """`count` uninitialised numbers; many of them lie on huge pages, and in memory that earlier calls have touched."""
    if count * dtype.itemsize >= _HUGE:
        return _MEMORY.take(count, dtype)
    return torch.empty(count, dtype=dtype, device="cpu")  # whatever device PyTorch has as its default


class _Memory:
    """Large pieces of memory that are used again: to touch fresh memory for the first time can take longer than to
    compute what lies in it, above all in a virtual machine.

    What is kept and what is in use is together never more than the most that has been in use at once.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a piece may come back while another is taken
        self._spare: list[np.ndarray[Any, Any]] = []
        self._used = self._most = 0

    def take(self, count: int, dtype: torch.dtype) -> Tensor:
        """Numbers whose memory comes back when no tensor lies in it any more."""
        size = count * dtype.itemsize
        with self._lock:
            fitting = [one for one in self._spare if size <= one.nbytes <= size + size // 4]
            block = min(fitting, key=lambda one: one.nbytes, default=None)
            if block is None:
                self._most = max(self._most, self._used + size)
                while self._spare and self._used + size + sum(one.nbytes for one in self._spare) > self._most:
                    self._spare.pop(0)
                block = np.empty(-(-size // 8) * 8, np.uint8)
            else:
                self._spare = [one for one in self._spare if one is not block]
            self._used += block.nbytes
            lent = block.view(_NUMPY_DTYPES[dtype])[:count]  # what torch holds as long as anything lies there
            weakref.finalize(lent, self._come_back, block).atexit = False
            return torch.from_numpy(lent)

    def _come_back(self, block: np.ndarray[Any, Any]) -> None:
        with self._lock:
            self._used -= block.nbytes
            self._spare.append(block)

    def give_back(self) -> None:
        """Hand what is not in use to the system."""
        with self._lock:
            self._spare.clear()
            self._most = self._used


_MEMORY = _Memory()


def free_memory() -> None:
    """Hand the memory that kernels keep between calls back to the system.

    The CPU scans keep the largest pieces of a training pass for the next one, as touching fresh memory takes time. They
    never keep more than one pass has used.
    """
    _MEMORY.give_back()
