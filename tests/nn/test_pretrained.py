"""What `from_pretrained` refuses, in which words, and the hub without a network."""

import inspect
import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch

from relational_rnn import InputError, MissingExtraError, RelationalMemory
from relational_rnn.nn.gru import GRU
from relational_rnn.nn.lstm import LSTM


@pytest.fixture
def saved(tmp_path):
    GRU(3, 4).save_pretrained(tmp_path)
    return tmp_path


def refusal(folder, cls=GRU, **options):
    with pytest.raises(InputError) as error:
        cls.from_pretrained(folder, **options)
    return str(error.value).replace(str(folder), "FOLDER")


def change_config(folder, **changes):
    """Change the file and the copy of it in the header of the weights."""
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"relational-rnn": json.dumps(config)})


def change_tensors(folder, change):
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def test_a_missing_key_and_an_unknown_one(saved):
    change_tensors(saved, lambda tensors: tensors.update(bias_hh=tensors.pop("bias_hh_l0")))
    assert refusal(saved) == (
        "GRU.from_pretrained: model.safetensors does not hold the weights of this layer\n"
        "  got       missing: bias_hh_l0; unknown: bias_hh"
    )


def test_another_shape(saved):
    change_tensors(saved, lambda tensors: tensors.update(bias_hh_l0=torch.zeros(13)))
    assert refusal(saved) == (
        "GRU.from_pretrained: bias_hh_l0 has the wrong shape or dtype\n"
        "  got       (13,) of torch.float32\n"
        "  expected  (12,) of torch.float32"
    )


def test_another_dtype(saved):
    change_tensors(saved, lambda tensors: tensors.update(bias_hh_l0=torch.zeros(12, dtype=torch.float64)))
    assert "got       (12,) of torch.float64" in refusal(saved)


def test_another_class(saved):
    assert refusal(saved, LSTM) == (
        "LSTM.from_pretrained: the files are of another class\n  got       GRU\n  hint      call GRU.from_pretrained."
    )


def test_a_later_format(saved):
    change_config(saved, format_version=2)
    assert refusal(saved) == (
        "GRU.from_pretrained: FOLDER/config.json has another format version\n"
        "  got       2\n"
        "  expected  1\n"
        "  hint      a newer relational-rnn may read it."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "another"}, "is not of a saved layer"),
        ({"extra": 1}, "config.json is damaged"),
        ({"arguments": [3, 4]}, "arguments has the wrong type"),
        ({"dtype": "Tensor"}, "names an unknown dtype"),
        ({"arguments": {"input_size": 3, "hidden_sizes": 4}}, "missing: hidden_size; unknown: hidden_sizes"),
        ({"arguments": {"input_size": 3, "hidden_size": "4"}}, "hidden_size must be a whole number"),
    ],
)
def test_a_changed_configuration(saved, changes, words):
    change_config(saved, **changes)
    assert words in refusal(saved)


def test_files_of_two_saves(saved, tmp_path):
    kept = (saved / "config.json").read_bytes()
    GRU(3, 5).save_pretrained(saved)
    (saved / "config.json").write_bytes(kept)
    expected = "GRU.from_pretrained: config.json and model.safetensors in FOLDER are not of the same save"
    assert refusal(saved) == expected


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_and_a_cut_one(saved, name):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: len(content) // 2])
    assert f"FOLDER/{name}" in refusal(saved)
    (saved / name).unlink()
    assert f"FOLDER/{name}: cannot be read: No such file" in refusal(saved)


def test_a_pickled_file_is_not_loaded(saved):
    torch.save(GRU(3, 4).state_dict(), saved / "model.safetensors")
    assert "FOLDER/model.safetensors cannot be read as safetensors" in refusal(saved)


def test_mixed_dtypes_are_not_saved(tmp_path):
    core = GRU(3, 4)
    core.bias_hh_l0.data = core.bias_hh_l0.data.double()
    with pytest.raises(InputError, match="the weights must all have one dtype"):
        core.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_an_argument_that_json_cannot_hold_is_not_saved(tmp_path):
    layer = RelationalMemory(3, 2, 4, forget_bias=float("inf"))
    with pytest.raises(InputError, match="forget_bias cannot be written as JSON"):
        layer.save_pretrained(tmp_path)


