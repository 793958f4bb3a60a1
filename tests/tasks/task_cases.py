"""One small case of every form that a generated task can take; suites run on all of them."""

from relational_rnn.tasks.associative_recall import AssociativeRecall
from relational_rnn.tasks.contract import Task
from relational_rnn.tasks.memorize import Memorize
from relational_rnn.tasks.nth_farthest import NthFarthest
from relational_rnn.tasks.programs import Programs
from relational_rnn.tasks.relations import Relations

CASES: dict[str, Task] = {
    "nth-farthest": NthFarthest(objects=3, dimensions=2),
    "nth-farthest-sonnet": NthFarthest(objects=4, dimensions=3, convention="sonnet"),
    "nth-farthest-one-n": NthFarthest(objects=5, dimensions=1, convention="l0sg", n=0),
    "programs-add": Programs(mode="add", length=2),
    "programs-control": Programs(mode="control", length=2, nesting=2, curriculum="combined"),
    "programs-program": Programs(mode="program", length=3, nesting=3, curriculum="naive", modulus="none"),
    "memorize-copy": Memorize(mode="copy", length=5),
    "memorize-reverse": Memorize(mode="reverse", length=7, symbols=3),
    "memorize-double": Memorize(mode="double", length=4),
    "relations-words": Relations(form="words", longest_chain=5),
    "relations-vectors": Relations(form="vectors", chain=2, distractors=2),
    "associative-recall": AssociativeRecall(pairs=3, length=14, vocabulary=12),
}
