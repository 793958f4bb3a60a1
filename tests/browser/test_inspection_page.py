"""The page of a sequence, as a reader uses it: its numbers are the trace's, its controls work, no text does harm."""

import json
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from relational_rnn import RelationalMemory
from relational_rnn.inspection import TokenValues, page

T, S, H, N, M = 7, 2, 3, 4, 15
HALF_DIGIT = 0.5e-6
"""The page writes six decimals next to what it draws."""
HOSTILE = (
    "<script>alert(1); window.harmed = 1</script>",
    '"><img src=x onerror="alert(1); window.harmed = 1">',
    "</script></table><h1>gone</h1>",
    "Donaudampf" * 60,
    "שלום \u202eevil\u202c עולם",
    "👩‍👩‍👧‍👦 & ' \" ` ${window.harmed = 1}",
    "line\nbreak\x00\x07",
)


@pytest.fixture(scope="module")
def traced():
    torch.manual_seed(4)
    layer = RelationalMemory(input_size=6, mem_slots=N, head_size=5, num_heads=H, num_blocks=S, input_rows=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1.5)  # attention far from uniform, or every head would look alike
        return layer.trace(torch.randn(T, 2, 6)), layer.initial_state(1)[0]


@pytest.fixture(scope="module")
def shown(traced, tmp_path_factory):
    trace, before = traced
    words = [f"Sentence number {t + 1}." for t in range(T)]
    chances = torch.rand(3, T, generator=torch.Generator().manual_seed(1)).tolist()
    built = page(
        trace,
        words,
        before=before,
        answers=dict(zip(["garden", "kitchen", "office"], chances, strict=True)),
        right="kitchen",
        token_values=[TokenValues(name="left out", description="falls", values=[0.1, -0.3, None, 0.2, 0, 0, 0.5])],
    )
    return built.save(tmp_path_factory.mktemp("page") / "page.html")


READ = """() => [...document.querySelectorAll("[data-name=attention] rect[data-value]")]
    .map((cell) => [+cell.dataset.row, +cell.dataset.column, +cell.dataset.value])"""
# Presses every block's and head's button in turn; one call, as each trip to the browser takes a while.
READ_ALL = f"""() => [...document.querySelectorAll("#blocks-choice button")].map((block) => {{
    block.click();
    return [...document.querySelectorAll("#heads-choice button")].map((head) => {{ head.click(); return ({READ})(); }});
}})"""


def as_matrix(cells) -> torch.Tensor:
    table = torch.full((N, N + 2), float("nan"), dtype=torch.float64)
    for row, column, value in cells:
        table[row, column] = value
    return table


def read_attention(tab) -> torch.Tensor:
    return as_matrix(tab.evaluate(READ))


def wait_until(tab, expression: str) -> None:
    """Playwright's own waiting evaluates texts inside the page, which the page forbids."""
    for _ in range(200):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


def read_gate(tab, kind: str) -> torch.Tensor:
    values = tab.eval_on_selector_all(f"rect[data-gate={kind}]", "all => all.map(c => Number(c.dataset.value))")
    return torch.tensor(values, dtype=torch.float64)


def choose_step(tab, step: int) -> None:
    tab.locator("#step").fill(str(step + 1))


def close(got, expected, within: float) -> None:
    assert (got - expected.double()).abs().max().item() <= within


def test_attention_and_gates_are_those_of_the_trace_at_every_step_block_and_head(open_page, shown, traced):
    tab, (trace, _) = open_page(shown), traced
    precision = 0.5 / 65535 + HALF_DIGIT
    for step in range(T):
        choose_step(tab, step)
        for kind, gate in (("input", trace.input_gate), ("forget", trace.forget_gate)):
            close(read_gate(tab, kind), gate[step].mean(-1), precision)
        for block, heads in enumerate(tab.evaluate(READ_ALL)):
            assert len(heads) == 1 + H
            weights = trace.attention[step, block, :, :N]
            for read, expected in zip(heads, [weights.mean(0), *weights], strict=True):
                close(as_matrix(read), expected, precision)
    assert tab.locator("#place").text_content() == f"{T} / {T}"


