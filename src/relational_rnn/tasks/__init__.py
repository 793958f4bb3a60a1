"""Tasks: data as a function of configuration and seed, and the models that fit them."""
