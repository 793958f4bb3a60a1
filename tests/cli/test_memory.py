"""Memory that runs out is a sentence and exit code 2."""

from __future__ import annotations

import pytest

from relational_rnn.console.boundary import guarded


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_memory_that_runs_out(error, capsys):
    def command():
        raise error

    assert guarded(command) == 2
    assert capsys.readouterr().err.startswith("error: this needs more memory than there is;")


def test_other_errors_are_bugs():
    def command():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        guarded(command)
