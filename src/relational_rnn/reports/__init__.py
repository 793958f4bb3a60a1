"""Tables, figures and pages from finished runs; reads, never trains."""

from relational_rnn.reports.benchmark import BenchmarkResults, read_benchmark, write_benchmark_page
from relational_rnn.reports.figures import results_figures
from relational_rnn.reports.page import write_report
from relational_rnn.reports.results import Record, records_of, write_results
from relational_rnn.reports.runs import Group, group_runs, published_beside, read_runs

__all__ = [
    "BenchmarkResults",
    "Group",
    "Record",
    "group_runs",
    "published_beside",
    "read_benchmark",
    "read_runs",
    "records_of",
    "results_figures",
    "write_benchmark_page",
    "write_report",
    "write_results",
]
