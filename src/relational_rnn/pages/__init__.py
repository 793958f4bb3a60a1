"""How a page of this package looks and is written: one file that needs nothing from outside."""

from relational_rnn.pages.document import document, pack, read, render
from relational_rnn.pages.tables import Cell, Table

__all__ = ["Cell", "Table", "document", "pack", "read", "render"]
