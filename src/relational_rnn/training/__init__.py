"""The training loop, run folders and checkpoints; knows no task and no model by name."""
