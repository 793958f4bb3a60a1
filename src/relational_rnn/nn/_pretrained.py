"""Constructors that remember their arguments, and a module as two files: weights (safetensors) and arguments (JSON).

    config.json          {"format": "relational-rnn", "format_version": 1, "class", "dtype", "arguments"}
    model.safetensors    the state dict; its header repeats the configuration, so that a mix of two saves is noticed

Reading them builds the class that was asked for and copies numbers into it; no code in the files is run.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import re
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, Self

import safetensors.torch
import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, describe, need_extra
from relational_rnn._files import write_whole
from relational_rnn._reading.guard import shown
from relational_rnn._reading.json_text import parse_json, read_json_object
from relational_rnn._reading.structure import check_entries
from relational_rnn._reading.tensors import read_safetensors, sized_by

P = ParamSpec("P")
DIRECTIONS = "a core reads in one direction; the guide shows how two of them read both ways (docs/guide.md)."
OF_LSTM = {
    "bidirectional": DIRECTIONS,
    "proj_size": "nothing projects the state; an nn.Linear after the core projects the output.",
    "bias": "all cores have biases.",
    "num_layers": "stack cores: the output of one is the input of the next, or take a core that has num_layers=.",
    "dropout": "put nn.Dropout before or after the core.",
    "batch_first": "the batch is always the first axis: x is [batch, time, features].",
    "device": "build it, then core.to(device).",
    "dtype": "build it, then core.to(dtype).",
}
"""Arguments of `torch.nn.LSTM`, and what to do where a core does not have them."""
OF_SLOTS = {
    "hidden_size": "the memory has mem_slots * num_heads * head_size numbers; output_size= gives any size.",
    "proj_size": "output_size= projects the output; the memory itself is not projected.",
    "memory_slots": "mem_slots= is the number of slots.",
    "mem_size": "a slot is num_heads * head_size wide.",
    "nonlinearity": "a step has no choice of it.",
}
"""The same for a memory of slots."""
BY_NAME = "the others are given by their names, such as num_layers= where a core has it."
OF_LAYER = "a cell is one step; RelationalMemory, which takes whole sequences, has it."
OF_CELL = {
    **OF_LSTM,
    **OF_SLOTS,
    "proj_size": "the memory is not projected.",
    "hidden_size": "the memory has mem_slots * num_heads * head_size numbers.",
    **dict.fromkeys(("num_layers", "dropout", "batch_first", "output_size", "read_head", "backend"), OF_LAYER),
}
"""The same for one step of it, which has them as `argument_hints`."""
Named = Mapping[str, object]
FORMAT, FORMAT_VERSION = "relational-rnn", 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
HEADER = "relational-rnn"
PLACEMENT = ("device", "dtype")
"""Arguments that say where weights live and how precise they are, not what is computed; they are not saved."""
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
"""How one of the Hugging Face hub is named."""
CARD = """---
library_name: relational-rnn
tags: [relational-memory, recurrent]
---

A `{kind}` of the package relational-rnn:

```python
from {module} import {kind}

layer = {kind}.from_pretrained("{repository}")
```
"""


def remembering(init: Callable[P, None]) -> Callable[P, None]:
    """`init`, which keeps its arguments as `_arguments` when it is the constructor of the object's own class.

    The new function raises `InputError` where an argument is unknown, missing, or given twice.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def remember(*args: P.args, **kwargs: P.kwargs) -> None:
        self = args[0]
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise misfitting_arguments(type(self), signature, args[1:], kwargs) from error
        init(*args, **kwargs)
        if type(self).__init__ is remember:
            bound.apply_defaults()
            vars(self)["_arguments"] = dict(list(bound.arguments.items())[1:])

    return remember


