"""relational-rnn inspect: examples, texts, statistics, and what it refuses; and the examples of a report."""

import re

import pytest


def test_an_example_becomes_a_page(call, trained, tmp_path):
    out = tmp_path / "pages" / "one.html"
    done = call("inspect", trained, "--task", 15, "--example", 3, "-o", out)
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(rf"{out}  \(0\.\d\d MB\)\n", done.out)
    page = out.read_text(encoding="utf-8")
    assert "<h1>A look inside rmc-0: task 15, basic-deduction, example 3</h1>" in page
    assert "The model answers" in page
    assert "This one beside many" not in page
    first = call("inspect", trained, "-o", tmp_path / "first.html")
    assert first.code == 0
    assert "task 1, single-supporting-fact, example 1" in (tmp_path / "first.html").read_text(encoding="utf-8")


def test_a_text_of_one_s_own_with_the_statistics_of_a_task(call, trained, tmp_path):
    text = "Mary went to the garden. John went to the office. Where is Mary?"
    done = call("inspect", trained, "--text", text, "--statistics", "--task", 1, "-o", tmp_path / "own.html")
    assert (done.code, done.err) == (0, "")
    page = (tmp_path / "own.html").read_text(encoding="utf-8")
    assert "John went to the office." in page
    assert "test stories of task 1, each read to its end" in page


def test_the_memory_that_comes_with_the_package_can_be_inspected(call, tmp_path):
    text = "Mary went to the garden. John went to the office. Where is Mary?"
    done = call("inspect", "--pretrained", "--text", text, "-o", tmp_path / "own.html")
    assert (done.code, done.err) == (0, "")
    page = (tmp_path / "own.html").read_text(encoding="utf-8")
    assert re.search(r"The model answers &#39;\w+&#39; with probability", page)
    done = call("inspect", "--pretrained", "--task", 6, "--example", 2, "-o", tmp_path / "six.html")
    assert (done.code, done.err) == (0, "")


def test_fast_weights_have_a_page_without_statistics_and_other_cores_none(call, tiny, tmp_path):
    for core in ("fastweights", "gru"):
        words = ["train", "babi", *tiny, "--memory.head-size", 24, "--core", core, "--loop.steps", 2]
        assert call(*words, "--out", tmp_path / core).code == 0
    done = call("inspect", tmp_path / "fastweights", "--task", 15, "-o", tmp_path / "page.html")
    assert (done.code, done.err) == (0, "")
    assert "What each sentence wrote, and which sentence" in (tmp_path / "page.html").read_text(encoding="utf-8")
    for core, options, message in (
        ("fastweights", ["--statistics"], "only a relational memory has attention and gates"),
        ("gru", [], "only a relational memory or a fast-weight memory can be looked into"),
    ):
        refused = call("inspect", tmp_path / core, *options, "-o", tmp_path / "none.html")
        assert refused.code == 2
        assert message in refused.err
    assert not (tmp_path / "none.html").exists()
    told = call("ask", tmp_path / "fastweights", typed="Mice are afraid of wolves.\nGertrude is a mouse.\n"
                "What is gertrude afraid of?\n")  # fmt: skip
    assert (told.code, told.err) == (0, "")


@pytest.mark.parametrize("words", [[], ["somewhere", "--pretrained"]])
def test_a_run_or_the_memory_of_the_package_and_not_both(call, words):
    done = call("inspect", *words)
    assert done.code == 2
    assert "name one thing to look into" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text", "Mary left.", "--example", 2], "--text and --example exclude each other"),
        (["--text", "Mary left. Where is Mary?", "--task", 1], "--task has no effect with --text"),
        (["--task", 7], "--task is not a known choice"),
        (["--example", 10_000], "there is no such example"),
        (["--text", "Mary went to the moon. Where is Mary?"], "unknown word: moon"),
        (["--text", "Mary left."], "must end with a question"),
    ],
)
def test_what_cannot_be_inspected_is_refused_and_nothing_is_written(call, trained, tmp_path, words, message):
    done = call("inspect", trained, *words, "-o", tmp_path / "page.html")
    assert done.code == 2
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_report_leads_from_a_task_to_its_worst_examples_and_their_inspection(call, trained, tmp_path):
    done = call("report", trained, "--examples", 2, "-o", tmp_path)
    assert (done.code, done.err) == (0, "")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert '<a href="#examples-15-basic-deduction">15 basic-deduction</a>' in page
    links = re.findall(r'<a href="(inspect/[^"]+)">', page)
    assert len(links) == 4
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("inspect/*/*")) == sorted(links)
    assert 'id="examples-15-basic-deduction"' in page


