"""Texts for language models: files, archives and vocabularies."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

from fuzz.engine import Family
from fuzz.mutations import ODD_VALUES, damage, damaged_json
from fuzz.stories import archives
from relational_rnn.tasks.language.corpus import CorpusConfig, prepare
from relational_rnn.tasks.language.vocabulary import Vocabulary

TEXT = ("to be or not to be\n= A heading =\n\n" * 12 + "ä € 𝄞 \ufeff\r\n" * 9).encode()


def make_corpus(rng: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {"vocabulary": rng.choice(("word", "character", "bpe"))}
    if options["vocabulary"] == "bpe":
        options["vocabulary_size"] = rng.choice((256, 260))
    for name in ("vocabulary_size", "line_ends", "documents", "vocabulary"):
        if rng.random() < 0.1:
            options[name] = rng.choice((*ODD_VALUES, "blank", 3))
    kind = rng.choice(("t.txt", "t.txt", *(f"t{suffix}" for suffix in archives())))
    data = TEXT if kind == "t.txt" else archives()[kind[1:]]
    return {"name": kind, "data": damage(rng, data, (b"\xff\xfe", b"\r", b"")), "options": options}


def run_corpus(case: dict[str, Any], folder: Path) -> bool:
    path = folder / case["name"]
    path.write_bytes(case["data"])
    prepare(CorpusConfig(path=path, **case["options"]), cache=folder / "cache", block=100)
    return True


@functools.cache
def vocabularies() -> list[Any]:
    made = [
        Vocabulary.build(kind, [TEXT.decode()], size=size)
        for kind, size in (("word", None), ("character", None), ("bpe", 260))
    ]
    return [json.loads(vocabulary.to_json()) for vocabulary in made]


def make_vocabulary(rng: random.Random) -> bytes:
    return damaged_json(rng, rng.choice(vocabularies()))


def run_vocabulary(case: bytes, folder: Path) -> bool:
    vocabulary = Vocabulary.from_json(case.decode("utf-8", "replace"), "fuzz")
    vocabulary.decode(vocabulary.encode("be\n").tolist())
    vocabulary.to_json()
    return True


FAMILIES = [
    Family("texts: corpora", 3, make_corpus, run_corpus),
    Family("texts: vocabularies", 3, make_vocabulary, run_vocabulary),
]
