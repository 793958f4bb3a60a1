"""How a page of this package looks and is written: one file that needs nothing from outside."""

from relational_rnn.pages.document import Script, document, render
from relational_rnn.pages.packing import pack, unpack
from relational_rnn.pages.tables import Cell, Table

__all__ = ["Cell", "Script", "Table", "document", "pack", "render", "unpack"]
