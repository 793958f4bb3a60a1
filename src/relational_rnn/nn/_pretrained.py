"""A module as two files: its weights (safetensors) and what its constructor was given (JSON).

    config.json          {"format": "relational-rnn", "format_version": 1, "class", "dtype", "arguments"}
    model.safetensors    the state dict; its header repeats the configuration, so that a mix of two saves is noticed

Reading them builds the class that was asked for and copies numbers into it; nothing in the files is ever executed.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import re
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, describe, need_extra
from relational_rnn._files import write_whole
from relational_rnn._reading.guard import shown
from relational_rnn._reading.json_text import parse_json, read_json_object
from relational_rnn._reading.structure import check_entries
from relational_rnn._reading.tensors import read_safetensors, sized_by
from relational_rnn.nn._arguments import bound_arguments

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


class Pretrained(nn.Module):
    """A module that can be saved and loaded: it remembers what its constructor was given."""

    _arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _remembering(cls.__init__)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` to `folder`, which is created when missing.

        Each file is either the old one or the new one, whatever interrupts the write; `from_pretrained` refuses the
        one file of an old save beside the other of a new one.

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
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        config = _config(self, tensors)
        _check_saved(self, tensors)
        tensors = _apart(tensors)
        folder = Path(folder)
        write_whole(folder / WEIGHTS, safetensors.torch.save(tensors, metadata={HEADER: json.dumps(config)}))
        write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, device: torch.device | str | None = None
    ) -> Self:
        """The module that `save_pretrained` wrote: same class, same arguments, same weights in the same dtype.

        Args:
            source: a folder; or, as a string "user/name" where no such folder exists, a repository of the Hugging Face
                hub, which is then downloaded and needs the extra `hub`.
            revision: branch, tag or commit of a repository of the hub.
            device: where the weights are put; None means PyTorch's default device.

        Raises:
            InputError: a file is missing or damaged, is of another class or a later format, or a weight is missing,
                unknown or of another shape or dtype. Nothing is built from such files.
            MissingExtraError: `source` is a repository of the hub and the extra is not installed.
        """
        where = f"{cls.__name__}.from_pretrained"
        folder = Path(source)
        if not folder.is_dir():
            folder = _download(where, source, revision)
        elif revision is not None:
            raise InputError(describe(where, "a folder has no revisions", got=f"revision={revision!r}"))
        config = _read_config(where, folder / CONFIG)
        tensors, header = _read_tensors(where, folder / WEIGHTS)
        if header is not None and header != config:
            raise InputError(describe(where, f"{CONFIG} and {WEIGHTS} in {folder} are not of the same save"))
        _check_class(where, cls, config)
        dtype = getattr(torch, config["dtype"])
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten: the caller's numbers stay
            problem = f"nothing can be built from the arguments in {folder / CONFIG}"
            with sized_by(tensors, where=where, problem=problem):
                module = cls(**config["arguments"]).to(dtype)
        _check_tensors(where, module.state_dict(), tensors)
        module.load_state_dict(tensors)
        return module if device is None else module.to(device)

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What the constructor was called with, defaults included, but for device and dtype."""
        return {name: value for name, value in self._arguments.items() if name not in PLACEMENT}

    def alike(self, **changes: Any) -> Self:
        """A new module of the same class with the same arguments but for `changes`, and weights of its own.

        Example:
            >>> from relational_rnn.nn import GRU
            >>> GRU(5, 8).alike(input_size=8)
            GRU(8, 8)
        """
        return type(self)(**{**self._arguments, **changes})

    def push_to_hub(self, repository: str, *, private: bool = False, message: str = "Upload the weights") -> str:
        """Save to a repository "user/name" of the Hugging Face hub, which is made when missing; needs the extra `hub`.

        Returns:
            the address of the commit.

        Raises:
            InputError: the name cannot be used, or the hub refuses.
            MissingExtraError: the extra is not installed.
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


def _remembering(init: Callable[..., None]) -> Callable[..., None]:
    """`init`, which also notes its arguments when it is the constructor of the object's own class."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def remembering(self: Pretrained, *args: Any, **kwargs: Any) -> None:
        arguments = bound_arguments(type(self), signature, args, kwargs)
        init(self, *args, **kwargs)
        if type(self).__init__ is remembering:
            self._arguments = arguments

    return remembering


def _config(module: Pretrained, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    where = f"{type(module).__name__}.save_pretrained"
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    if len(dtypes) != 1:
        hint = "convert first, for example layer.float()."
        raise InputError(describe(where, "the weights must all have one dtype", got=", ".join(dtypes), hint=hint))
    arguments = dict(module.arguments)
    for name, value in arguments.items():
        plain = (
            value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
        )
        if not plain:
            problem = f"{name} cannot be written as JSON"
            raise InputError(
                describe(where, problem, got=repr(value), expected="text, a finite number, True, False or None")
            )
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "class": type(module).__name__,
        "dtype": dtypes[0],
        "arguments": arguments,
    }


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each in memory of its own: of weights that are tied, the file holds every one."""
    taken: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        at = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone() if at in taken else tensor
        taken.add(at)
    return own


def _check_saved(module: Pretrained, tensors: Mapping[str, Tensor]) -> None:
    """Refuse to write what `from_pretrained` could not read: modules within that are not those of the constructor."""
    with torch.device("meta"):
        wanted = type(module)(**module.arguments).state_dict()
    different = sorted(
        name
        for name in {*wanted, *tensors}
        if name not in wanted or name not in tensors or wanted[name].shape != tensors[name].shape
    )
    if different:
        problem = "the weights are not those of this constructor, and no file of them could be loaded"
        hint = (
            "take pruning, norms and adapters off first (prune.remove, remove_parametrizations), or save state_dict()."
        )
        raise InputError(describe(f"{type(module).__name__}.save_pretrained", problem, got=different[0], hint=hint))


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


def _read_tensors(where: str, path: Path) -> tuple[dict[str, Tensor], object]:
    """The tensors, and the configuration in the header (None where another program wrote the file)."""
    tensors, texts = read_safetensors(path, where=where, problem=f"{path} cannot be read as safetensors")
    header = texts.get(HEADER)
    return tensors, None if header is None else parse_json(header, f"{where}: the header of {path}")


def _check_class(where: str, cls: type[Pretrained], config: dict[str, Any]) -> None:
    if config["class"] != cls.__name__:
        hint = f"call {config['class']}.from_pretrained."
        raise InputError(describe(where, "the files are of another class", got=config["class"], hint=hint))
    known = {name: p for name, p in inspect.signature(cls).parameters.items() if name not in PLACEMENT}
    found = {*config["arguments"], *(name for name, p in known.items() if p.default is not p.empty)}
    check_names(where, f"{CONFIG} holds arguments that {cls.__name__} does not have", known, found)


def _check_tensors(where: str, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    check_names(where, f"{WEIGHTS} does not hold the weights of this layer", wanted, found)
    for name, tensor in wanted.items():
        got, expected = (f"{tuple(t.shape)} of {t.dtype}" for t in (found[name], tensor))
        if got != expected:
            raise InputError(describe(where, f"{name} has the wrong shape or dtype", got=got, expected=expected))


def check_names(
    where: str, problem: str, wanted: Collection[str], found: Collection[str], *, hint: str | None = None
) -> None:
    """Refuse names that are not exactly the wanted ones."""
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
