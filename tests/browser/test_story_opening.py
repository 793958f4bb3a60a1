"""What a story's page opens on, in a browser: sentences by slots or heads, the question's looks, words beside them."""

import pytest
import torch

from relational_rnn.inspection.fast_page import held_writes, shares_read
from relational_rnn.nn.cores import FastWeightSizes, MemorySizes
from relational_rnn.tasks.babi.answering import StoryReader
from relational_rnn.tasks.babi.encoding import BABI
from relational_rnn.tasks.babi.model import ModelConfig, StoryModel
from relational_rnn.tasks.babi.story_page import story_page, trace_story

STORY = (
    "Mary travelled to the garden.",
    "John got the apple there.",
    "Sandra went back to the bathroom.",
    "Mary journeyed to the office.",
    "The triangle is above the pink rectangle.",
)
T = len(STORY)
CORES = ("rmc", "competitive", "fastweights")


@pytest.fixture(scope="module")
def stories():
    found = {}
    for core in CORES:
        torch.manual_seed(5)
        sizes = MemorySizes(mem_slots=8, head_size=12, num_heads=2)
        config = ModelConfig(embedding_size=24, head_size=12, read_heads=3)
        fast = FastWeightSizes(num_heads=2, key_size=7, value_size=7).of(core)
        model = StoryModel.build(BABI, core, sizes, config, fast=fast)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        found[core] = trace_story(StoryReader(model, BABI), STORY, "Where is Mary?")
    return found


@pytest.fixture(scope="module")
def pages(stories, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stories")
    return {core: story_page(traced, title=core).save(folder / f"{core}.html") for core, traced in stories.items()}


def read_panel(tab, name: str) -> torch.Tensor:
    cells = tab.eval_on_selector_all(
        f"[data-name=opening] g[data-panel='{name}'] rect[data-value]",
        "all => all.map(c => [+c.dataset.row, +c.dataset.column, +c.dataset.value])",
    )
    table = torch.full((max(c[0] for c in cells) + 1, max(c[1] for c in cells) + 1), float("nan"), dtype=torch.float64)
    for row, column, value in cells:
        table[row, column] = value
    return table


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected.double(), rtol=0, atol=3e-5)


@pytest.mark.parametrize("core", ["rmc", "competitive"])
def test_slots_and_looks_are_those_of_the_trace_at_every_step(open_page, pages, stories, core):
    tab, traced = open_page(pages[core]), stories[core]
    for step in (0, 3, T - 1):
        tab.locator("#step").fill(str(step + 1))
        close(read_panel(tab, "replaced in slot"), traced.trace.update()[0].mean(-1))
        close(read_panel(tab, "looks"), traced.looks[step])
        if core == "competitive":
            close(read_panel(tab, "share taken by slot"), traced.trace.share.mean(-1))
        lines = tab.locator("#named tbody tr")
        assert lines.count() == 8
        for look, slot in enumerate(traced.looks[step].argmax(-1).tolist()):
            assert str(look + 1) in lines.nth(slot).locator("td.note").text_content()
    assert (tab.locator("g[data-panel='share taken by slot']").count() == 1) == (core == "competitive")
    assert tab.locator("[data-name=opening] .most").count() == 3  # a frame for every look


def test_writes_and_reads_are_those_of_the_trace_at_every_step(open_page, pages, stories):
    tab, traced = open_page(pages["fastweights"]), stories["fastweights"]
    held = held_writes(traced.trace)
    share = shares_read(traced.trace, held, traced.looks)
    for step in (0, 2, T - 1):
        tab.locator("#step").fill(str(step + 1))
        close(read_panel(tab, "strength of head"), traced.trace.strengths[0])
        close(read_panel(tab, "still held in head"), held[step].norm(dim=-1))
        close(read_panel(tab, "read by look"), share[step])
        lines = tab.locator("#named tbody tr")
        for look, sentence in enumerate(share[step].abs().argmax(0).tolist()):
            assert STORY[sentence] in lines.nth(look).text_content()


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("width", [390, 1280])
def test_the_figure_is_readable_and_its_words_are_whole(open_page, pages, core, width):
    tab = open_page(pages[core], width=width)
    parts = tab.eval_on_selector_all(
        "[data-name=opening] .drawing svg text",
        """all => all.map((t) => {
            const [b, whole] = [t.getBBox(), t.ownerSVGElement.viewBox.baseVal.width];
            return [t.textContent, b.x, b.x + b.width, b.y, b.y + b.height, whole]; })""",
    )
    words = " ".join(part[0] for part in parts)
    assert "…" not in words
    assert all(word in words for sentence in STORY for word in sentence.split())
    for text, left, right, *_, whole in parts:
        assert left >= -0.5, text
        assert right <= whole + 0.5, text
    for i, (text, left, right, top, bottom, _) in enumerate(parts):
        for other, left_2, right_2, top_2, bottom_2, _ in parts[:i]:
            apart = left >= right_2 - 1 or left_2 >= right - 1 or top >= bottom_2 - 4 or top_2 >= bottom - 4
            assert apart, (text, other)
    shown = tab.locator("[data-name=opening] .drawing svg")
    assert shown.evaluate("svg => Math.abs(svg.viewBox.baseVal.width - svg.getBoundingClientRect().width) < 1.5")
    cells = tab.locator("[data-name=opening] rect[data-value]").first.bounding_box()
    assert cells["width"] >= 13
    assert tab.eval_on_selector(".opening .scroll", "box => box.scrollWidth <= box.clientWidth")
    top = shown.bounding_box()["y"]
    assert top < 600  # on the first screen


@pytest.mark.parametrize("core", CORES)
def test_a_click_on_a_sentence_chooses_it_and_keys_go_on(open_page, pages, core):
    tab = open_page(pages[core], scheme="dark")
    tab.locator("[data-name=opening] g.pick text", has_text="bathroom").first.click()
    assert tab.locator("#place").text_content() == f"3 / {T}"
    assert tab.locator("#current").text_content() == STORY[2]
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#place").text_content() == f"4 / {T}"
    spoken = tab.locator("[data-name=opening] .drawing svg").get_attribute("aria-label")
    assert spoken.startswith("After sentence 4: ")


@pytest.mark.parametrize("core", ["competitive", "fastweights"])
def test_a_long_story_has_a_figure_of_the_same_height(open_page, tmp_path, core):
    torch.manual_seed(5)
    sizes = MemorySizes(mem_slots=8, head_size=12, num_heads=2)
    config = ModelConfig(embedding_size=24, head_size=12, read_heads=3)
    fast = FastWeightSizes(num_heads=2, key_size=7, value_size=7).of(core)
    model = StoryModel.build(BABI, core, sizes, config, fast=fast)
    traced = trace_story(StoryReader(model, BABI), STORY[:4] * 30, "Where is Mary?")
    page = story_page(traced, title="Long")
    assert len(page.html.encode()) < 2e6
    tab = open_page(page.save(tmp_path / "long.html"), width=390)
    assert tab.locator("[data-name=opening] .drawing svg").bounding_box()["height"] < 1300
    tab.locator("#step").fill("60")
    assert tab.locator("#place").text_content() == "60 / 120"
