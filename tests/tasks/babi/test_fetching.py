"""The download, against a server on this machine: whole, interrupted and resumed, refused, altered."""

from __future__ import annotations

import errno
import hashlib
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from local_server import Server, serving
from made_up import made_up_files, published, write_tar

from relational_rnn._check import InputError
from relational_rnn.tasks.babi import fetching
from relational_rnn.tasks.babi.fetching import ARCHIVE_NAME, Fetched, fetch_babi, published_hashes
from relational_rnn.tasks.babi.reading import read_babi

MISSING = "en-10k/qa3_three-supporting-facts_train.txt"
PARTIAL = ARCHIVE_NAME + ".partial"


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """An archive of two made-up sets, `en` and `en-10k`, with folders as published."""
    sets = {"en": made_up_files(2, 1), "en-10k": made_up_files(4, 1)}
    files = {f"tasks_1-20_v1-2/{lang}/{name}": text for lang, names in sets.items() for name, text in names.items()}
    return write_tar(tmp_path / "served.tar.gz", files, "gz").read_bytes()


@pytest.fixture
def server(content, monkeypatch) -> Iterator[Server]:
    sets = {"en": made_up_files(2, 1), "en-10k": made_up_files(4, 1)}
    hashes = {
        f"{lang}/{name}": hashlib.sha256(text.encode()).hexdigest()
        for lang, names in sets.items()
        for name, text in names.items()
    }
    del hashes[MISSING]
    monkeypatch.setattr(fetching, "published_hashes", lambda: hashes)
    with serving({"/tasks.tar.gz": content}) as running:
        yield running


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_archive_is_downloaded_checked_and_read(server, tmp_path):
    seen = []
    fetched = fetch_babi(
        tmp_path / "new" / "data",
        url=server.at("/tasks.tar.gz"),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert fetched == Fetched(tmp_path / "new" / "data" / ARCHIVE_NAME, 79, (MISSING,))
    assert fetched.path.read_bytes() == server.files["/tasks.tar.gz"]
    assert names(fetched.path.parent) == [ARCHIVE_NAME]
    size = len(server.files["/tasks.tar.gz"])
    assert seen[-1] == (size, size)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(read_babi(fetched.path, language="en").train[20]) == 2


def test_an_archive_that_is_there_is_checked_and_not_downloaded(server, tmp_path):
    first = fetch_babi(tmp_path, url=server.at("/tasks.tar.gz"))
    assert fetch_babi(tmp_path, url=server.at("/tasks.tar.gz")) == first
    assert server.asked == [None]
    first.path.write_bytes(b"something else")
    with pytest.raises(InputError, match="this is not an archive that can be read"):
        fetch_babi(tmp_path, url=server.at("/tasks.tar.gz"))
    assert first.path.read_bytes() == b"something else"  # the user's file is left as it is


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(server, tmp_path):
    server.cut_after = 1000
    with pytest.raises(InputError) as error:
        fetch_babi(tmp_path, url=server.at("/tasks.tar.gz"))
    size = len(server.files["/tasks.tar.gz"])
    assert f"the download was cut off\n  got       1,000 of {size:,} bytes" in str(error.value)
    assert str(error.value).endswith("  hint      run the command again to go on.")
    assert PARTIAL in names(tmp_path)
    assert ARCHIVE_NAME not in names(tmp_path)
    server.cut_after = 500
    with pytest.raises(InputError, match="1,500 of"):
        fetch_babi(tmp_path, url=server.at("/tasks.tar.gz"))
    server.cut_after = None
    seen = []
    fetched = fetch_babi(
        tmp_path, url=server.at("/tasks.tar.gz"), progress=lambda done, total: seen.append((done, total))
    )
    assert server.asked == [None, "bytes=1000-", "bytes=1500-"]
    assert fetched.path.read_bytes() == server.files["/tasks.tar.gz"]
    assert seen[0][0] > 1500
    assert seen[-1] == (size, size)
    assert PARTIAL not in names(tmp_path)


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    (tmp_path / PARTIAL).write_bytes(b"x" * 700)
    server.ranges = False
    assert fetch_babi(tmp_path, url=server.at("/tasks.tar.gz")).path.read_bytes() == server.files["/tasks.tar.gz"]


def test_all_bytes_were_there_already(server, tmp_path):
    (tmp_path / PARTIAL).write_bytes(server.files["/tasks.tar.gz"])
    assert fetch_babi(tmp_path, url=server.at("/tasks.tar.gz")).path.read_bytes() == server.files["/tasks.tar.gz"]
    assert server.asked == [f"bytes={len(server.files['/tasks.tar.gz'])}-"]


def test_more_bytes_than_the_server_has_are_thrown_away(server, tmp_path):
    (tmp_path / PARTIAL).write_bytes(server.files["/tasks.tar.gz"] + b"more")
    assert fetch_babi(tmp_path, url=server.at("/tasks.tar.gz")).path.read_bytes() == server.files["/tasks.tar.gz"]
    assert server.asked[1:] == [None]


def test_what_came_before_from_another_file_is_noticed(server, tmp_path):
    (tmp_path / PARTIAL).write_bytes(b"x" * 700)
    with pytest.raises(InputError, match="this is not an archive that can be read"):
        fetch_babi(tmp_path, url=server.at("/tasks.tar.gz"))
    assert names(tmp_path) == ["served.tar.gz"]


@pytest.mark.parametrize("altered", ["en/qa7_counting_test.txt", "en-10k/qa20_agents-motivations_train.txt"])
def test_an_altered_file_is_named_and_not_installed(server, tmp_path, altered):
    fetching.published_hashes()[altered] = "0" * 64
    with pytest.raises(InputError) as error:
        fetch_babi(tmp_path / "to", url=server.at("/tasks.tar.gz"))
    assert str(error.value) == (
        f"{tmp_path / 'to' / ARCHIVE_NAME}: {altered} differs from the published file\n"
        f"  expected  sha256 {'0' * 64}\n"
        "  hint      it was not installed; run the command again, or give another url."
    )
    assert names(tmp_path / "to") == []


def test_an_archive_of_something_else_is_not_installed(server, tmp_path):
    server.files["/tasks.tar.gz"] = write_tar(tmp_path / "other.tar.gz", {"en/readme.txt": "hello"}, "gz").read_bytes()
    with pytest.raises(InputError, match="published files are missing in the archive"):
        fetch_babi(tmp_path / "to", url=server.at("/tasks.tar.gz"))
    assert names(tmp_path / "to") == []


@pytest.mark.parametrize(("status", "message"), [(404, "404 Not Found"), (503, "503 Service Unavailable")])
def test_an_error_of_the_server_is_passed_on(server, tmp_path, status, message):
    server.status = status
    with pytest.raises(InputError, match=f"the server refused\n  got       {message}"):
        fetch_babi(tmp_path / "to", url=server.at("/tasks.tar.gz"))
    assert names(tmp_path / "to") == []


def test_no_connection_is_said_in_one_sentence(tmp_path):
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        port = closed.server_address[1]
    with pytest.raises(InputError, match=r"no connection to the server\n  got       .*refused"):
        fetch_babi(tmp_path, url=f"http://127.0.0.1:{port}/x.tar.gz")
    with pytest.raises(InputError, match="this is no web address"):
        fetch_babi(tmp_path, url="file:///x.tar.gz")


def test_a_full_disk_leaves_nothing_behind(server, tmp_path, monkeypatch):
    folder = tmp_path / "to"
    opened = Path.open

    def full(self: Path, mode: str = "r"):
        file = opened(self, mode, buffering=0)
        if self.name == PARTIAL:
            file.write(b"half a block")
            file.close()
            raise OSError(errno.ENOSPC, "No space left on device")
        return file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match="it cannot be written\n  got       No space left on device"):
        fetch_babi(folder, url=server.at("/tasks.tar.gz"))
    assert names(folder) == []


def test_a_folder_that_cannot_be_made_is_said(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="it cannot be written"):
        fetch_babi(tmp_path / "file", url=server.at("/tasks.tar.gz"))


def test_the_table_of_hashes_is_that_of_the_published_files():
    table = published_hashes()
    assert len(table) == 79
    assert MISSING not in table
    with tarfile.open(published("RELATIONAL_RNN_BABI")) as archive:
        for member in archive:
            name = "/".join(member.name.split("/")[-2:])
            if name in table:
                stream = archive.extractfile(member)
                assert stream is not None
                assert hashlib.sha256(stream.read()).hexdigest() == table.pop(name), name
    assert {name.split("/")[0] for name in table} <= {"en"}
