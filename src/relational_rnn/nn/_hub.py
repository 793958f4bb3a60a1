"""Saved layers in repositories of the Hugging Face hub, with the extra `hub`."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from relational_rnn._check import InputError, describe, need_extra

if TYPE_CHECKING:
    from relational_rnn.nn._pretrained import Pretrained

NAME = re.compile(r"[\w.-]+/[\w.-]+")
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


def download(where: str, source: str | Path, revision: str | None) -> Path:
    """The folder of a repository's files, downloaded unless they are here already."""
    if not isinstance(source, str) or not NAME.fullmatch(source):
        hint = 'a repository of the Hugging Face hub is named as a string, "user/name".'
        raise InputError(describe(where, f"there is no folder {str(source)!r}", hint=hint))
    hub = need_extra("huggingface_hub", "hub", f"{where}: there is no folder {source!r}, and downloading it")
    try:
        files = ["config.json", "model.safetensors"]
        return Path(hub.snapshot_download(source, revision=revision, allow_patterns=files))
    except (OSError, ValueError) as error:  # what the hub's client raises: no such repository, no network, a bad name
        raise InputError(describe(where, f"{source} cannot be downloaded", got=_first_line(error))) from error


def upload(module: Pretrained, repository: str, *, private: bool, message: str) -> str:
    """See `Pretrained.push_to_hub`."""
    kind = type(module).__name__
    where = f"{kind}.push_to_hub"
    if not NAME.fullmatch(repository):
        raise InputError(describe(where, "the repository must be named as user/name", got=repr(repository)))
    hub = need_extra("huggingface_hub", "hub", where)
    with tempfile.TemporaryDirectory() as folder:
        module.save_pretrained(folder)
        card = CARD.format(kind=kind, module=type(module).__module__, repository=repository)
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        api = hub.HfApi()
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
        except (OSError, ValueError) as error:
            raise InputError(describe(where, f"{repository} cannot be written", got=_first_line(error))) from error
    return str(commit.commit_url)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
