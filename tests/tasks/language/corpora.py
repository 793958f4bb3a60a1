"""Small corpora for tests as files, folders and archives; and where the published files are, if anywhere."""

from __future__ import annotations

import io
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "two", "birds")


def made_up_text(lines: int, seed: int = 0) -> str:
    """Lines of 1 to 9 of WORDS; every sixth line is blank."""
    draw = random.Random(seed)
    return "".join(
        "\n" if number % 6 == 5 else " ".join(draw.choices(WORDS, k=draw.randrange(1, 10))) + "\n"
        for number in range(lines)
    )


def write_folder(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


def write_archive(path: Path, files: dict[str, str]) -> Path:
    """A .zip, or a .tar of the compression that the name ends with."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, text in files.items():
                packed.writestr(name, text)
        return path
    compression = path.suffix.removeprefix(".").removeprefix("tar")
    with tarfile.open(path, f"w:{compression}") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def published(variable: str) -> Path:
    """The published files that an environment variable names; skips the test where it names none."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} does not name the published files")
    return Path(value)


PARTS = {
    split: made_up_text(lines, seed)
    for seed, (split, lines) in enumerate(zip(("train", "valid", "test"), (40, 11, 17), strict=True))
}
NAMES = {
    "plain": {split: f"{split}.txt" for split in PARTS},
    "wikitext": {split: f"wikitext-9/wiki.{split}.tokens" for split in PARTS},
    "penn": {split: f"ptb.{split}.txt" for split in PARTS},
    "folders": {"train": "train/a.txt", "valid": "validation/b.txt", "test": "test/c.txt"},
}


def named(style: str) -> dict[str, str]:
    return {NAMES[style][split]: text for split, text in PARTS.items()}


def made(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []
