"""Asking: from a pipe, from a file, from a keyboard; and what is printed."""

import io
import re

import pytest

from relational_rnn.cli import main
from relational_rnn.runs import load
from relational_rnn.tasks.babi.answering import StoryReader, influence
from relational_rnn.tasks.babi.commands.ask import HELP, describe_answer

STORY = "Mary went to the kitchen.\nJohn went to the garden.\n"


def test_a_piped_story_is_answered_with_probability_runner_up_and_influence(call, trained):
    done = call("ask", trained, typed=STORY + "Where is Mary?\nWhere is John?\n")
    assert (done.code, done.err) == (0, "")
    blocks = done.out.split("Where is ")[1:]
    assert [block.split("?")[0] for block in blocks] == ["Mary", "John"]
    loaded = load(trained)
    found = influence(StoryReader(loaded.model, loaded.vocabulary).together, STORY.splitlines(), "Where is John?")
    assert blocks[1] == f"John?\n{describe_answer(found)}\n"
    assert (
        f"{found.answer}  {found.probability:.1%}    next: {found.runner_up}  {found.runner_up_probability:.1%}"
        in done.out
    )


def test_a_line_that_is_not_text_is_refused(trained, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Mary went to the \xff."), encoding="utf-8"))
    assert main(["ask", str(trained)]) == 2
    assert "this is not UTF-8 text" in capsys.readouterr().err


def test_a_number_of_thousands_of_digits_is_no_number_of_a_line(call, trained):
    done = call("ask", trained, typed="9" * 5000 + " Mary went to the kitchen.\n")
    assert done.code == 2
    assert "unknown word" in done.err


def test_the_sentences_that_matter_are_listed_with_what_they_change():
    def last(statements, question):
        said = [s.split()[-1][:-1] for s in statements if s.startswith("Mary")]
        place = said[-1] if said else "office"
        return {"kitchen": 0.05, "garden": 0.04, "office": 0.03} | {place: 0.9}

    story = ["Mary went to the garden.", "John went to the office.", "Mary went to the kitchen."]
    found = influence(lambda stories, q: [last(s, q) for s in stories], story, "Where is Mary?")
    assert describe_answer(found, "kitchen").splitlines() == [
        "  kitchen  90.0%    next: garden  4.0%    right answer: kitchen",
        "  without a sentence, the probability of 'kitchen' changes by",
        "    -85.0 points    3  Mary went to the kitchen.  the answer is then garden",
    ]
    same = describe_answer(influence(lambda stories, q: [{"yes": 0.7, "no": 0.3}] * len(stories), story, "Is it?"))
    assert same == "  yes  70.0%    next: no  30.0%\n  no sentence alone changes that by 1 point or more"


def test_a_file_is_read_first_and_an_empty_line_begins_a_new_story(call, trained, tmp_path):
    (tmp_path / "story.txt").write_text(STORY + "\n")
    asked = "Where is John?\n"
    done = call("ask", trained, "--story", tmp_path / "story.txt", typed=asked + "Sandra went to the office.\n" + asked)
    first, second = done.out.split("Where is John?\n")[1:]
    alone = call("ask", trained, typed="Sandra went to the office.\n" + asked)
    assert second == alone.out.split("Where is John?\n")[1]
    assert first == call("ask", trained, typed=STORY + asked).out.split("Where is John?\n")[1]
    assert first != second


def test_lines_of_the_published_files_can_be_piped_in(call, trained, published):
    lines = (published / "qa1_single-supporting-fact_test.txt").read_text().splitlines()
    done = call("ask", trained, typed="\n".join(lines) + "\n")
    assert done.code == 0
    rights = re.findall(r"right answer: (\w+)", done.out)
    assert rights == [line.split("\t")[1] for line in lines if "\t" in line]
    # The last story alone gives the same last answer: number 1 began a new story.
    start = max(i for i, line in enumerate(lines) if line.startswith("1 "))
    last = call("ask", trained, typed="\n".join(lines[start:]) + "\n")
    assert done.out.endswith(last.out)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("Where is Mary?\n", "error: ask: a question before any statement\n  got       'Where is Mary?'\n"),
        ("Mary went to the kitchin.\nWhere is Mary?\n", "error: ask: unknown word: kitchin\n"),
        (STORY + "Where is Xerxes?\n", "error: the question: unknown word: xerxes\n"),
        (STORY, "error: ask: no question was asked\n"),
        ("", "error: ask: no question was asked\n"),
        ("...\n", "error: ask: a sentence without a word\n"),
    ],
)
def test_a_pipe_that_cannot_be_used_is_refused(call, trained, typed, said):
    done = call("ask", trained, typed=typed)
    assert done.code == 2
    assert done.err.startswith(said)