def test_the_memory_and_its_change_are_those_of_the_trace(open_page, shown, traced):
    tab, (trace, before) = open_page(shown), traced
    held = torch.cat([before[None], trace.memory]).double()
    width = held.max() - held.min()
    within = float(width) / 65535 / 2
    tab.click("#numbers summary")
    for step in (0, 3, T - 1):
        choose_step(tab, step)
        cells = tab.eval_on_selector_all(
            "#slot-numbers tbody td:nth-last-child(-n + 2)", "all => all.map(c => c.textContent)"
        )
        read = torch.tensor([float(cell) for cell in cells], dtype=torch.float64).view(N, 2)
        close(read[:, 0], held[step + 1].norm(dim=-1), within * M**0.5 + 0.5e-4)
        close(read[:, 1], (held[step + 1] - held[step]).norm(dim=-1), 2 * within * M**0.5 + 0.5e-4)
        for view, expected, error in (
            ("memory", held[step + 1], within),
            ("change", held[step + 1] - held[step], 2 * within),
            ("forget gate", trace.forget_gate[step].double(), 0.5 / 65535),
        ):
            tab.click(f"[data-view='{view}']")
            box = tab.locator("[data-name=memory] .drawing svg").bounding_box()
            slot, number = 2, 11
            tab.mouse.move(box["x"] + 46 + (box["width"] - 46) * (number + 0.5) / M, box["y"] + 22 * slot + 9)
            said = tab.locator("#memory-number").text_content()
            assert said.startswith(f"slot {slot + 1}, number {number + 1}: ")
            assert float(said.split()[-1]) == pytest.approx(expected[slot, number].item(), abs=error + 0.5e-4)


def test_keys_buttons_and_clicks_choose_the_step(open_page, shown):
    tab = open_page(shown)
    place = lambda: int(tab.locator("#place").text_content().split()[0])  # noqa: E731
    assert place() == T
    for key, expected in (
        ("Home", 1),
        ("ArrowRight", 2),
        ("ArrowRight", 3),
        ("ArrowLeft", 2),
        ("End", T),
        ("ArrowRight", T),
    ):
        tab.keyboard.press(key)
        assert (key, place()) == (key, expected)
    assert tab.locator("#current").text_content() == f"Sentence number {T}."
    tab.click(".tokens [data-step='2'] button")
    assert place() == 3
    tab.keyboard.press("ArrowRight")  # the sentence has the focus, and the keys still work
    assert place() == 4
    tab.click("#back")
    assert place() == 3
    assert tab.locator("[aria-current=step]").get_attribute("data-step") == "2"
    assert "Step 3 of 7: Sentence number 3." in tab.locator("#said").text_content()
    figure = tab.locator("[data-name=time] .drawing svg")
    figure.click(position={"x": 46 + (figure.bounding_box()["width"] - 48) * 4.5 / T, "y": 30})
    assert place() == 5


def test_space_plays_from_the_start_and_stops(open_page, shown):
    tab = open_page(shown)
    tab.keyboard.press("Space")
    assert tab.locator("#play").text_content() == "pause"
    assert tab.locator("#place").text_content() == f"1 / {T}"
    wait_until(tab, "document.getElementById('place').textContent.startsWith('3')")
    tab.keyboard.press("Space")
    assert tab.locator("#play").text_content() == "play"
    assert tab.locator("#place").text_content().startswith("3")


def test_a_click_on_a_small_matrix_chooses_its_block_and_head(open_page, shown, traced):
    tab, (trace, _) = open_page(shown, place="step=2&head=0&block=1"), traced
    close(read_attention(tab), trace.attention[1, 0, :, :N].mean(0), 1e-5)
    tab.click("[data-name=heads] g.pick[data-block='1'][data-head='2'] rect >> nth=1")
    assert tab.locator("#heads-choice [aria-pressed=true]").text_content() == "head 3"
    assert tab.locator("#blocks-choice [aria-pressed=true]").text_content() == "block 2"
    close(read_attention(tab), trace.attention[1, 1, 2, :N], 1e-5)


