"""What the folder of a run on language holds: its configuration, its text's vocabulary and size, its weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from relational_rnn._check import InputError, describe
from relational_rnn._reading.plain import read_text
from relational_rnn._reading.tensors import shapes_in_safetensors
from relational_rnn.recipes.language import LanguageRun
from relational_rnn.recipes.language_problem import build_language_model
from relational_rnn.recipes.running import as_json, load_weights, read_config_file
from relational_rnn.tasks.language.corpus import Corpus
from relational_rnn.tasks.language.model import LanguageModel
from relational_rnn.tasks.language.vocabulary import Vocabulary
from relational_rnn.training import from_json
from relational_rnn.training.json_files import Json, read_json_object


def language_config_json(config: LanguageRun) -> dict[str, Json]:
    """The configuration as config.json holds it: the name of the task comes first."""
    return {"task": config.task_name, **as_json(config)}


def run_files(corpus: Corpus) -> dict[str, Json]:
    """What a run folder keeps about its text: the contents of two files, by their names."""
    parts = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
    counts: dict[str, Json] = {
        split: {"tokens": len(text), "words": text.words, "characters": text.characters}
        for split, text in parts.items()
    }
    return {
        "vocabulary.json": json.loads(corpus.vocabulary.to_json()),
        "data.json": {"text": counts, "report": [*corpus.report]},
    }


def check_same_text(folder: Path, files: Mapping[str, Json]) -> None:
    """Refuse a text that has changed since the run in the folder began.

    Args:
        folder: of the run.
        files: what `run_files` says of the text as it is now.

    Raises:
        InputError: it has changed.
    """
    for name in files:
        path = folder / name
        if not path.exists() and not (folder / "last.ckpt").exists():  # killed before it was written
            continue
        if read_json_object(path) != files[name]:
            what = "vocabulary" if name == "vocabulary.json" else "number of tokens"
            problem = f"the text is not the one that the run began with: its {what} is another"
            hint = "put the text back as it was, or start a new run in another folder."
            raise InputError(describe(str(path), problem, hint=hint))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LoadedLanguageRun:
    """A trained model with all that is needed to use it."""

    folder: Path
    """Where it was trained."""
    config: LanguageRun
    """How."""
    model: LanguageModel
    """With the weights that did best on the validation text; on the CPU, in evaluation mode."""
    vocabulary: Vocabulary
    """Between its tokens and text."""


def read_language_config(folder: Path | str) -> LanguageRun:
    """The configuration of the run in a folder.

    Raises:
        InputError: there is no run on language in it, or it was written by another version of this package.
    """
    path, content = read_config_file(Path(folder))
    task = content.pop("task", "babi")
    if task != LanguageRun.task_name:
        raise InputError(describe(str(folder), "the run is not on language", got=task))
    return from_json(LanguageRun, content, where=str(path))


def load_language(folder: Path | str) -> LoadedLanguageRun:
    """Load the best weights of a run.

    Raises:
        InputError: there is no run on language in the folder, no weights yet, a file of it cannot be read, or the
            vocabulary does not match the weights.
    """
    folder = Path(folder)
    config = read_language_config(folder)
    vocabulary = read_vocabulary(folder)
    _check_vocabulary(folder, vocabulary)
    model = load_weights(lambda: build_language_model(config, vocabulary.size), folder)
    return LoadedLanguageRun(folder=folder, config=config, model=model, vocabulary=vocabulary)


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of the run in a folder.

    Raises:
        InputError: the file cannot be read.
    """
    path = folder / "vocabulary.json"
    return Vocabulary.from_json(read_text(path), where=str(path))


def _check_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Refuse a vocabulary of another size than the embedding; what else is wrong with the weights is said elsewhere."""
    path = folder / "model.safetensors"
    if not path.exists():
        return
    shape = shapes_in_safetensors(path, problem="the weights cannot be read").get("embedding.weight")
    if shape and shape[0] != vocabulary.size:
        problem = "the vocabulary does not match the weights beside it"
        hint = "put the vocabulary.json back that the run began with."
        got, expected = f"{vocabulary.size:,} tokens", f"{shape[0]:,}, as in {path.name}"
        raise InputError(describe(str(folder / "vocabulary.json"), problem, got=got, expected=expected, hint=hint))
