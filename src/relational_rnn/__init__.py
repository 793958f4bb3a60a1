"""Relational recurrent networks: a memory of slots that attend to one another at every step."""

from relational_rnn._check import InputError, MissingExtraError
from relational_rnn.nn import RelationalMemory

__version__ = "0.1.0"

__all__ = ["InputError", "MissingExtraError", "RelationalMemory", "__version__"]
