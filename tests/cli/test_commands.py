"""Finding commands, and help that is quick, complete and honest."""

import io
import os
import re
import shlex
import subprocess
import sys

import pytest

from relational_rnn.cli import main
from relational_rnn.cli.commands import COMMANDS, find_command, load_command
from relational_rnn.console.parsing import wrap_command


def outcome(capsys, *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_overview_has_every_command_fits_a_screen_and_ends_with_an_example(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = outcome(capsys, "--help")
    assert (code, err) == (0, "")
    rows = [line for line in out.splitlines() if line.startswith("  ") and not line.startswith("   ")][:-1]
    named = [row.strip().split("  ")[0] for row in rows]
    words = set(out.replace(",", " ").split())
    for name in COMMANDS:
        start, _, last = name.rpartition(" ")
        assert name in named or (f"{start} WHAT" in named and last in words)
    assert out.endswith("example:\n  relational-rnn demo\n")
    assert len(out.splitlines()) <= 24
    assert outcome(capsys) == (0, out, "")
    assert outcome(capsys, "-h") == (0, out, "")


def test_help_is_drawn_on_a_terminal_of_one_column(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1")
    code, out, _ = outcome(capsys, "ask", "--help")
    assert (code, max(map(len, out.splitlines())) <= 80, os.environ["COLUMNS"]) == (0, True, "1")


def test_letters_that_the_terminal_does_not_have_are_spelled_out(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr("relational_rnn.cli.overview", lambda *_: "r\u00fcn")
    assert main(["--help"]) == 0
    assert written.getvalue() == b"r\\xfcn\n"


def test_the_beginnings_of_commands_list_all_that_the_overview_puts_together(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    listed = []
    for start in ("train", "compare", "data"):
        code, out, _ = outcome(capsys, start, "--help")
        assert code == 0
        listed += [line.strip().split("  ")[0] for line in out.splitlines() if line.startswith("  ")]
    assert listed == [name for name in COMMANDS if name.split()[0] in ("train", "compare", "data")]


@pytest.mark.parametrize(
    ("name", "wider"),
    [
        *(("", 137), ("train", 80), ("data", 200), ("train language", 137)),
        *(("compare babi", 80), ("evaluate", 200), ("ask", 80), ("inspect", 137)),
    ],
)
def test_every_help_wraps_at_the_width_of_the_terminal_and_breaks_no_word(name, wider, capsys, monkeypatch):
    def help_of(width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        return outcome(capsys, *name.split(), "--help")[1]

    words = words_of(help_of(1000))
    for columns in (60, wider):
        text = help_of(columns)
        assert max(map(len, text.splitlines())) <= columns
        assert words <= words_of(text)  # every word and every option stands somewhere as it is, whatever the width


def words_of(text: str) -> set[str]:
    return set(re.findall(r"(?:--)?[A-Za-z][\w.-]*\w", text))


def test_an_example_that_wraps_can_still_be_pasted():
    for name in COMMANDS:
        for example in load_command(name).EXAMPLES:
            for columns in (60, 80):
                text = wrap_command(example, columns)
                assert shlex.split(text.replace("\\\n", " ")) == shlex.split(example)


def test_the_beginning_of_a_command_has_an_overview_of_its_own(capsys):
    code, out, _ = outcome(capsys, "data", "--help")
    assert code == 0
    assert "data generate babi" in out
    assert "data fetch babi" in out
    assert "train babi" not in out


def test_help_and_mistakes_need_neither_torch_nor_lightning():
    program = (
        "import sys\n"
        "from relational_rnn.cli import main\n"
        "assert main(['--help']) == 0\n"
        "assert main(['trian']) == 2\n"
        "heavy = {'torch', 'lightning_fabric', 'matplotlib', 'tyro', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "relational_rnn", "frobnicate"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: relational-rnn: 'frobnicate' is not a command\n")


TRAINING = ", ".join(name for name in COMMANDS if name.startswith("train "))


@pytest.mark.parametrize(
    ("words", "problem", "expected"),
    [
        (["trian", "babi"], "'trian babi' is not a command", "train babi"),
        (["train"], "'train' is only the beginning of a command", TRAINING),
        (["data", "generate", "--out", "x"], "is not a command", "data generate babi"),
        (["reprot"], "'reprot' is not a command", "report"),
        (["--frob"], "'--frob' is not a command", ", ".join(COMMANDS)),
        (["trian", "--help"], "'trian' is not a command", TRAINING),
    ],
)
def test_words_that_name_no_command_are_answered_with_the_nearest(capsys, words, problem, expected):
    code, out, err = outcome(capsys, *words)
    assert (code, out) == (2, "")
    assert problem in err
    assert f"  expected  {expected}\n" in err


def test_the_longest_name_is_found_and_the_rest_is_left():
    assert find_command(["data", "generate", "babi", "--seed", "3"]) == ("data generate babi", ["--seed", "3"])
    assert find_command(["ask", "runs/a"]) == ("ask", ["runs/a"])
    assert find_command(["data", "generate"]) is None


def test_without_tyro_the_extra_is_named_and_the_overview_still_works(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    code, out, err = outcome(capsys, "evaluate", "--help")
    assert (code, out) == (2, "")
    assert err == (
        "error: relational-rnn evaluate needs the package 'tyro', which is not installed: "
        'pip install "relational-rnn[train]"\n'
    )
    assert outcome(capsys, "--help")[0] == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_ends_with_examples_that_parse(capsys, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = outcome(capsys, *name.split(), "--help")
    assert (code, err) == (0, "")
    examples = load_command(name).EXAMPLES
    assert examples
    heading = "example:" if len(examples) == 1 else "examples:"
    assert out.endswith("\n" + heading + "".join(f"\n  {example}" for example in examples) + "\n")
