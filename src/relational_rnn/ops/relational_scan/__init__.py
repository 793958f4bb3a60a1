"""The relational memory over a whole sequence, as functions of tensors.

`reference` defines the arithmetic. `relational_scan` is what layers call: the same results up to rounding, faster, by
one of several backends. README.md beside this file has the derivation, the cost and what each backend refuses.
"""

from relational_rnn.ops.relational_scan._native import free_memory
from relational_rnn.ops.relational_scan.compiled import scan_as_loop
from relational_rnn.ops.relational_scan.loop import ActivationMode
from relational_rnn.ops.relational_scan.reference import (
    Formulation,
    ScanParameters,
    Settings,
    Step,
    relational_scan_reference,
    relational_step,
)
from relational_rnn.ops.relational_scan.scan import (
    ACTIVATION_MODES,
    BACKENDS,
    Backend,
    BackendReport,
    choose,
    relational_scan,
)
from relational_rnn.ops.relational_scan.step import relational_step_after
from relational_rnn.ops.relational_scan.trace import Trace, relational_trace

__all__ = [
    "ACTIVATION_MODES",
    "BACKENDS",
    "ActivationMode",
    "Backend",
    "BackendReport",
    "Formulation",
    "ScanParameters",
    "Settings",
    "Step",
    "Trace",
    "choose",
    "free_memory",
    "relational_scan",
    "relational_scan_reference",
    "relational_step",
    "relational_step_after",
    "relational_trace",
    "scan_as_loop",
]