def test_arrows_are_the_weights_above_the_threshold(open_page, shown, traced):
    tab, (trace, _) = open_page(shown, place="step=5&head=2&block=2"), traced
    weights = trace.attention[4, 1, 1, :N]
    for least in (0.1, 0.35):
        tab.locator("#least").fill(str(least))
        drawn = tab.eval_on_selector_all(
            "[data-name=arrows] path[data-from]", "all => all.map(p => [+p.dataset.to, +p.dataset.from])"
        )
        assert sorted(map(tuple, drawn)) == [tuple(pair) for pair in (weights >= least).nonzero().tolist()]


def test_arrows_begin_at_twice_the_weight_of_attention_that_prefers_nothing(open_page, shown, traced):
    tab, (trace, _) = open_page(shown, place="step=5&head=2&block=2"), traced
    assert tab.locator("#least-value").text_content() == "0.35"  # 2 / 6 rows, to the next mark of the slider
    drawn = tab.locator("[data-name=arrows] path[data-from]").count()
    assert 0 < drawn == (trace.attention[4, 1, 1, :N] >= 0.35).sum()
    tab.locator("#least").fill("1")
    words = tab.locator("[data-name=arrows] .drawing svg").text_content()
    assert "no weight of at least 1.00" in words


def test_answers_are_shown_with_their_probability_and_can_be_hidden(open_page, shown):
    tab = open_page(shown, place="step=1")
    data = json.loads(tab.locator("#data").text_content())
    entries = tab.locator("#answer-names button")
    for i in range(3):
        name, chance = data["answers"]["names"][i], data["answers"]["values"][i][0]
        right = " (right)" if name == "kitchen" else ""
        assert entries.nth(i).text_content() == f"{name}{right} {100 * chance:.1f} %"
    entries.nth(1).click()
    assert tab.eval_on_selector_all("path[data-answer]", "all => all.map(p => p.dataset.answer)") == ["0", "2"]


def test_every_figure_can_be_saved_and_stands_alone(open_page, shown):
    tab = open_page(shown, scheme="dark")
    names = tab.eval_on_selector_all("figure[data-name]", "all => all.map(f => f.dataset.name)")
    assert names == ["answers", "time", "attention", "heads", "arrows", "gates", "memory"]
    for name in names:
        with tab.expect_download() as saved:
            tab.click(f"figure[data-name={name}] button.save")
        assert saved.value.suggested_filename == f"{name}.svg"
        root = ElementTree.parse(saved.value.path()).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert float(root.get("width")) > 200
        assert root[1].get("fill") == "rgb(23, 23, 26)"  # the paper of the dark page
        text = ElementTree.tostring(root, encoding="unicode")
        assert "var(" not in text
        assert "class=" not in text or name != "attention"
        assert "display" not in text
        assert sum(1 for element in root.iter() if element.tag.split("}")[1] in ("path", "rect")) > 3


def test_what_stands_beside_a_figure_is_in_its_file(open_page, shown):
    tab = open_page(shown)
    tab.locator("#answer-names button").nth(2).click()
    gone = tab.locator("#answer-names bdi").nth(2).text_content()
    for name, words in (
        ("answers", {"garden", "kitchen (right)", "office"} - {gone, f"{gone} (right)"}),
        ("arrows", {"looks at another slot", "at itself", "at the input"}),
        ("gates", {"input gate", "forget gate"}),
    ):
        drawing = tab.locator(f"figure[data-name={name}] .drawing svg")
        high = drawing.evaluate("svg => svg.viewBox.baseVal.height")
        assert not drawing.locator("[data-legend]").is_visible()
        with tab.expect_download() as saved:
            tab.click(f"figure[data-name={name}] button.save")
        root = ElementTree.parse(saved.value.path()).getroot()
        (legend,) = (group for group in root.iter() if group.get("data-legend"))
        assert "style" not in legend.attrib  # it was hidden on the page
        labels = [element for element in legend if element.text]
        assert {element.text for element in labels} == words
        assert float(root.get("viewBox").split()[3]) == float(root.get("height")) > high
        assert all(high < float(element.get("y")) < float(root.get("height")) for element in labels)


