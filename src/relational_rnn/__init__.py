"""Relational recurrent networks: a memory of slots that attend to one another at every step."""

from typing import TYPE_CHECKING, Any

from relational_rnn._check import InputError, MissingExtraError

if TYPE_CHECKING:
    from relational_rnn.nn import RelationalMemory, RelationalMemoryCell

__version__ = "0.1.0"

__all__ = ["InputError", "MissingExtraError", "RelationalMemory", "RelationalMemoryCell", "__version__"]


def __getattr__(name: str) -> Any:
    # The layer is imported when it is asked for, so that `relational-rnn --help` need not wait for torch.
    if name in ("RelationalMemory", "RelationalMemoryCell"):
        from relational_rnn import nn

        return getattr(nn, name)
    raise AttributeError(f"module 'relational_rnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