def misfitting_arguments(
    cls: type, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> InputError:
    """The error for arguments that `signature` does not take."""
    parameters = list(signature.parameters.values())[1:]
    names = [parameter.name for parameter in parameters]
    by_place = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    hints = ({**OF_LSTM, **OF_SLOTS} if "mem_slots" in names else OF_LSTM) if "input_size" in names else {}
    hints, given = getattr(cls, "argument_hints", hints), by_place[: len(args)]
    unknown, twice = [name for name in kwargs if name not in names], [name for name in given if name in kwargs]
    got = hint = None
    if unknown:
        problem, hint = f"there is no argument {unknown[0]!r}", hints.get(unknown[0])
    elif len(args) > len(by_place):
        problem, got, hint = (
            f"only {', '.join(by_place)} can be given without their names",
            f"{len(args)} arguments",
            BY_NAME,
        )
    elif twice:
        problem = f"{twice[0]} was given twice"
    else:
        needed = [p.name for p in parameters if p.default is p.empty and p.name not in (*kwargs, *given)]
        problem, hint = (
            f"{', '.join(needed)} must be given",
            hints.get("hidden_size") if "head_size" in needed else None,
        )
    return InputError(describe(cls.__name__, problem, got=got, expected=", ".join(names), hint=hint))


class Pretrained(nn.Module):
    """A module that can be saved and loaded: it remembers what its constructor was given."""

    _arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = remembering(cls.__init__)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` to `folder`, which is created when missing.

        Whatever interrupts the write, each file is the old one or the new one. `from_pretrained` refuses a mix.

        Raises:
            InputError: the parameters have several dtypes, or an argument of the constructor cannot be written as JSON.

        Example:
            >>> import tempfile
            >>> from relational_rnn import RelationalMemory
            >>> layer = RelationalMemory(input_size=5, mem_slots=3, head_size=4)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     layer.save_pretrained(folder)
            ...     same = RelationalMemory.from_pretrained(folder)
            >>> bool((same(torch.ones(1, 2, 5))[0] == layer(torch.ones(1, 2, 5))[0]).all())
            True
        """
        # copies: of weights that are tied, the file holds every one
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.state_dict().items()}
        config = _config(self, tensors)
        folder = Path(folder)
        write_whole(folder / WEIGHTS, safetensors.torch.save(tensors, metadata={HEADER: json.dumps(config)}))
        write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, device: torch.device | str | None = None
    ) -> Self:
        """The module that `save_pretrained` wrote: same class, same arguments, same weights in the same dtype.

        Args:
            source: a folder; or a string "user/name", a repository of the Hugging Face hub to download (needs the extra
                `hub`), if there is no such folder.
            revision: branch, tag or commit of that repository.
            device: where the weights are put; None means PyTorch's default device.

        Raises:
            InputError: a file is missing or damaged, is of another class or a later format, or a weight is missing,
                unknown or of another shape or dtype.
            MissingExtraError: `source` is a repository of the hub and the extra is not installed.
        """
        where = f"{cls.__name__}.from_pretrained"
        folder = Path(source)
        if not folder.is_dir():
            folder = _download(where, source, revision)
        elif revision is not None:
            raise InputError(describe(where, "a folder has no revisions", got=f"revision={revision!r}"))
        config, path = _read_config(where, folder / CONFIG), folder / WEIGHTS
        tensors, texts = read_safetensors(path, where=where, problem=f"{path} cannot be read as safetensors")
        if HEADER in texts and parse_json(texts[HEADER], f"{where}: the header of {path}") != config:
            raise InputError(describe(where, f"{CONFIG} and {WEIGHTS} in {folder} are not of the same save"))
        if config["class"] != cls.__name__:
            hint = f"call {config['class']}.from_pretrained."
            raise InputError(describe(where, "the files are of another class", got=config["class"], hint=hint))
        known = {name: p for name, p in inspect.signature(cls).parameters.items() if name not in PLACEMENT}
        found = {*config["arguments"], *(name for name, p in known.items() if p.default is not p.empty)}
        _check_names(where, f"{CONFIG} holds arguments that {cls.__name__} does not have", known, found)
        dtype = getattr(torch, config["dtype"])
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten: the caller's numbers stay
            problem = f"nothing can be built from the arguments in {folder / CONFIG}"
            with sized_by(tensors, where=where, problem=problem):
                module = cls(**config["arguments"]).to(dtype)
        kinds = [{n: f"{tuple(t.shape)} of {t.dtype}" for n, t in of.items()} for of in (module.state_dict(), tensors)]
        check_tensors(where, f"{WEIGHTS} does not hold the weights of this layer", *kinds, what="shape or dtype")
        module.load_state_dict(tensors)
        return module if device is None else module.to(device)

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The constructor's arguments, defaults included, without device and dtype."""
        return {name: value for name, value in self._arguments.items() if name not in PLACEMENT}

    def alike(self, **changes: Any) -> Self:
        """A new module of the same class and arguments, but for `changes`, with weights of its own.

        Example:
            >>> from relational_rnn.nn import GRU
            >>> GRU(5, 8).alike(input_size=8)
            GRU(8, 8)
        """
        return type(self)(**{**self._arguments, **changes})

    def push_to_hub(self, repository: str, *, private: bool = False, message: str = "Upload the weights") -> str:
        """Save to a repository "user/name" of the Hugging Face hub, which is made when missing.

        Returns:
            the address of the commit.

        Raises:
            InputError: the name cannot be used, or the hub refuses.
            MissingExtraError: the extra `hub` is not installed.
        """
        where = f"{type(self).__name__}.push_to_hub"
        if not REPOSITORY.fullmatch(repository):
            raise InputError(describe(where, "the repository must be named as user/name", got=repr(repository)))
        hub = need_extra("huggingface_hub", "hub", where)
        card = CARD.format(kind=type(self).__name__, module=type(self).__module__, repository=repository)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            (Path(folder) / "README.md").write_text(card, encoding="utf-8")
            api = hub.HfApi()
            try:
                api.create_repo(repository, private=private, exist_ok=True)
                commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
            except (OSError, ValueError) as error:
                raise InputError(describe(where, f"{repository} cannot be written", got=_first_line(error))) from error
        return str(commit.commit_url)


def _config(module: Pretrained, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `config.json` holds; refuses what `from_pretrained` could not read, such as weights of other modules."""
    where = f"{type(module).__name__}.save_pretrained"
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    if len(dtypes) != 1:
        hint = "convert first, for example layer.float()."
        raise InputError(describe(where, "the weights must all have one dtype", got=", ".join(dtypes), hint=hint))
    arguments = dict(module.arguments)
    for name, value in arguments.items():
        if not (value is None or isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value))):
            problem, expected = f"{name} cannot be written as JSON", "text, a finite number, True, False or None"
            raise InputError(describe(where, problem, got=repr(value), expected=expected))
    with torch.device("meta"):
        wanted = type(module)(**arguments).state_dict()
    here, there = ({name: t.shape for name, t in of.items()} for of in (tensors, wanted))
    different = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
    if different:
        problem = "the weights are not those of this constructor, and no file of them could be loaded"
        hint = (
            "first take off pruning, norms and adapters (prune.remove, remove_parametrizations), or save state_dict()."
        )
        raise InputError(describe(where, problem, got=different[0], hint=hint))
    named = {"class": type(module).__name__, "dtype": dtypes[0], "arguments": arguments}
    return {"format": FORMAT, "format_version": FORMAT_VERSION, **named}


def _read_config(where: str, path: Path) -> dict[str, Any]:
    config: dict[str, Any] = read_json_object(path)
    if config.get("format") != FORMAT:
        raise InputError(describe(where, f"{path} is not of a saved layer", expected=f'"format": "{FORMAT}"'))
    if config.get("format_version") != FORMAT_VERSION:
        got, expected = shown(config.get("format_version")), FORMAT_VERSION
        hint = "a newer relational-rnn may read it."
        raise InputError(describe(where, f"{path} has another format version", got=got, expected=expected, hint=hint))
    kinds = {"class": str, "dtype": str, "arguments": Mapping[str, bool | int | float | str | None]}
    check_entries(config, kinds, {}, where=f"{where}: {path}")
    unknown = sorted(set(config) - {"format", "format_version", *kinds})
    if unknown:
        raise InputError(describe(where, f"{path} is damaged", got=shown(unknown), expected=sorted(kinds)))
    if config["dtype"] not in ("float64", "float32", "bfloat16", "float16"):
        raise InputError(describe(where, f"{path} names an unknown dtype", got=shown(config["dtype"])))
    return config


def check_tensors(
    where: str, problem: str, wanted: Named, found: Named, *, what: str = "shape", hint: str | None = None
) -> None:
    """Refuse tensors that do not have the wanted names, or whose shapes (or whatever `what` is) are not the same."""
    _check_names(where, problem, wanted, found, hint=hint)
    for name, expected in wanted.items():
        if found[name] != expected:
            raise InputError(describe(where, f"{name} has the wrong {what}", got=found[name], expected=expected))


def _check_names(
    where: str, problem: str, wanted: Collection[str], found: Collection[str], *, hint: str | None = None
) -> None:
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or unknown:
        got = f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        raise InputError(describe(where, problem, got=got, hint=hint))


def _download(where: str, source: str | Path, revision: str | None) -> Path:
    """The folder of a repository's files, downloaded unless they are here already."""
    if not isinstance(source, str) or not REPOSITORY.fullmatch(source):
        hint = 'a repository of the Hugging Face hub is named as a string, "user/name".'
        raise InputError(describe(where, f"there is no folder {str(source)!r}", hint=hint))
    hub = need_extra("huggingface_hub", "hub", f"{where}: there is no folder {source!r}, and downloading it")
    try:
        files = [CONFIG, WEIGHTS]
        return Path(hub.snapshot_download(source, revision=revision, allow_patterns=files))
    except (OSError, ValueError) as error:  # what the hub's client raises: no such repository, no network, a bad name
        raise InputError(describe(where, f"{source} cannot be downloaded", got=_first_line(error))) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
