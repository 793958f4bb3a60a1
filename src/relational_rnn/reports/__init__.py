"""Tables, figures and pages from finished runs; reads, never trains."""

from relational_rnn.reports.page import Example, write_report
from relational_rnn.reports.results import Record, records_of, write_results
from relational_rnn.reports.runs import Group, Run, group_runs, read_run, read_runs

__all__ = [
    "Example",
    "Group",
    "Record",
    "Run",
    "group_runs",
    "read_run",
    "read_runs",
    "records_of",
    "write_report",
    "write_results",
]
