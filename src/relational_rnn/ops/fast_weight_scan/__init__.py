"""The fast-weight memory over a whole sequence, as functions of tensors.

`reference` defines the arithmetic; `fast_weight_scan` is what the layer calls: the same results up to rounding, faster
where the compiled kernels can run. README.md beside this file has the derivation and what the kernels refuse.
"""

from relational_rnn.ops.fast_weight_scan.reference import (
    FastWeightParameters,
    FastWeightScan,
    FastWeightState,
    Read,
    fast_weight_scan_reference,
    fast_weight_step,
)
from relational_rnn.ops.fast_weight_scan.scan import FAST_WEIGHT_BACKENDS, FastWeightBackend, choose, fast_weight_scan
from relational_rnn.ops.relational_scan.reference import Linear, Norm

__all__ = [
    "FAST_WEIGHT_BACKENDS",
    "FastWeightBackend",
    "FastWeightParameters",
    "FastWeightScan",
    "FastWeightState",
    "Linear",
    "Norm",
    "Read",
    "choose",
    "fast_weight_scan",
    "fast_weight_scan_reference",
    "fast_weight_step",
]
