"""ablate_memories.py: memories with one part changed compute what they say; their page says what was measured."""

import contextlib
import copy
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from scripts import load
from torch import Tensor

from relational_rnn import RelationalMemory
from relational_rnn.nn import FastWeightMemory
from relational_rnn.nn.core import state_bytes
from relational_rnn.nn.cores import count_parameters
from relational_rnn.nn.initial_weights import draw_truncated_normal
from relational_rnn.ops.relational_scan import loop, reference
from relational_rnn.tasks.babi.encoding import BABI
from relational_rnn.tasks.babi.model import ModelConfig, StoryModel

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ablate():
    sys.path.insert(0, str(ROOT / "experiments"))
    yield importlib.import_module("ablate_memories")
    sys.path.remove(str(ROOT / "experiments"))


@pytest.fixture(scope="module")
def variants(ablate):
    return sys.modules["memory_variants"]


def core_of(variant) -> RelationalMemory | FastWeightMemory:
    """A small core of the kind of a variant."""
    torch.manual_seed(3)
    if variant.core == "fastweights":
        core = FastWeightMemory(5, 12, num_heads=2, key_size=4, value_size=6, reads=2, carry=False)
        draw_truncated_normal(core.read_value)  # as after training: at first what is read does not count
        return core
    return RelationalMemory(5, 3, 4, num_heads=2, gate_style="competitive")


@contextlib.contextmanager
def altered(variants, name: str):
    """The small core of a variant, computing as the variant does."""
    variant = variants.VARIANTS[name]
    core = core_of(variant)
    with variant.alter(core):
        yield core


ALTERED = [
    "slots-no-share",
    "slots-gate-alone",
    "slots-two-gates",
    "slots-unscaled",
    "slots-sharper",
    "slots-tanh-keys",
    "fast-no-reads",
    "fast-no-delta",
    "fast-no-forgetting",
]


def test_all_changes_that_are_no_option_are_tested(variants):
    assert [name for name, variant in variants.VARIANTS.items() if variant.alter is not None] == ALTERED


@pytest.mark.parametrize("name", ALTERED)
def test_a_change_changes_what_a_sequence_gives_and_ends_with_its_run(variants, name):
    x = torch.randn(2, 6, 5)
    plain = core_of(variants.VARIANTS[name])
    with altered(variants, name) as core:
        got = core.snapshots(x, torch.tensor([0, 1]), torch.tensor([6, 4]))
    expected = plain.snapshots(x, torch.tensor([0, 1]), torch.tensor([6, 4]))
    if not isinstance(got, Tensor):
        got, expected = got["fast"], expected["fast"]
    assert (got - expected).abs().max() > 1e-3
    assert loop.advance is reference.advance


def slots_step(variants, **parts: object) -> tuple[Tensor, object, Tensor]:
    """(the memory before, a step of `compete` with these parts, the candidate)."""
    core = core_of(variants.VARIANTS["slots"])
    p = core.cell().scan_parameters()
    memory = torch.randn(2, 3, 8)
    step = variants.compete(memory, *reference.input_terms(torch.randn(2, 1, 5), p), p, **parts)
    return memory, step, torch.tanh(step.candidate)


def test_nothing_changed_is_the_step_of_the_package(variants):
    core, x = core_of(variants.VARIANTS["slots"]), torch.randn(2, 6, 5)
    expected = copy.deepcopy(core)(x)[1]
    with variants.slots_with()(core):
        torch.testing.assert_close(core(x)[1], expected)


def test_without_a_share_all_slots_move_alike(variants):
    memory, step, candidate = slots_step(variants, rate=variants.even)
    assert step.share.std() > 0.01  # which the update does not see
    torch.testing.assert_close(step.memory - memory, step.input_gate * (candidate - memory))  # 3 slots, 3 x 1/3
    memory, step, candidate = slots_step(variants, rate=variants.gate_alone)
    torch.testing.assert_close(step.memory - memory, step.input_gate * (candidate - memory))


def test_without_scale_and_bound_a_slot_moves_by_its_share_of_the_gate(variants):
    memory, step, candidate = slots_step(variants, rate=variants.unscaled)
    torch.testing.assert_close(step.memory - memory, step.share * step.input_gate * (candidate - memory))


def test_sharper_scores_square_the_shares_and_keys_can_be_of_the_tanh(variants):
    core = core_of(variants.VARIANTS["slots"])
    p = core.cell().scan_parameters()
    memory, terms = torch.randn(2, 3, 8), reference.input_terms(torch.randn(2, 1, 5), p)
    plain = variants.compete(memory, *terms, p).share
    squared = plain.square() / plain.square().sum(-2, keepdim=True)
    torch.testing.assert_close(variants.compete(memory, *terms, p, sharpness=2.0).share, squared)
    of_tanh = variants.compete(memory, *terms, p, keys_from=torch.tanh).share
    torch.testing.assert_close(of_tanh, variants.compete(torch.tanh(memory), *terms, p).share)


