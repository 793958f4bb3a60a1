"""Arrays of numbers inside a page: whole numbers of 16 bits, as base64, and the scale that makes them numbers again."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from relational_rnn._check import InputError, describe

LEVELS = 2**16 - 1


def pack(values: np.ndarray, *, name: str, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """An array of any shape as JSON, in 2.7 bytes for each number.

    A number is kept as the nearest of 65,536 equal steps from `low` to `high`, by default the least and the greatest
    number there are; half a step is the `precision`. `name` is what an error calls the numbers.

    Raises:
        InputError: a number is NaN, infinite, or outside `low` to `high`.

    >>> packed = pack(np.array([0.0, 0.25, 1.0]), name="weights", low=0, high=1)
    >>> packed["shape"], packed["data"], round(packed["precision"], 7)
    ([3], 'AAAAQP//', 7.6e-06)
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise InputError(describe(name, "there are numbers that cannot be drawn", got=f"{count} NaN or infinite"))
    found = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    low, high = found[0] if low is None else float(low), found[1] if high is None else float(high)
    slack = 1e-5 * (high - low)  # a softmax in float32 may end a rounding step above 1
    if found[0] < low - slack or found[1] > high + slack:
        raise InputError(describe(name, "a number is out of range", got=found, expected=f"{low} to {high}"))
    step = (high - low) / LEVELS
    levels = np.zeros(values.shape) if step == 0 else np.clip(np.rint((values - low) / step), 0, LEVELS)
    return {
        "shape": list(values.shape),
        "low": low,
        "step": step,
        "precision": step / 2,
        "data": base64.b64encode(levels.astype("<u2").tobytes()).decode("ascii"),
    }
