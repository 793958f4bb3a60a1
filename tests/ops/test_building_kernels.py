"""The build hook: what it does without a compiler, with one that fails, and as it is told."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from scripts import load

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hook(monkeypatch, tmp_path):
    """hatch_build.py, building into a folder of its own."""
    module = load(ROOT / "hatch_build.py")
    monkeypatch.setattr(module, "LIBRARY", tmp_path / "kernels.so")
    module.LIBRARY.write_bytes(b"an old one")
    return module


def test_without_a_compiler_nothing_is_built_and_the_reason_is_told(hook, monkeypatch):
    monkeypatch.setattr(hook, "find_compiler", lambda: None)
    assert hook.build("auto") == "there is no C compiler"
    assert hook.LIBRARY.read_bytes() == b"an old one"
    with pytest.raises(SystemExit, match="the CPU scan's kernels cannot be built: there is no C compiler"):
        hook.build("require")


def test_a_compiler_that_fails_is_named(hook, monkeypatch):
    monkeypatch.setattr(hook, "find_compiler", lambda: ["false"])
    assert hook.build("auto").startswith("the C compiler failed: false ")
    assert [path.name for path in hook.LIBRARY.parent.iterdir()] == ["kernels.so"]
    assert hook.LIBRARY.read_bytes() == b"an old one"
    with pytest.raises(SystemExit, match="cannot be built: the C compiler failed"):
        hook.build("require")


def test_it_does_as_it_is_told(hook):
    assert hook.build("skip") == "RELATIONAL_RNN_BUILD_KERNELS=skip"
    assert hook.LIBRARY.read_bytes() == b"an old one"
    with pytest.raises(SystemExit, match='must be "auto", "require" or "skip", not \'always\''):
        hook.build("always")


def test_the_compiler_of_the_environment_comes_first(hook, monkeypatch):
    monkeypatch.setenv("CC", "sh -x")
    assert hook.find_compiler() == ["sh", "-x"]
    monkeypatch.setenv("CC", "no-such-compiler")
    assert hook.find_compiler() != ["no-such-compiler"]


def test_a_wheel_is_tagged_for_the_platform_only_with_the_library_in_it(hook, monkeypatch):
    pytest.importorskip("hatchling")
    told = []
    made = hook.KernelsBuildHook.__new__(hook.KernelsBuildHook)
    monkeypatch.setattr(hook.KernelsBuildHook, "target_name", "wheel")
    monkeypatch.setattr(hook.KernelsBuildHook, "app", type("App", (), {"display_warning": told.append}))
    monkeypatch.setattr(hook, "ROOT", hook.LIBRARY.parent)
    monkeypatch.setattr(hook, "LIBRARY", hook.LIBRARY.parent / "src" / "kernels.so")
    for reason in (None, "there is no C compiler"):
        monkeypatch.setattr(hook, "build", lambda wish, reason=reason: reason)
        data = {"force_include": {}}
        made.initialize("standard", data)
        if reason is None:
            assert data["tag"].startswith("py3-none-")
            assert "linux" not in data["tag"] or data["tag"].startswith("py3-none-linux")
            assert list(data["force_include"].values()) == ["kernels.so"]
        else:
            assert data == {"force_include": {}}
    assert told == ["relational-rnn without compiled kernels: there is no C compiler"]


@pytest.mark.parametrize("ignored", [True, False])
def test_a_wheel_without_kernels_leaves_those_of_the_tree_where_they_are(ignored, monkeypatch, tmp_path):
    """And has none in it, whether git would ignore them or not."""
    pytest.importorskip("hatchling")
    from hatchling.builders.wheel import WheelBuilder

    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py", *([".gitignore"] if ignored else [])):
        shutil.copyfile(ROOT / name, tmp_path / name)
    place = tmp_path / "src" / "relational_rnn" / "ops" / "relational_scan" / "native" / "kernels.so"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"of the tree")
    (tmp_path / "src" / "relational_rnn" / "__init__.py").write_text("")
    monkeypatch.setenv("RELATIONAL_RNN_BUILD_KERNELS", "skip")
    (wheel,) = WheelBuilder(str(tmp_path)).build(directory=str(tmp_path / "wheels"), versions=["standard"])
    assert wheel.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as contents:
        assert not [name for name in contents.namelist() if name.endswith(".so")]
    assert place.read_bytes() == b"of the tree"