def test_two_gates_are_two(variants):
    forget = torch.nn.Linear(16, 8)
    memory, step, candidate = slots_step(variants, forget=forget)
    moved = reference.update_rate(step.share, step.input_gate)
    torch.testing.assert_close(step.memory, moved * candidate + step.forget_gate * memory)
    with altered(variants, "slots-two-gates") as core:
        core(torch.randn(2, 6, 5))[1].sum().backward()
        assert core.forget.weight.grad.abs().max() > 0


def test_reads_that_find_nothing_leave_the_write_to_the_input(variants):
    x, held = torch.randn(2, 6, 5), {"fast": torch.randn(2, 2, 4, 6)}
    plain = core_of(variants.VARIANTS["fast"])
    assert not torch.allclose(plain.trace(x).keeps, plain.trace(x, held).keeps)
    with altered(variants, "fast-no-reads") as core:
        torch.testing.assert_close(core.trace(x).keeps, core.trace(x, held).keeps)
        assert not torch.allclose(core(x)[0], core(x, held)[0])  # it is read after the write


def test_writes_add_or_keep(variants):
    memory, value = torch.randn(4, 4, 6), torch.randn(4, 1, 6)
    keys = torch.nn.functional.normalize(torch.randn(4, 2, 4), dim=-1)
    strength, keep = torch.rand(4, 1, 1), torch.rand(4, 1, 1)
    key, query = keys[:, :1], keys[:, 1:]
    added, found = variants.add_only(memory, keys, value, strength, keep)
    torch.testing.assert_close(added - keep * memory, key.mT * strength * value)
    torch.testing.assert_close(found, query @ added)
    kept, found = variants.keep_all(memory, keys, value, strength, keep)
    torch.testing.assert_close(key @ kept, key @ memory + strength * (value - key @ memory))
    torch.testing.assert_close(found, query @ kept)
    beside = torch.linalg.svd(key)[2][:, 1:]  # directions that the key does not touch
    torch.testing.assert_close(beside @ kept, beside @ memory)


def test_variants_have_the_parameters_of_the_original_and_the_state_they_say(variants):
    kib = {"original": 2, "slots-2": 0.5, "slots-4": 1, "slots": 2, "slots-16": 4, "slots-64": 16}
    kib |= {"fast-4x8": 0.5, "fast-8x8": 1, "fast-8x16": 2, "fast": 4, "fast-16x32": 8, "fast-32x32": 16}
    counts, states = {}, {}
    for name in kib:
        variant = variants.VARIANTS[name]
        with torch.device("meta"):
            config = ModelConfig(embedding_size=64, head_size=128)
            model = StoryModel.build(BABI, variant.core, variant.memory, config, fast=variant.fast)
            counts[name], states[name] = count_parameters(model), state_bytes(model.core.initial_state(1)) / 1024
    assert counts == {name: pytest.approx(counts["original"], rel=0.02) for name in counts}
    assert states == kib


@pytest.fixture
def call(ablate, monkeypatch):
    def call(*words: object) -> int:
        monkeypatch.setattr("sys.argv", ["ablate_memories.py", *map(str, words)])
        return ablate.guarded(ablate.main)

    return call


def test_a_run_is_one_file_that_says_all(call, tmp_path):
    data = load(ROOT / "tests" / "runs" / "little_runs.py").write_files(tmp_path / "set", train=60, test=2)
    words = ["--data", data, "--out", tmp_path / "out", "--tasks", 1, 6, "--steps", 2, "--seeds", 4]
    assert call(*words, "--variants", "slots-two-gates") == 0
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == "slots-two-gates.1-6.2.4.json"
    text = path.read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    record = json.loads(text)
    assert (record["core"], record["tasks"], record["steps"], record["seed"]) == ("competitive", [1, 6], 2, 4)
    assert record["accuracy"].keys() == {"1", "6"}
    assert record["curve"] == [{"step": 2, "accuracy": record["accuracy"]}]
    assert (record["idle_parameters"], record["state_bytes"]) == (0, 2048)
    assert record["processor_seconds"] > 0
    assert record["versions"].keys() >= {"commit", "machine", "torch", "date"}
    assert record["configuration"]["optimizer"]["method"] == "muon"


