"""Tables, figures and pages from finished runs; reads, never trains."""

from relational_rnn.reports.benchmark import write_benchmark_page
from relational_rnn.reports.benchmark_results import BenchmarkResults, read_benchmark
from relational_rnn.reports.page import Example, write_report
from relational_rnn.reports.records import Record, records_of
from relational_rnn.reports.results import write_results
from relational_rnn.reports.run_figures import results_figures
from relational_rnn.reports.runs import Group, Run, group_runs, read_run, read_runs

__all__ = [
    "BenchmarkResults",
    "Example",
    "Group",
    "Record",
    "Run",
    "group_runs",
    "read_benchmark",
    "read_run",
    "read_runs",
    "records_of",
    "results_figures",
    "write_benchmark_page",
    "write_report",
    "write_results",
]
