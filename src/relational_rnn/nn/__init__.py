"""Parameters around the operations: the relational memory, its rivals, and the contract they share."""
