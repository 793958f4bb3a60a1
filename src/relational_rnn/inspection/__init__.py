"""Looking inside trained models; reads, never trains."""

from relational_rnn.inspection.answering import StoryReader
from relational_rnn.inspection.farthest_page import farthest_page
from relational_rnn.inspection.fast_page import fast_page
from relational_rnn.inspection.following import Followed, ReferenceExample, follow, reference_section
from relational_rnn.inspection.influence import Effect, Influence, influence
from relational_rnn.inspection.language_page import language_page
from relational_rnn.inspection.opening import Named, Opening, Panel, slots_opening
from relational_rnn.inspection.page import Around, Page, Section, page
from relational_rnn.inspection.statistics import AttentionStatistics, attention_statistics, statistics_section
from relational_rnn.inspection.story_page import StoryTrace, story_page, trace_story
from relational_rnn.inspection.text_trace import TextTrace, trace_text
from relational_rnn.inspection.token_values import TokenValues
from relational_rnn.inspection.worst import Answered, AnsweredSequence, worst_questions, worst_sequences

__all__ = [
    "Answered",
    "AnsweredSequence",
    "Around",
    "AttentionStatistics",
    "Effect",
    "Followed",
    "Influence",
    "Named",
    "Opening",
    "Page",
    "Panel",
    "ReferenceExample",
    "Section",
    "StoryReader",
    "StoryTrace",
    "TextTrace",
    "TokenValues",
    "attention_statistics",
    "farthest_page",
    "fast_page",
    "follow",
    "influence",
    "language_page",
    "page",
    "reference_section",
    "slots_opening",
    "statistics_section",
    "story_page",
    "trace_story",
    "trace_text",
    "worst_questions",
    "worst_sequences",
]