@pytest.mark.parametrize("words", [["--examples", -1], ["--examples", 1, "--results", "x", "--task", "y"]])
def test_examples_that_make_no_sense_are_refused(call, trained, tmp_path, words):
    done = call("report", trained, *words, "-o", tmp_path / "out")
    assert done.code == 2
    assert "--examples" in done.err


def test_a_run_on_n_th_farthest_has_a_page_and_other_tasks_are_refused(call, tmp_path):
    small = ["--loop.steps", 2, "--loop.validate-every", 2, "--loop.checkpoint-every", 2, "--loop.accelerator", "cpu"]
    folder = tmp_path / "farthest"
    sizes = ["--memory.mem-slots", 2, "--memory.head-size", 4, "--memory.num-heads", 2]
    sizes += ["--valid-samples", 128, "--test-samples", 300]
    trained = call("train", "nth-farthest", "--recipe", "nth-farthest-small", *small, *sizes, "--out", folder)
    assert trained.code == 0
    done = call("inspect", folder, "--example", 2, "-o", tmp_path / "page.html")
    assert (done.code, done.err) == (0, "")
    assert "The reference, followed" in (tmp_path / "page.html").read_text(encoding="utf-8")
    for words, message in ((["--task", 1], "--task has no effect"), (["--example", 301], "1 to 300")):
        refused = call("inspect", folder, *words)
        assert refused.code == 2
        assert message in refused.err
    assert call("evaluate", folder).code == 0
    done = call("report", folder, "--examples", 2, "-o", tmp_path / "report")
    assert (done.code, done.err) == (0, "")
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert '<a href="#examples-n-1">n = 1</a>' in page
    assert 'id="examples-n-1"' in page
    links = re.findall(r'<a href="(inspect/[^"]+)">(\d+)</a>', page)
    assert len(links) == 2 * 4
    for link, number in links:
        worst = (tmp_path / "report" / link).read_text(encoding="utf-8")
        assert call("inspect", folder, "--example", number, "-o", tmp_path / "page.html").code == 0
        assert (tmp_path / "page.html").read_text(encoding="utf-8") == worst


def test_a_run_on_language_has_a_page_of_its_test_text_and_of_any_other(call, tmp_path):
    text, folder = tmp_path / "text.txt", tmp_path / "language"
    text.write_text("the cat sat on a mat\ntwo birds saw the cat\n" * 120, encoding="utf-8")
    words = [
        *("train", "language", "--data.path", text, "--data.vocabulary", "character", "--out", folder),
        *("--memory.mem-slots", 2, "--memory.head-size", 4, "--memory.num-heads", 2, "--batch-size", 2, "--chunk", 20),
        *("--loop.steps", 2, "--loop.validate-every", 2, "--loop.checkpoint-every", 2, "--loop.accelerator", "cpu"),
    ]
    trained = call(*words)
    assert trained.code == 0, trained.err
    done = call("inspect", folder, "--example", 2, "--statistics", "-o", tmp_path / "page.html")
    assert (done.code, done.err) == (0, "")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "A look inside language: tokens 201 to 400 of the test text" in page
    assert "mean over the first 3 pieces of the test text" in page
    assert "Mean surprise: " in page
    own = call("inspect", folder, "--text", "a mat", "-o", tmp_path / "own.html")
    assert (own.code, own.err) == (0, "")
    assert (tmp_path / "own.html").read_text(encoding="utf-8").count('class="token"') == 5
    for refused, message in (
        (["--example", 4], "1 to 3"),
        (["--task", 1], "--task has no effect: the run is on language"),
        (["--text", "zoo"], "z"),
    ):
        wrong = call("inspect", folder, *refused, "-o", tmp_path / "none.html")
        assert wrong.code == 2
        assert message in wrong.err
    assert not (tmp_path / "none.html").exists()
