"""The ready views in a browser: N-th farthest with its reference, a text of a language model, a long story."""

import xml.etree.ElementTree as ElementTree

import pytest
import torch

from relational_rnn import RelationalMemory
from relational_rnn.inspection import Page, TokenValues, page
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.tasks.babi.encoding import BABI
from relational_rnn.tasks.contract import draw_batch
from relational_rnn.tasks.language.language_page import language_page
from relational_rnn.tasks.model import TaskModel, TaskModelConfig
from relational_rnn.tasks.nth_farthest import NthFarthest
from relational_rnn.tasks.nth_farthest_page import farthest_page

SENTENCES = ("Mary travelled to the garden.", "John got the apple there.", "Sandra went back to the bathroom.")


def memory_page(sentences: int, *, slots: int, heads: int, head_size: int) -> Page:
    """As large as the page of a story: every answer of bAbI, and two numbers for each sentence."""
    torch.manual_seed(7)
    layer = RelationalMemory(input_size=9, mem_slots=slots, head_size=head_size, num_heads=heads)
    told = [SENTENCES[t % 3] for t in range(sentences)]
    chances = torch.rand(len(BABI.answers), sentences).softmax(0).tolist()
    return page(
        layer.trace(torch.randn(sentences, 9)),
        told,
        before=layer.initial_state(1)[0],
        answers=dict(zip(BABI.answers, chances, strict=True)),
        right=BABI.answers[5],
        token_values=[
            TokenValues(name=name, description="falls", values=torch.randn(sentences).tolist())
            for name in ("left out", "gradient")
        ],
    )


@pytest.fixture(scope="module")
def farthest(tmp_path_factory):
    torch.manual_seed(7)
    task = NthFarthest(objects=5, dimensions=2)
    sizes = MemorySizes(mem_slots=3, head_size=4, num_heads=2)
    model = TaskModel.build(task.shape, "rmc", sizes, TaskModelConfig(head_size=8, head_layers=1))
    batch = draw_batch(task, "test", 0, seed=1, size=40)
    built = farthest_page(model, task, batch, 3, title="Five vectors", statistics=True)
    return built.save(tmp_path_factory.mktemp("farthest") / "page.html")


@pytest.mark.parametrize("width", [390, 1280])
def test_the_reference_is_drawn_once_per_place_and_saved(open_page, farthest, width):
    tab = open_page(farthest, width=width)
    with tab.expect_download() as saved:
        tab.click("figure[data-name=reference] button.save")
    root = ElementTree.parse(saved.value.path()).getroot()
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [text.split(" (")[0] for text in texts if not text.isdigit()] == [
        "Reference seen first", "Reference seen in the middle", "Reference seen last",
    ]  # fmt: skip
    assert sum(text.isdigit() for text in texts) == 3 * 5
    assert "the reference" in tab.locator(".tokens").text_content()
    assert tab.locator("table:has(caption:text-is('Attention of the slots')) tbody tr").count() == 2


def test_a_text_flows_and_is_shaded_by_what_is_chosen(open_page, tmp_path):
    torch.manual_seed(7)
    layer = RelationalMemory(input_size=4, mem_slots=2, head_size=6)
    words = ["a", "<i>cat</i>", "\n", "sat"]
    built = language_page(layer.trace(torch.randn(4, 4)), words, [None, 9.0, 0.5, 3.0])
    tab = open_page(built.save(tmp_path / "text.html"), width=390, scheme="dark")
    shades = lambda: tab.eval_on_selector_all("button.token", "all => all.map(b => b.style.background)")  # noqa: E731
    assert tab.locator("#shades [aria-pressed=true]").text_content() == "surprise"
    surprise = shades()
    assert surprise[0] != surprise[1] == "rgb(230, 244, 255)"  # the most surprising one has the last shade of the scale
    tab.click("#shades button:text-is('attention to it')")
    assert shades() != surprise
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#current").text_content() == "<i>cat</i>"
    assert tab.locator("#values").text_content().startswith("surprise 9.00, attention to it 0.")
    assert tab.locator("table:has(caption:text-is('Strongest reactions')) tbody tr").count() == 3


def test_a_long_story_is_small_enough_and_follows_the_reader(open_page, tmp_path):
    built = memory_page(228, slots=8, heads=4, head_size=32)
    assert len(built.html.encode()) < 8e6
    tab = open_page(built.save(tmp_path / "long.html"))
    tab.locator("#step").fill("100")
    assert tab.locator("#place").text_content() == "100 / 228"
    row, box = (tab.locator(name).bounding_box() for name in (".tokens [data-step='99']", "#story"))
    assert box["y"] <= row["y"] <= row["y"] + row["height"] <= box["y"] + box["height"] + 1
    assert tab.locator("#answer-names [aria-pressed=true]").count() <= 3  # few curves to begin with


def test_a_story_s_table_fits_a_phone(open_page, tmp_path):
    built = memory_page(10, slots=8, heads=4, head_size=16)
    assert len(built.html.encode()) < 2e6
    tab = open_page(built.save(tmp_path / "short.html"), width=390)
    assert tab.evaluate("document.getElementById('story').scrollWidth <= document.getElementById('story').clientWidth")
