"""Odd and damaged inputs, a great many of them, for everything that takes one: `make fuzz`."""
