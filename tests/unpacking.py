"""The numbers that a page carries, as its script reads them."""

import base64

import numpy as np


def unpack(packed: dict) -> np.ndarray:
    """What `relational_rnn.pages.pack` packed, within its precision."""
    levels = np.frombuffer(base64.b64decode(packed["data"]), dtype="<u2").reshape(packed["shape"])
    return packed["low"] + packed["step"] * levels.astype(np.float64)
