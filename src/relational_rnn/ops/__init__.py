"""Functions of tensors: no parameters, no modules, no configuration."""
