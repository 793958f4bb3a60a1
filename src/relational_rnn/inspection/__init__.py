"""Looking inside trained models; reads, never trains."""

from relational_rnn.inspection.fast_page import fast_page
from relational_rnn.inspection.following import Followed, ReferenceExample, follow, reference_section
from relational_rnn.inspection.opening import Named, Opening, Panel, slots_opening
from relational_rnn.inspection.page import Around, Page, Section, page
from relational_rnn.inspection.statistics import AttentionStatistics, attention_statistics, statistics_section
from relational_rnn.inspection.token_values import TokenValues

__all__ = [
    "Around",
    "AttentionStatistics",
    "Followed",
    "Named",
    "Opening",
    "Page",
    "Panel",
    "ReferenceExample",
    "Section",
    "TokenValues",
    "attention_statistics",
    "fast_page",
    "follow",
    "page",
    "reference_section",
    "slots_opening",
    "statistics_section",
]
