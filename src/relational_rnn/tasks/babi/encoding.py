"""From text to numbers: words, answer classes and the vocabulary that holds both."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from relational_rnn._check import InputError, check_positive, describe
from relational_rnn._reading.guard import reason, shown
from relational_rnn._reading.json_text import parse_json
from relational_rnn._reading.structure import check_entries, from_json
from relational_rnn.tasks.babi.story import Story

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def tokenize(text: str) -> list[str]:
    """The words of a sentence in lower case, without punctuation.

    >>> tokenize("Where was the apple before the hallway? ")
    ['where', 'was', 'the', 'apple', 'before', 'the', 'hallway']
    """
    return _WORD.findall(text.lower())


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words a model reads and the answers it chooses from; an answer with commas is one class.

    Word number 0 is padding, so `words[0]` has number 1; answers count from 0. Both are sorted, so that the numbers
    depend on the sets of words and answers alone.

    >>> from relational_rnn.tasks.babi.story import Question
    >>> story = Story(1, ("Mary went home.",), (Question("Where is Mary?", "home", (0,), 1),))
    >>> vocabulary = Vocabulary.build([story])
    >>> vocabulary.words, vocabulary.answers
    (('home', 'is', 'mary', 'went', 'where'), ('home',))
    >>> vocabulary.encode("Where is Mary?")
    [5, 2, 3]
    """

    words: tuple[str, ...]
    """Sorted, in lower case."""
    answers: tuple[str, ...]
    """Sorted, as published."""
    max_words: int
    """Words in the longest sentence or question; a model has this many positions."""
    _word_number: dict[str, int] = field(init=False, repr=False, compare=False)
    _answer_number: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_positive("Vocabulary", max_words=self.max_words)
        for name in ("words", "answers"):
            values = getattr(self, name)
            if not values or any(not isinstance(value, str) or not value for value in values):
                raise InputError(describe("Vocabulary", f"{name} must be texts, and at least one", got=shown(values)))
            if list(values) != sorted(set(values)):
                raise InputError(
                    describe("Vocabulary", f"{name} must be sorted and without repeats", got=shown(values))
                )
        object.__setattr__(self, "_word_number", {word: i for i, word in enumerate(self.words, start=1)})
        object.__setattr__(self, "_answer_number", {answer: i for i, answer in enumerate(self.answers)})

    @classmethod
    def build(cls, *stories: Iterable[Story], base: Vocabulary | None = None) -> Vocabulary:
        """The vocabulary of all given stories; `base` adds its own words and answers, as `BABI` does."""
        words, answers = (set(base.words), set(base.answers)) if base else (set[str](), set[str]())
        texts: set[str] = set()
        for group in stories:
            for story in group:
                texts.update(story.statements)
                texts.update(question.text for question in story.questions)
                answers.update(question.answer for question in story.questions)
        longest = base.max_words if base else 1
        for text in texts:
            tokens = tokenize(text)
            words.update(tokens)
            longest = max(longest, len(tokens))
        return cls(tuple(sorted(words)), tuple(sorted(answers)), longest)

    def encode(self, text: str, *, where: str | None = None) -> list[int]:
        """The numbers of the words of `text`; `where` opens the message of an error.

        Raises:
            InputError: a word is unknown (each is named, with the nearest known words), there is no word at all, or
                there are more than `max_words`.
        """
        tokens = tokenize(text)
        numbers = [self._word_number.get(token, 0) for token in tokens]
        if not tokens or 0 in numbers or len(tokens) > self.max_words:
            raise InputError(self._refusal(text, tokens, where or "Vocabulary"))
        return numbers

    def _refusal(self, text: str, tokens: list[str], where: str) -> str:
        unknown = list(dict.fromkeys(token for token in tokens if token not in self._word_number))
        if not tokens:
            return describe(where, "a sentence without a word", got=repr(text))
        if not unknown:
            return describe(
                where,
                "a sentence is too long",
                got=f"{len(tokens)} words in {text!r}",
                expected=f"at most {self.max_words}, as in the stories that the vocabulary was built from",
            )
        nouns = "word" if len(unknown) == 1 else "words"
        near = {word: difflib.get_close_matches(word, self.words, n=3) for word in unknown}
        hints = [f"for {word!r} try {_either(matches)}" for word, matches in near.items() if matches]
        return describe(
            where,
            f"unknown {nouns}: {', '.join(unknown)}",
            got=repr(text),
            expected=f"only the {len(self.words)} words that the model knows",
            hint="; ".join(hints) or None,
        )

    def answer_number(self, answer: str) -> int | None:
        """The class of an answer, or None where it is not one of the classes."""
        return self._answer_number.get(answer)

    def to_json(self) -> str:
        """One JSON text, the same for equal vocabularies."""
        return json.dumps(
            {"words": self.words, "answers": self.answers, "max_words": self.max_words}, indent=1, ensure_ascii=False
        )

    @classmethod
    def from_json(cls, text: str, *, where: str = "vocabulary") -> Vocabulary:
        """The vocabulary that `to_json` wrote.

        Raises:
            InputError: the text is not such a vocabulary.
        """
        kinds = {"words": tuple[str, ...], "answers": tuple[str, ...], "max_words": int}
        try:
            fields = parse_json(text, "the file")
            if not isinstance(fields, dict) or fields.keys() != kinds.keys():
                raise InputError(f"expected an object of {', '.join(kinds)}, and nothing else")
            check_entries(fields, kinds, {}, where="the file")
            return cls(**{name: from_json(kind, fields[name], where=name) for name, kind in kinds.items()})
        except InputError as error:  # of the three, or of the constructor
            raise InputError(describe(where, "this is not a vocabulary", got=reason(error))) from error


def _either(words: list[str]) -> str:
    """'are', 'mice' or 'mary'."""
    *others, last = (repr(word) for word in words)
    return f"{', '.join(others)} or {last}" if others else last


_BABI_WORDS = """
    a above afraid after afternoon afterwards and antoine apple are back bathroom bedroom before below bernhard bigger
    bill blue bored box brian carrying cat cats chest chocolate chocolates cinema color container daniel did discarded
    do does down dropped east either emily evening fit fits following football fred frog from garden gave gertrude get
    give go got grabbed gray green greg hallway handed he how hungry in inside is jason jeff jessica john journeyed
    julie julius kitchen left lily lion longer many mary mice milk morning mouse moved no north not objects of office
    or pajamas park passed picked pink put received rectangle red rhino right sandra school she sheep south sphere
    square suitcase sumit swan than that the then there they thirsty this tired to took travelled triangle up was went
    west what where white who why will winona wolf wolves yann yellow yesterday you
"""
_BABI_ANSWERS = """
    Bill Fred Jeff Mary apple apple,football apple,football,milk apple,milk apple,milk,football bathroom bedroom bored
    cat cinema e,e e,n e,s football football,apple football,apple,milk football,milk football,milk,apple garden gray
    green hallway hungry kitchen maybe milk milk,apple milk,apple,football milk,football milk,football,apple mouse n,e
    n,n n,w no none nothing office one park s,e s,s s,w school sheep thirsty three tired two w,n w,s w,w white wolf
    yellow yes
"""
BABI = Vocabulary(tuple(_BABI_WORDS.split()), tuple(_BABI_ANSWERS.split()), 11)
"""Every word and every answer of the published English tasks: the same classes whatever part of them is trained on."""
