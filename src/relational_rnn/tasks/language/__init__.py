"""Language modelling: text as tokens, streams of them, and models that predict the next one."""
