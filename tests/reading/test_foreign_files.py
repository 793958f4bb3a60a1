"""Files that somebody else made, or damaged: each is refused in one sentence that names it."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from relational_rnn import InputError, RelationalMemory
from relational_rnn._reading import archives, json_text, parquet, plain, tables
from relational_rnn._reading.guard import damaged
from relational_rnn._reading.structure import from_json
from relational_rnn.nn import GRU
from relational_rnn.nn.compat import PortedRelationalMemory
from relational_rnn.tasks.babi.reading import read_babi
from relational_rnn.tasks.downloading import check_address
from relational_rnn.tasks.language.corpus import CorpusConfig, prepare


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "it is nested too deeply"),
        ("9" * 5000, "9999999999999999999999999999999999999999... is out of range"),
        ("[NaN]", "NaN is out of range"),
        ("[1e999]", "1e999 is out of range"),
        ('["\\ud800"]', "surrogates not allowed"),
    ],
)
def test_json_that_no_value_stands_for(text, said, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json: is not readable JSON: ") as error:
        json_text.read_json(tmp_path / "x.json")
    assert said in str(error.value)


def test_whole_numbers_of_64_bits_are_read(tmp_path):
    (tmp_path / "x.json").write_text(f"[{2**63}, {-(2**63)}]")
    assert json_text.read_json(tmp_path / "x.json") == [2**63, -(2**63)]


def test_text_names_the_line(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(b"step,loss\n1,2\n\xff")
    with pytest.raises(InputError, match=r"metrics\.csv, line 3: this is not UTF-8 text\n  got       b'\\xff'"):
        tables.read_table(tmp_path / "metrics.csv")


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing", "large"])
def test_what_is_no_file_is_refused_and_never_waited_for(kind, tmp_path):
    path = tmp_path / "config.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(plain.MOST_BYTES + 1)
    said = {"folder": "this is a folder", "pipe": "a pipe or a device", "missing": "No such file", "large": "too large"}
    with pytest.raises(InputError, match=said[kind]):
        json_text.read_json(path)


def test_memory_that_runs_out_in_a_reader_is_the_files_fault():
    with (
        pytest.raises(InputError, match=r"a\.pt: broken\n  got       it needs more memory than there is"),
        damaged("a.pt", "broken"),
    ):
        raise MemoryError


def zipped(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_an_unknown_compression_is_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", {"en/qa1_train.txt": "1 a.\n"})
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02") + 10
    path.write_bytes(data[:8] + b"\x63\0" + data[10:at] + b"\x63\0" + data[at + 2 :])
    for read in (read_babi, lambda path: prepare(CorpusConfig(path=path), cache=tmp_path / "cache")):
        with pytest.raises(InputError, match="cannot be read to its end\n  got       That compression method"):
            read(path)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_what_an_archive_unpacks_to_is_bounded(kind, tmp_path, monkeypatch):
    """All members together: each alone would be small enough."""
    monkeypatch.setattr("relational_rnn.tasks.babi.reading.MOST_UNPACKED", 100_000)
    files = {f"en-10k/qa{n}_train.txt": b"1" * 30_000 for n in range(1, 6)}
    path = tmp_path / f"bomb.{kind}"
    if kind == "zip":
        zipped(path, files)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    assert path.stat().st_size < 3000
    with pytest.raises(InputError, match="unpacks to too much\n  expected  at most 100,000 bytes"):
        read_babi(path)
    monkeypatch.setattr("relational_rnn.tasks.language.sources.most_unpacked", lambda path: 100_000)
    with pytest.raises(InputError, match="unpacks to too much"):
        prepare(CorpusConfig(path=path), cache=tmp_path / "cache")


def test_an_archive_may_unpack_to_a_multiple_of_its_size(tmp_path):
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        file.truncate(2**26)
    assert archives.most_unpacked(path) == 100 * 2**26


def test_a_tar_header_that_leads_backwards_ends(tmp_path):
    """A negative size would have the reader come back to the same header for ever."""
    info = tarfile.TarInfo("en-10k/qa1_train.txt")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + (-512 & 0xFFFF).to_bytes(2, "big")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header[:512]):06o}\0 ".encode()
    (tmp_path / "a.tar").write_bytes(bytes(header) + b"\0" * 1024)
    with pytest.raises(InputError, match="archive"):
        read_babi(tmp_path / "a.tar")


def test_a_damaged_header_in_the_middle_of_a_tar_is_no_end(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for split in ("train", "valid", "test"):
            info = tarfile.TarInfo(f"{split}.txt")
            info.size = 6
            archive.addfile(info, io.BytesIO(b"to be\n"))
    data = bytearray(path.read_bytes())
    data[2 * 1024 + 3] ^= 1  # in the third name
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read to its end\n  got       a header is damaged"):
        prepare(CorpusConfig(path=path), cache=tmp_path / "cache")


def test_numbers_of_5000_digits_in_a_story(tmp_path):
    for line in (f"{'9' * 5000} Ada ran.\n", f"1 Ada ran.\n2 Where is Ada? \tattic\t{'9' * 5000}\n"):
        (tmp_path / "qa1_train.txt").write_text(line)
        (tmp_path / "qa1_test.txt").write_text(line)
        with pytest.raises(InputError, match=r"qa1_train.txt, line \d: "):
            read_babi(tmp_path, tasks=[1])


@pytest.mark.parametrize(
    "url", ["http://[", "http://", "http://a:x/", "http://a b/", "http://" + "a" * 99, "http://\udcff"]
)
def test_addresses_that_no_server_has(url):
    with pytest.raises(InputError, match="this is no web address"):
        check_address("fetch", url)


def arrays_of(path, **changes):
    layer = RelationalMemory(5, 3, 4)
    from relational_rnn.nn._importing import sonnet_variables

    found = {
        name: (p.T if transposed else p).detach().numpy()
        for name, (p, transposed) in sonnet_variables(layer.cell()).items()
    }
    np.savez(path, **(found | changes))
    return path


def test_damaged_arrays_are_refused(tmp_path):
    path = arrays_of(tmp_path / "a.npz")
    data = path.read_bytes()
    np.save(tmp_path / "b.npy", np.ones(3))
    lies = data.replace(b"'shape': (5, 4)", b"'shape': (9, 4)")
    assert lies != data
    for content in (data[:200], (tmp_path / "b.npy").read_bytes(), lies, b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be read as an \.npz file of arrays"):
            RelationalMemory.from_sonnet(path, mem_slots=3, head_size=4)


@pytest.mark.parametrize("zipped", [True, False])
def test_any_changed_byte_of_a_saved_state_dict_is_refused_or_read(zipped, tmp_path):
    path = tmp_path / "a.pt"
    torch.save(PortedRelationalMemory(5, 3, 4).port_state_dict(), path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    refused = 0
    for at in range(0, 2400, 12):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            RelationalMemory.from_l0sg(path, mem_slots=3, head_size=4, compat="l0sg")
        except InputError:
            refused += 1
    assert refused > 20


def test_a_compressed_checkpoint_is_refused(tmp_path):
    """It could unpack to any size."""
    torch.save({"a": torch.zeros(999)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    zipped(tmp_path / "b.pt", files)
    with pytest.raises(InputError, match="a part of it is compressed"):
        RelationalMemory.from_l0sg(tmp_path / "b.pt", mem_slots=3, head_size=4, compat="l0sg")


@pytest.mark.parametrize(
    "changes", [{"attention_mlp_layers": 10**12}, {"num_heads": 10**12}, {"num_heads": 300}, {"mem_slots": "3"}]
)
def test_sizes_beyond_the_weights_are_refused_before_anything_is_built(changes, tmp_path):
    import json

    import safetensors.torch

    layer = RelationalMemory(5, 3, 4)
    layer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["arguments"] |= changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(layer.state_dict(), tmp_path / "model.safetensors")  # without the header's copy
    with pytest.raises(InputError, match="RelationalMemory"):
        RelationalMemory.from_pretrained(tmp_path)


def test_a_whole_number_beyond_64_bits_in_a_configuration_is_refused(tmp_path):
    GRU(3, 4).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 4', f'"hidden_size": {10**30}'))
    with pytest.raises(InputError, match="is out of range"):
        GRU.from_pretrained(tmp_path)


def test_the_file_is_named_where_a_value_is_refused():
    from relational_rnn.training import LoopConfig, to_json

    with pytest.raises(InputError, match=r"^run/config\.json: LoopConfig: steps must be"):
        from_json(LoopConfig, to_json(LoopConfig()) | {"steps": 0}, where="run/config.json")


def test_parquet_that_is_damaged_or_kills_its_library_is_refused(tmp_path, monkeypatch):
    arrow, written = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "part one.parquet"
    written.write_table(arrow.table({"text": ["to be\n", None, "ä"], "number": [1, 2, 3]}), path)
    assert list(parquet.read_column(path, "text", extra="language")) == ["to be\n", None, "ä"]
    with pytest.raises(
        InputError, match=r"part one.parquet: it cannot be read as Parquet\n.*'number' does not hold texts"
    ):
        list(parquet.read_column(path, "number", extra="language"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"it cannot be read as Parquet\n  got .*magic bytes"):
        list(parquet.read_column(path, "text", extra="language", hint="again."))
    monkeypatch.setattr(parquet.sys, "executable", "/bin/false")
    with pytest.raises(InputError, match="the library that reads it crashed"):
        list(parquet.read_column(path, "text", extra="language"))