def test_a_question_without_its_mark_is_asked_about(call, trained):
    done = call("ask", trained, typed=STORY + "Where is Mary\n")
    assert done.code == 2
    assert done.err == (
        "error: ask: was this line meant as a question?\n"
        "  got       'Where is Mary'\n"
        "  hint      a question ends with '?'\n"
    )


@pytest.mark.parametrize("word", ["help", " HELP ", "?"])
def test_help_is_shown_and_is_no_sentence_of_the_story(call, trained, word):
    done = call("ask", trained, typed=STORY + f"{word}\nWhere is Mary?\n")
    assert (done.code, done.err) == (0, "")
    plain = call("ask", trained, typed=STORY + "Where is Mary?\n")
    assert done.out == HELP + "\n" + plain.out


def test_near_words_are_suggested(call, trained):
    assert "for 'kitchin' try 'kitchen'" in call("ask", trained, typed="Mary went to the kitchin.\n").err


def typed(lines: str, monkeypatch, capsys, trained) -> str:
    from relational_rnn.cli import main

    monkeypatch.setattr("sys.stdin", Keyboard(lines))
    assert main(["ask", str(trained)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("reply", ["y", "n", "perhaps"])
def test_at_a_keyboard_the_answer_decides_whether_it_was_a_question(reply, trained, monkeypatch, capsys):
    out = typed(STORY + f"Where is Mary.\n{reply}\n", monkeypatch, capsys, trained)
    assert "Was 'Where is Mary.' meant as a question? [y/n] " in out
    asked = typed(STORY + "Where is Mary?\n", monkeypatch, capsys, trained)
    answer = asked[asked.index("Where is Mary?") : asked.rindex("> ")]
    assert (answer in out) == (reply == "y")
    assert ("neither a question nor a sentence" in out) == (reply == "perhaps")


def test_a_published_line_is_a_statement_however_it_begins(call, trained):
    lines = "1 Mary went to the kitchen.\n2 Is Mary in the garden.\n3 Where is Mary?\tkitchen\t1\n"
    assert "was this line meant as a question?" not in call("ask", trained, typed=lines).err


class Keyboard(io.StringIO):
    """A terminal, as far as the program can tell."""

    def isatty(self) -> bool:
        return True


def test_at_a_keyboard_a_mistake_is_explained_and_the_story_goes_on(trained, monkeypatch, capsys):
    from relational_rnn.cli import main

    monkeypatch.setattr("sys.stdin", Keyboard("Where is Mary?\nMary went to the moon.\n" + STORY + "Where is Mary?\n"))
    assert main(["ask", str(trained)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("Type a story")
    assert "a question before any statement" in out
    assert "unknown word: moon" in out
    assert out.count("(this line is ignored)") == 2
    assert "next: " in out


def test_ctrl_c_at_the_keyboard_is_no_traceback(trained, monkeypatch, capsys):
    from relational_rnn.cli import main

    monkeypatch.setattr("sys.stdin", Keyboard(STORY))

    def interrupted(prompt):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    assert main(["ask", str(trained)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_run_that_reads_only_the_last_sentences_says_so_and_does(call, tiny, tmp_path):
    options = [*tiny, "--data.max-sentences", 1, "--loop.steps", 1, "--out", tmp_path / "short"]
    assert call("train", "babi", *options).code == 0
    done = call("ask", tmp_path / "short", typed=STORY + "Where is Mary?\n")
    assert done.err == "note: this run reads only the last 1 sentences before a question\n"
    short = call("ask", tmp_path / "short", typed="John went to the garden.\nWhere is Mary?\n")
    assert done.out.splitlines()[1] == short.out.splitlines()[1]
