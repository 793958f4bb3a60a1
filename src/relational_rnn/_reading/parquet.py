"""Parquet of others, read in a process of its own: of some damaged files the library does not raise, it dies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from relational_rnn._check import InputError, describe, need_extra
from relational_rnn._reading.guard import reason
from relational_rnn._reading.plain import check_file


def read_column(path: Path, column: str, *, extra: str, hint: str | None = None) -> Iterator[str | None]:
    """The texts in a column of a Parquet file, row by row; pyarrow reads it, which the extra `extra` brings."""
    need_extra("pyarrow.parquet", extra, "reading Parquet files")
    check_file(path)
    command = [sys.executable, "-P", "-m", __name__, str(path), column]  # -P: no module of the folder where we are
    told = "the library that reads it crashed"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                row = json.loads(line)
                if isinstance(row, dict):  # the last line
                    told = row["told"]
                    break
                yield row
        finally:
            process.kill()
    if told is not None:
        raise InputError(describe(path, "it cannot be read as Parquet", got=told, hint=hint))


def main(path: str, column: str) -> None:
    """Write every row as a line of JSON, and at last what went wrong, or null."""
    told = None
    try:
        from pyarrow import parquet

        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(columns=[column]):
                rows = batch.column(0).to_pylist()
                if not all(row is None or isinstance(row, str) for row in rows):
                    raise ValueError(f"the column {column!r} does not hold texts")
                sys.stdout.writelines(json.dumps(row) + "\n" for row in rows)
    except Exception as error:
        told = reason(error)
    print(json.dumps({"told": told}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
