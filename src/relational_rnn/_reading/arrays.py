"""Arrays that numpy wrote: `.npz`."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from relational_rnn._check import InputError, describe
from relational_rnn._reading.archives import most_unpacked
from relational_rnn._reading.guard import damaged

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_arrays(path: Path, *, where: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by their names; none of Python objects, which only code could make."""
    most = most_unpacked(path)
    with damaged(where, f"{path} cannot be read as an .npz file of arrays"), zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if sum(info.file_size for info in infos) > most:
            raise InputError(describe(where, f"{path} unpacks to too much", expected=f"at most {most:,} bytes"))
        arrays = {}
        for info in infos:
            with archive.open(info) as stream:
                arrays[info.filename.removesuffix(".npy")] = _array(stream, info.file_size)
        return arrays


def _array(stream: IO[bytes], size: int) -> np.ndarray:
    """One array, which takes no more memory than the bytes behind its header do."""
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"an array of format version {version}")
    shape, by_columns, dtype = HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    if any(length < 0 for length in shape) or math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"an array of the shape {shape} in {size:,} bytes")
    values = np.frombuffer(bytearray(stream.read()), dtype, math.prod(shape))  # can be written to
    return values.reshape(shape, order="F" if by_columns else "C")
