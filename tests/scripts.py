"""Scripts that are not part of the package, such as those of docs, as modules for their tests."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # as Python does for a script, which may import its neighbours
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