def test_what_is_there_is_not_trained_again(ablate, call, tmp_path, monkeypatch):
    trained = []

    def run(name, config, stories):
        trained.append((name, config.seed))
        return {"steps": config.loop.steps}

    monkeypatch.setattr(ablate, "run", run)
    monkeypatch.setattr(ablate, "training_stories", lambda data: None)
    words = ["--data", tmp_path, "--out", tmp_path / "out", "--variants", "gru", "fast", "--steps", 7]
    assert call(*words, "--seeds", 0) == 0
    assert call(*words, "--seeds", 0, 1) == 0
    assert trained == [("gru", 0), ("fast", 0), ("gru", 1), ("fast", 1)]
    assert call(*words, "--seeds", 0, "--tasks", "all") == 0
    assert trained[4:] == [("gru", 0), ("fast", 0)]
    assert (tmp_path / "out" / "fast.all.7.0.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--variants", "slots", "slot"], "variants is not a known choice"),
        (["--tasks", "two"], "tasks are numbers, or all"),
        (["--tasks", "21"], "there are no such tasks"),
        (["--steps", "0"], "steps must be a whole number of at least 1"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_said_in_one_sentence(call, tmp_path, capsys, words, said):
    assert call("--data", tmp_path, "--out", tmp_path / "out", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_training_needs_stories(call, tmp_path, capsys):
    assert call("--out", tmp_path) == 2
    assert "name them with --data PATH" in capsys.readouterr().err


def record(variant: str, core: str, seed: int, accuracy: dict[int, float], **entries: object) -> dict[str, object]:
    known = {"variant": variant, "core": core, "seed": seed, "tasks": [*accuracy], "steps": 1500, "parameters": 12_345}
    accuracies = {str(task): value for task, value in accuracy.items()}
    return {**known, "accuracy": accuracies, "idle_parameters": 0, "state_bytes": 2048, **entries}


@pytest.fixture
def results(ablate, tmp_path):
    records = [
        record("slots", "competitive", 0, {1: 0.5, 2: 0.75}),
        record("slots", "competitive", 1, {1: 1.0, 2: 0.75}),
        record("slots", "competitive", 0, dict.fromkeys(range(1, 21), 0.625), steps=9000),
        record("slots-2", "competitive", 0, {1: 0.25, 2: 0.25}, state_bytes=512),
        record("slots-no-share", "competitive", 0, {1: 0.5, 2: 0.25}, idle_parameters=8000),
        record("gru", "gru", 0, {1: 0.5, 2: 0.5}, state_bytes=300),
    ]
    for number, entries in enumerate(records):
        (tmp_path / f"{number}.json").write_text(json.dumps(entries))
    return ablate.read(tmp_path)


def test_the_tables_have_a_row_for_each_variant_that_was_measured(ablate, results):
    head, _, *rows = ablate.table("slots", results).splitlines()
    assert head == (
        "| variant | tasks 1, 2, 1,500 updates | seeds | task 1 | task 2 | all 20 tasks, 9,000 updates | seeds "
        "| parameters | state bytes |"
    )
    assert rows == [
        "| **competing slots, all parts**, 8 slots of 64 | 75.0 ± 17.7 | 2 | 75.0 ± 35.4 | 75.0 ± 0.0 | 62.5 | 1 "
        "| 12,345 | 2,048 |",
        "| every slot takes 1/N of every row | 37.5 | 1 | 50.0 | 25.0 |  |  | 12,345 (8,000 idle) | 2,048 |",
        "| 2 slots | 25.0 | 1 | 25.0 | 25.0 |  |  | 12,345 | 512 |",
    ]
    assert ablate.table("cores", results).splitlines()[2:] == ["| GRU | 50.0 | 1 | 50.0 | 50.0 | 12,345 | 300 |"]
    assert ablate.table("fast", results) == "Not measured yet."


def test_the_figure_has_a_panel_for_each_setting(ablate, results):
    pytest.importorskip("matplotlib")
    svg = ablate.drawing(results)
    words = (
        "tasks 1, 2, 1,500 updates",
        "all 20 tasks, 9,000 updates",
        "GRU",
        "RMC, competing slots",
        "bytes of state",
    )
    assert all(f">{word}<" in svg for word in words)


def test_a_result_of_a_variant_that_is_no_longer_there_is_refused(ablate, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(record("slots-of-old", "competitive", 0, {1: 0.5})))
    with pytest.raises(ValueError, match="variant is not a known choice"):
        ablate.read(tmp_path)


def test_the_page_is_that_of_the_results(ablate):
    page = ablate.PAGE.read_text(encoding="utf-8")
    assert [name for _, name, _ in ablate.BLOCK.findall(page)] == list(ablate.MADE)
    results = ablate.read(ablate.RESULTS)
    assert ablate.render(page, results) == page, "run `python experiments/ablate_memories.py --page`"
    if results:
        assert ablate.DRAWING.exists()
