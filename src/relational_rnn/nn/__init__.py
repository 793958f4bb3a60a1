"""Parameters around the operations: the relational memory, its rivals, and the contract they share."""

from relational_rnn.nn.relational_memory import RelationalMemory
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell

__all__ = ["RelationalMemory", "RelationalMemoryCell"]
