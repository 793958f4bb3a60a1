"""Files of stories: folders, archives, lines, and a published archive that is checked."""

from __future__ import annotations

import functools
import io
import random
import tarfile
import zipfile
from pathlib import Path

from fuzz.engine import Family
from fuzz.mutations import ODD_VALUES, damage
from relational_rnn.tasks.babi import fetching
from relational_rnn.tasks.babi.encoding import Vocabulary
from relational_rnn.tasks.babi.reading import read_babi, read_story_text
from relational_rnn.tasks.downloading import check_address

STORY = "1 Ada ran to the attic.\n2 Bo ran to the barn.\n3 Where is Ada? \tattic\t1\n1 Cy ran.\n2 Where is Cy? \tx\t1\n"
FILES = {f"en-10k/qa{task}_{split}.txt": STORY for task in (1, 2) for split in ("train", "test")}
ODD_NUMBERS = ("9" * 5000, "-1", "0", "٣", "1e3", "")


@functools.cache
def archives() -> dict[str, bytes]:
    """The same files as archives of every kind."""
    made = {}
    for suffix, compression in ((".tar", ""), (".tar.gz", "gz"), (".tar.xz", "xz"), (".tar.bz2", "bz2")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:
            for name, text in FILES.items():
                info = tarfile.TarInfo(name)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
        made[suffix] = buffer.getvalue()
    for suffix, method in ((".zip", zipfile.ZIP_DEFLATED), (".stored.zip", zipfile.ZIP_STORED)):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, text in FILES.items():
                archive.writestr(name, text)
        made[suffix] = buffer.getvalue()
    return made


def make_archive(rng: random.Random) -> tuple[str, bytes]:
    suffix = rng.choice(list(archives()))
    return suffix, damage(rng, archives()[suffix], tuple(archives().values()))


def run_archive(case: tuple[str, bytes], folder: Path) -> bool:
    path = folder / f"stories{case[0]}"
    path.write_bytes(case[1])
    return bool(read_babi(path, tasks=[1, 2], partial=True).train)


def run_published(case: tuple[str, bytes], folder: Path) -> bool:
    (folder / fetching.ARCHIVE_NAME).write_bytes(case[1])
    return bool(fetching.fetch_babi(folder))


def make_lines(rng: random.Random) -> bytes:
    data = damage(rng, STORY.encode(), (b"\t", b"?\t", b"1 ", b"\xff"))
    return data.replace(rng.choice((b"1", b"2", b"3")), rng.choice(ODD_NUMBERS).encode(), rng.randrange(3))


def run_lines(case: bytes, folder: Path) -> bool:
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(case)
    read_babi(folder / "en-10k", tasks=[1, 2])
    return bool(read_story_text(case.decode("latin-1").rstrip("\n").split("\n"), "lines", task=1))


def make_vocabulary(rng: random.Random) -> list:
    return [rng.choice((["a", "b"], ["b", "a"], *ODD_VALUES)) for _ in range(3)]


def run_vocabulary(case: list, folder: Path) -> bool:
    import json

    Vocabulary.from_json(json.dumps(dict(zip(("words", "answers", "max_words"), case, strict=False))))
    return True


def make_address(rng: random.Random) -> str:
    pieces = (
        "http://",
        "https://",
        "ftp:",
        "[",
        "]",
        "::1",
        "a" * 70,
        ".",
        "localhost",
        ":",
        "99999",
        "x",
        "/",
        "%",
        "\udcff",
    )
    return "".join(rng.choice(pieces) for _ in range(rng.randrange(7)))


def run_address(case: str, folder: Path) -> bool:
    check_address("address", case)
    return True


FAMILIES = [
    Family("stories: archives", 6, make_archive, run_archive),
    Family("stories: published archive", 2, make_archive, run_published),
    Family("stories: lines", 5, make_lines, run_lines),
    Family("stories: vocabulary", 1, make_vocabulary, run_vocabulary),
    Family("stories: addresses", 2, make_address, run_address),
]
