"""`data fetch` of texts for language models: what it says, what is left, and how it is stopped."""

import hashlib

import pytest
from local_server import serving

from relational_rnn.tasks.language import fetching
from relational_rnn.tasks.language.commands.fetch import FetchCorpus


@pytest.fixture
def address(monkeypatch):
    content = b"First Citizen:\nSpeak, speak.\n"
    monkeypatch.setattr(fetching, "SHAKESPEARE_SHA256", hashlib.sha256(content).hexdigest())
    with serving({"/input.txt": content}) as server:
        yield server.at("/input.txt")


def test_a_text_is_fetched_and_its_place_is_said(call, address, tmp_path):
    ending = call("data", "fetch", "tiny-shakespeare", "--out", tmp_path, "--url", address)
    folder = tmp_path / "tiny-shakespeare"
    assert (ending.code, ending.out) == (0, f"{folder}: 1 file; its sha256 is the published file's\n")
    assert (folder / "input.txt").read_bytes() == b"First Citizen:\nSpeak, speak.\n"


def test_an_answer_of_the_server_is_an_error_of_one_sentence(call, address, tmp_path):
    ending = call("data", "fetch", "tiny-shakespeare", "--out", tmp_path, "--url", address + "x")
    assert ending.code == 2
    assert f"error: {address}x: the server refused\n  got       404 Not Found\n" in ending.err
    assert "Traceback" not in ending.err


def test_a_download_that_is_stopped_says_how_it_goes_on(call, monkeypatch, tmp_path):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("relational_rnn.tasks.language.commands.fetch.fetch_corpus", stop)
    ending = call("data", "fetch", "gutenberg", "--out", tmp_path, "--books", "7")
    assert ending.code == 130
    assert (
        f"what has come is kept; go on with: relational-rnn data fetch gutenberg --out {tmp_path} --books 7\n"
        in ending.err
    )


def test_only_books_can_be_counted(call, capsys):
    assert "--books" in FetchCorpus("data fetch gutenberg").EXAMPLES[-1]
    ending = call("data", "fetch", "wikitext-2", "--out", "x", "--books", "7")
    assert ending.code == 2
    assert "--books" in ending.err