def test_figures_have_words_and_controls_have_names(open_page, shown):
    tab = open_page(shown)
    tab.keyboard.press("Home")
    words = tab.eval_on_selector_all(
        "figure .drawing svg", "all => all.map(s => [s.getAttribute('role'), s.getAttribute('aria-label')])"
    )
    assert len(words) == 7
    assert all(role == "img" and "1" in label for role, label in words)
    names = tab.eval_on_selector_all(
        "button, input",
        """all => all.map((b) => b.getAttribute("aria-label") || b.closest("label")?.textContent || b.textContent)""",
    )
    assert all(name.strip() for name in names)


def test_the_table_of_sentences_sorts(open_page, shown):
    tab = open_page(shown)
    order = lambda: tab.eval_on_selector_all(".tokens tbody tr", "all => all.map(r => +r.dataset.step)")  # noqa: E731
    tab.click(".tokens th:has-text('left out') button")
    assert order() == [1, 4, 5, 0, 3, 6, 2]  # the one without a value is last
    tab.click(".tokens th:has-text('left out') button")
    assert order() == [6, 3, 0, 4, 5, 1, 2]


@pytest.mark.parametrize("layout", ["lines", "flow"])
def test_hostile_texts_are_shown_as_text_and_run_nothing(open_page, traced, tmp_path, layout):
    built = page(
        traced[0],
        HOSTILE,
        title=HOSTILE[0],
        lead=HOSTILE,
        answers=dict.fromkeys(HOSTILE[:3], [0.5] * T),
        right=HOSTILE[1],
        token_values=[TokenValues(name=HOSTILE[1], description=HOSTILE[2], values=[1.0] * T)],
        notes=HOSTILE,
        layout=layout,
    )
    tab = open_page(built.save(tmp_path / "hostile.html"), width=390)
    for key in ("Home", *["ArrowRight"] * T):
        tab.keyboard.press(key)
    tab.click("#numbers summary")
    assert tab.evaluate("window.harmed") is None
    assert tab.locator("h1").all_text_contents() == [HOSTILE[0]]
    assert tab.locator("img").count() == 0
    tokens = tab.eval_on_selector_all("button.token", "all => all.map(b => b.textContent)")
    assert tokens == [*HOSTILE[:-1], "line⏎break��"]
    assert tab.eval_on_selector_all("button.token", "all => all.map(b => getComputedStyle(b).direction)")[4] == "rtl"
    assert tab.locator("#current").text_content() == HOSTILE[-1]
    assert tab.locator("#answer-names bdi").all_text_contents() == [HOSTILE[1], HOSTILE[0], HOSTILE[2]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_follows_the_colour_scheme(open_page, shown, scheme):
    tab = open_page(shown, width=390, scheme=scheme)
    other = "dark" if scheme == "light" else "light"
    paper = "getComputedStyle(document.body).backgroundColor"
    read = f"{paper} + document.querySelector('[data-name=attention] rect').getAttribute('fill')"
    before = tab.evaluate(read)
    tab.emulate_media(color_scheme=other)
    wait_until(tab, f"({read}) !== {json.dumps(before)}")
    assert tab.evaluate(read)[:10] != before[:10]
    narrow = tab.locator("[data-name=time] .drawing svg").bounding_box()["width"]
    tab.set_viewport_size({"width": 800, "height": 900})
    wait_until(tab, "document.querySelector('[data-name=time] .drawing svg').viewBox.baseVal.width > 500")
    assert narrow < 390
    tab.set_viewport_size({"width": 390, "height": 900})
