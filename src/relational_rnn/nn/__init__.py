"""Parameters around the operations: the relational memory, its rivals, and the contract they share."""

from relational_rnn.nn.relational_memory import RelationalMemory

__all__ = ["RelationalMemory"]