def test_an_interrupted_save_leaves_the_old_files(saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full_disk(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        GRU(3, 5).save_pretrained(saved)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_loading_leaves_the_random_numbers_alone(saved):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    GRU.from_pretrained(saved)
    assert torch.equal(torch.rand(3), expected)


def test_subclasses_save_their_own_arguments(tmp_path):
    class Named(GRU):
        def __init__(self, input_size, *, name="plain"):
            super().__init__(input_size, 4)
            self.name = name

    Named(3, name="mine").save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["arguments"] == {"input_size": 3, "name": "mine"}
    assert Named.from_pretrained(tmp_path).name == "mine"


@pytest.mark.parametrize(
    "options",
    [
        dict(num_layers=2, dropout=0.25, initial_memory="learned"),
        dict(read_head="weighted", output_size=9, initial_memory="random", batch_first=False, gate_style=None),
        dict(read_head="input", input_rows=2, key_size=7, forget_bias=-1.5, dtype=torch.float64),
    ],
)
def test_every_option_of_the_memory_comes_back(options, tmp_path):
    layer = RelationalMemory(3, 2, 4, **options)
    layer.save_pretrained(tmp_path)
    loaded = RelationalMemory.from_pretrained(tmp_path)
    shape = (5, 6, 3) if layer.input_rows is None else (5, 6, 2, 3)
    x = torch.ones(shape, dtype=options.get("dtype", torch.float32))
    assert all(torch.equal(a, b) for a, b in zip(loaded.eval()(x), layer.eval()(x), strict=True))
    assert (loaded.dropout, loaded.batch_first) == (layer.dropout, layer.batch_first)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for the hub's client that keeps repositories in a folder."""
    store = tmp_path / "hub"

    class HfApi:
        def create_repo(self, repo_id, *, private, exist_ok):
            assert exist_ok
            (store / repo_id).mkdir(parents=True, exist_ok=True)

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, store / repo_id, dirs_exist_ok=True)
            return SimpleNamespace(commit_url=f"address of {repo_id}: {commit_message}")

    def snapshot_download(repo_id, *, revision, allow_patterns):
        if not (store / repo_id).is_dir():
            raise OSError("404 Client Error\nRepository Not Found")
        assert set(allow_patterns) == {"config.json", "model.safetensors"}
        return str(store / repo_id)

    client = SimpleNamespace(HfApi=HfApi, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    return store


def test_to_the_hub_and_back(hub):
    layer = RelationalMemory(3, 2, 4, num_heads=2)
    assert layer.push_to_hub("me/memory", message="first") == "address of me/memory: first"
    loaded = RelationalMemory.from_pretrained("me/memory", revision="main")
    assert all(torch.equal(value, layer.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert 'RelationalMemory.from_pretrained("me/memory")' in (hub / "me/memory/README.md").read_text()


def test_a_repository_that_is_not_there(hub):
    assert refusal("me/nothing") == ("GRU.from_pretrained: FOLDER cannot be downloaded\n  got       404 Client Error")


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "me/name with spaces"])
def test_what_is_neither_a_folder_nor_a_repository(source):
    assert "there is no folder" in refusal(source)


def test_a_path_is_never_looked_up_on_the_hub(hub, tmp_path):
    assert "there is no folder" in refusal(tmp_path / "me" / "memory")


def test_a_folder_has_no_revisions(saved):
    assert "a folder has no revisions" in refusal(saved, revision="main")


def test_without_the_extra_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError) as error:
        GRU.from_pretrained("me/memory")
    assert str(error.value) == (
        "GRU.from_pretrained: there is no folder 'me/memory', and downloading it needs the package 'huggingface_hub', "
        'which is not installed: pip install "relational-rnn[hub]"'
    )
    with pytest.raises(MissingExtraError, match=r"GRU.push_to_hub needs the package 'huggingface_hub'"):
        GRU(3, 4).push_to_hub("me/memory")


def test_the_real_client_has_what_is_called():
    import huggingface_hub as hub

    parameters = {
        f.__name__: set(inspect.signature(f).parameters)
        for f in (hub.HfApi.create_repo, hub.HfApi.upload_folder, hub.snapshot_download)
    }
    assert {"repo_id", "private", "exist_ok"} <= parameters["create_repo"]
    assert {"repo_id", "folder_path", "commit_message"} <= parameters["upload_folder"]
    assert {"repo_id", "revision", "allow_patterns"} <= parameters["snapshot_download"]


def test_the_real_client_finds_a_repository_that_was_downloaded_before(tmp_path, monkeypatch):
    import huggingface_hub as hub

    layer = GRU(3, 4)
    repository = tmp_path / "models--me--memory"
    layer.save_pretrained(repository / "snapshots" / "a1b2")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a1b2")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    loaded = GRU.from_pretrained("me/memory")
    assert torch.equal(loaded.weight_hh_l0, layer.weight_hh_l0)
    assert "cannot be downloaded" in refusal("me/other")
