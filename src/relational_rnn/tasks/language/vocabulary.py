"""Vocabularies: words, characters or byte pairs behind one face, as plain JSON on disk."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn._reading.guard import shown
from relational_rnn._reading.json_text import parse_json

VocabularyKind = Literal["word", "character", "bpe"]
UNKNOWN_WORD = "<unk>"
"""What a word that is not in the vocabulary is read as, where the vocabulary has it."""
UNKNOWN_CHARACTER = "\ufffd"
"""The same for a character: U+FFFD, which Unicode keeps for this."""
END = "<eos>"
"""The token of a line end in a vocabulary of words."""
FORMAT = 1
"""Of the JSON form."""
MAX_NAMED = 5
"""So many unknown symbols are named in a message."""


class Encoder(ABC):
    """Turns text into tokens piece by piece: the pieces' tokens, one after the other, are those of the whole text.

    It keeps back what the next piece may change (half a word, half a line), so its memory does not grow with the text.
    """

    @abstractmethod
    def feed(self, text: str) -> np.ndarray:
        """int64 [n] the tokens that are settled now."""

    @abstractmethod
    def finish(self) -> np.ndarray:
        """int64 [n] the tokens of what was kept back."""


class Vocabulary(ABC):
    """Text as numbers 0 to `size` - 1 and back. Made by `Vocabulary.build` or `Vocabulary.from_json`.

    A word is what stands between white space; with `line_ends` every line end is the token `<eos>`. Words and
    characters are numbered from the most frequent one in the text the vocabulary was built from to the rarest, as an
    adaptive softmax wants it; byte pairs in the order in which they were merged.

    >>> words = Vocabulary.build("word", ["to be or\\nnot to be\\n"], line_ends=True)
    >>> words.size, words.encode("be to\\n").tolist(), words.decode([2, 1, 0])
    (5, [1, 2, 0], 'to be\\n')
    >>> Vocabulary.from_json(words.to_json(), where="here") == words
    True
    """

    kind: ClassVar[VocabularyKind]
    size: int
    """How many tokens there are."""
    unknown: int | None
    """The token of what is not in the vocabulary; None where such text is refused."""
    line_end: int | None
    """The token of a line end; None where it has none of its own."""

    @staticmethod
    def build(
        kind: VocabularyKind,
        text: Iterable[str],
        *,
        size: int | None = None,
        line_ends: bool = True,
        where: str = "Vocabulary.build",
    ) -> Vocabulary:
        """The vocabulary of a text.

        Args:
            kind: "word", "character" or "bpe" (byte pairs; needs the extra `language`).
            text: the text in pieces, which may end anywhere. It is read once, and never held as a whole.
            size: how many tokens; None for all words or characters there are. Where the text has more of them, the
                rarest are left out and read as unknown. Byte pairs are learned until there are `size`.
            line_ends: line ends are tokens (words only: characters and byte pairs always keep them).
            where: what the messages of errors start with.

        Raises:
            InputError: a text without a token, a size that cannot be, or `line_ends=False` for characters or bytes.
        """
        check_choice(where, "kind", kind, get_args(VocabularyKind))
        check_settings(kind, size, line_ends, where)
        if kind == "bpe":
            from relational_rnn.tasks.language.byte_pairs import BytePairs

            assert size is not None
            return BytePairs.train(text, size, where=where)
        counts = _count_characters(text) if kind == "character" else _count_words(text, line_ends)
        if not counts:
            raise InputError(describe(where, f"the text holds no {kind}"))
        if kind == "word" and line_ends:
            counts[END] += 0  # it is in the vocabulary, whether this text has a line end or not
        name = UNKNOWN_CHARACTER if kind == "character" else UNKNOWN_WORD
        if size is not None and len(counts) > size:
            keep = {END, name} & counts.keys() | {name}
            rest = [symbol for symbol, _ in _by_frequency(counts) if symbol not in keep]
            cut = rest[size - len(keep) :]
            counts[name] += sum(counts.pop(symbol) for symbol in cut)
        symbols = [symbol for symbol, _ in _by_frequency(counts)]
        return Characters(symbols) if kind == "character" else Words(symbols, line_ends=line_ends)

    @staticmethod
    def from_json(text: str, where: str) -> Vocabulary:
        """The vocabulary that `to_json` wrote; plain data, no code is run.

        Args:
            text: the JSON.
            where: what the message of an error starts with, e.g. the name of the file.

        Raises:
            InputError: this is no vocabulary.
        """
        content: Any = parse_json(text, where)
        kind = content.get("kind") if isinstance(content, dict) else None
        if kind not in get_args(VocabularyKind) or content.get("format") != FORMAT:
            got = (
                f"format {shown(content.get('format'))}, kind {shown(kind)}"
                if isinstance(content, dict)
                else type(content).__name__
            )
            expected = f"format {FORMAT} and one of the kinds {', '.join(get_args(VocabularyKind))}"
            raise InputError(describe(where, "this is no vocabulary", got=got, expected=expected))
        if kind == "bpe":
            from relational_rnn.tasks.language.byte_pairs import BytePairs

            return BytePairs.of_json(content, where)
        symbols = content.get("symbols")
        if not isinstance(symbols, list) or not symbols or not all(isinstance(s, str) and s for s in symbols):
            raise InputError(describe(where, "the vocabulary's symbols must be a list of texts that are not empty"))
        if len(set(symbols)) < len(symbols):
            double = next(symbol for symbol, count in Counter(symbols).items() if count > 1)
            raise InputError(describe(where, "the vocabulary has a symbol twice", got=repr(double)))
        if kind == "word":
            return Words(symbols, line_ends=content.get("line_ends") is True)
        if any(len(symbol) != 1 for symbol in symbols):
            raise InputError(describe(where, "a vocabulary of characters has a symbol of more than one character"))
        return Characters(symbols)

    @abstractmethod
    def to_json(self) -> str:
        """Plain JSON, which `from_json` reads."""

    @abstractmethod
    def encoder(self, where: str = "text", line: int = 1) -> Encoder:
        """Encodes a long text piece by piece; `where` names the text in messages, `line` is the number of its first."""

    def encode(self, text: str, where: str = "text") -> np.ndarray:
        """int64 [n] the tokens of a text.

        Raises:
            InputError: something is not in the vocabulary, and it has no token for that; the message says what and
                in which line.
        """
        encoder = self.encoder(where)
        return np.concatenate([encoder.feed(text), encoder.finish()])

    @abstractmethod
    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text of every token as it comes, for text that is shown while it is generated.

        Joined, they are the text of all. A piece may be empty: half a character waits for its other half.
        """

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of tokens. Words stand one space apart, as white space is not part of them.

        Raises:
            InputError: a number that is no token.
        """
        return "".join(self.pieces(tokens))

    def symbol(self, token: int) -> str:
        """What a token stands for, as it is shown in tables."""
        return self._symbol(self._check(token))

    @abstractmethod
    def _symbol(self, token: int) -> str: ...

    def _check(self, token: int) -> int:
        if not 0 <= token < self.size:
            raise InputError(
                describe("Vocabulary", "there is no such token", got=token, expected=f"0 to {self.size - 1}")
            )
        return int(token)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size:,} tokens)"


class _Symbols(Vocabulary):
    """A list of symbols, numbered in its order."""

    def __init__(self, symbols: Sequence[str], *, unknown: str, line_end: str | None) -> None:
        self.symbols = tuple(symbols)
        self.size = len(self.symbols)
        self.numbers = {symbol: number for number, symbol in enumerate(self.symbols)}
        self.unknown = self.numbers.get(unknown)
        self.line_end = None if line_end is None else self.numbers.get(line_end)

    def _symbol(self, token: int) -> str:
        return self.symbols[token]


class Characters(_Symbols):
    """Every character is a token, line ends too; nothing is changed on the way."""

    kind = "character"

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols, unknown=UNKNOWN_CHARACTER, line_end="\n")

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, "kind": self.kind, "symbols": self.symbols}, ensure_ascii=False)

    def encoder(self, where: str = "text", line: int = 1) -> Encoder:
        return _CharacterEncoder(self, where, line)

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        for token in tokens:
            yield self.symbols[self._check(token)]


class _CharacterEncoder(Encoder):
    def __init__(self, vocabulary: Characters, where: str, line: int) -> None:
        self.vocabulary, self.where, self.line = vocabulary, where, line
        codes = [ord(symbol) for symbol in vocabulary.symbols]
        # One entry beyond the last code, which stands for all codes after it.
        self.table = np.full(max(codes) + 2, -1 if vocabulary.unknown is None else vocabulary.unknown, np.int64)
        self.table[codes] = np.arange(len(codes))

    def feed(self, text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        tokens = self.table[np.minimum(codes, len(self.table) - 1)]
        if (tokens < 0).any():
            raise _unknown(
                self.where, "character", [(text[i], i) for i in np.flatnonzero(tokens < 0).tolist()], text, self.line
            )
        self.line += text.count("\n")
        return tokens

    def finish(self) -> np.ndarray:
        return np.empty(0, np.int64)


class Words(_Symbols):
    """Every word is a token, and with `line_ends` every line end."""

    kind = "word"

    def __init__(self, symbols: Sequence[str], *, line_ends: bool) -> None:
        super().__init__(symbols, unknown=UNKNOWN_WORD, line_end=END if line_ends else None)
        self.line_ends = line_ends

    def to_json(self) -> str:
        content = {"format": FORMAT, "kind": self.kind, "line_ends": self.line_ends, "symbols": self.symbols}
        return json.dumps(content, ensure_ascii=False)

    def encoder(self, where: str = "text", line: int = 1) -> Encoder:
        return _WordEncoder(self, where, line)

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        between = ""
        for token in tokens:
            end = self._check(token) == self.line_end
            yield "\n" if end else between + self.symbols[token]
            between = "" if end else " "


class _WordEncoder(Encoder):
    def __init__(self, vocabulary: Words, where: str, line: int) -> None:
        self.vocabulary, self.where, self.line = vocabulary, where, line
        self.carry = WordCarry()

    def feed(self, text: str) -> np.ndarray:
        return self._encode(self.carry.feed(text))

    def finish(self) -> np.ndarray:
        return self._encode(self.carry.finish())

    def _encode(self, text: str) -> np.ndarray:
        numbers = self.vocabulary.numbers
        words = split_words(text, self.vocabulary.line_ends)
        if self.vocabulary.unknown is not None:
            unknown = self.vocabulary.unknown
            tokens = np.fromiter((numbers.get(word, unknown) for word in words), np.int64, len(words))
        else:
            try:
                tokens = np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))
            except KeyError:
                missing = dict.fromkeys(word for word in words if word not in numbers)
                places = [(word, text.index(word)) for word in missing]
                raise _unknown(self.where, "word", places, text, self.line) from None
        self.line += text.count("\n")
        return tokens


class WordCarry:
    """Cuts a text that comes in pieces at white space only.

    >>> carry = WordCarry()
    >>> carry.feed("to be o"), carry.feed("r not"), carry.finish()
    ('to be ', 'or ', 'not')
    """

    def __init__(self) -> None:
        self._open: list[str] = []

    def feed(self, text: str) -> str:
        """What is complete now, white space included."""
        kept = len(text)
        while kept and not text[kept - 1].isspace():
            kept -= 1
        if not kept:
            self._open.append(text)
            return ""
        done = "".join(self._open) + text[:kept]
        self._open = [text[kept:]]
        return done

    def finish(self) -> str:
        """The last word."""
        done, self._open = "".join(self._open), []
        return done


def split_words(text: str, line_ends: bool) -> list[str]:
    """The words of a text, and `<eos>` at every line end where these are tokens.

    >>> split_words("to be\\n\\nor", True)
    ['to', 'be', '<eos>', '<eos>', 'or']
    """
    return (text.replace("\n", f" {END} ") if line_ends else text).split()


def check_settings(kind: VocabularyKind, size: int | None, line_ends: bool, where: str) -> None:
    """Refuse settings that no vocabulary of this kind can obey."""
    if size is not None:
        check_positive(where, vocabulary_size=size)
    if kind != "word" and not line_ends:
        raise InputError(describe(where, "only a vocabulary of words can leave line ends out", got=kind))
    if kind == "bpe" and size is None:
        hint = "8192 is a usual size for a small corpus."
        raise InputError(describe(where, "byte pairs need a vocabulary_size", got=None, hint=hint))
    least = {"word": 2 + line_ends, "character": 2, "bpe": 256}[kind]
    if size is not None and size < least:
        why = "one for each byte" if kind == "bpe" else "the unknown has a token of its own"
        raise InputError(describe(where, "vocabulary_size is too small", got=size, expected=f">= {least}: {why}"))


def _unknown(where: str, noun: str, places: list[tuple[str, int]], text: str, line: int) -> InputError:
    """The mistake of symbols that the vocabulary does not have; `places` are offsets in `text`."""
    first: dict[str, int] = {}
    for symbol, place in places:
        first.setdefault(symbol, line + text.count("\n", 0, place))
    named = [f"{symbol!r} (line {at:,})" for symbol, at in list(first.items())[:MAX_NAMED]]
    more = f" and {len(first) - MAX_NAMED} more" if len(first) > MAX_NAMED else ""
    hint = f"a vocabulary that is built with a smaller vocabulary_size reads rare {noun}s as unknown."
    problem = f"the vocabulary lacks {noun}s of this text"
    return InputError(describe(where, problem, got=", ".join(named) + more, hint=hint))


def _by_frequency(counts: Counter[str]) -> list[tuple[str, int]]:
    """Most frequent first, equals by their code points, so that the order of the text does not matter."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _count_words(text: Iterable[str], line_ends: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    carry = WordCarry()
    for piece in text:
        counts.update(split_words(carry.feed(piece), line_ends))
    counts.update(split_words(carry.finish(), line_ends))
    return counts


def _count_characters(text: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for piece in text:
        codes, numbers = np.unique(np.frombuffer(piece.encode("utf-32-le"), np.uint32), return_counts=True)
        counts.update({chr(code): int(number) for code, number in zip(codes, numbers, strict=True)})
    return counts
