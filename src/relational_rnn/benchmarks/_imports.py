"""Imported by the process from which measured ones are forked: what PyTorch would import at the first backward pass and
at the first Transformer, which takes seconds."""

import importlib

for name in ("sympy", "torch._dynamo"):
    importlib.import_module(name)
