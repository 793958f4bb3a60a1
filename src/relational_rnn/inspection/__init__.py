"""Looking inside trained models; reads, never trains."""

from relational_rnn.inspection.answering import StoryReader
from relational_rnn.inspection.influence import Effect, Influence, influence

__all__ = ["Effect", "Influence", "StoryReader", "influence"]
