// The page of one sequence: a step is chosen, and every figure shows that step.
(() => {
  "use strict";
  const { dark, inks, series, amount, sign, on, add, label, room, begin, heat, legend, round } = drawing;
  const { data, R, gates, range, mean, look, gate, gateMean, content, known, change, length, largest, movedAll, mostMoved,
    mostHeld, mostChanged } = numbers;
  const { steps: T, blocks: S, heads: H, slots: N, inputs, width: M, gateWidth: G } = data;
  const now = { step: 0, block: S - 1, head: -1, view: "memory", least: 0, playing: null };
  const $ = (name) => document.getElementById(name);
  const figure = (name) => document.querySelector(`figure[data-name="${name}"]`);
  const lines = (text) => text.replace(/\n/g, " ");
  const seen = (i, j) => look(now.step, now.block, now.head, i, j);
  const column = (j) => (j < N ? String(j + 1) : inputs === 1 ? "input" : `in ${j - N + 1}`);
  const headName = (h) => (h < 0 ? "all heads, averaged" : `head ${h + 1}`);
  const where = () => `step ${now.step + 1}, block ${now.block + 1}, ${headName(now.head)}`;
  const strongest = (i) => range(R).reduce((best, j) => (seen(i, j) > seen(i, best) ? j : best), 0);

  // ---- figures; each says in words what it shows
  function drawHeads() {
    const across = H > 1 ? [-1, ...range(H)] : [0];
    const f = figure("heads");
    const perRow = Math.min(across.length, Math.max(2, Math.floor(room(f) / 110)));
    const each = Math.floor(room(f) / perRow);
    const cell = Math.max(2, Math.min(14, (each - 16) / R));
    const rowsOf = Math.ceil(across.length / perRow);
    const high = N * cell + 30;
    const { svg } = begin(f, S * rowsOf * high, `Attention at step ${now.step + 1}, every block and head.`);
    for (const s of range(S)) {
      across.forEach((h, place) => {
        const x = (place % perRow) * each + 2;
        const y = (s * rowsOf + Math.floor(place / perRow)) * high;
        const chosen = h === now.head && s === now.block;
        const group = add(svg, "g", { "data-head": h, "data-block": s, class: "pick" });
        const name = (S > 1 ? `block ${s + 1}, ` : "") + (h < 0 ? "average" : `head ${h + 1}`);
        label(group, x, y + 12, name, { fill: chosen ? inks().mark : inks().faint, "font-weight": chosen ? 700 : 400 });
        add(group, "rect", { x, y: y + 18, width: R * cell, height: N * cell, fill: inks().paper });
        heat(group, { x, y: y + 18, rows: N, columns: R, cellWidth: cell, cellHeight: cell, shade: amount,
          value: (i, j) => look(now.step, s, h, i, j) });
        add(group, "rect", { x, y: y + 18, width: R * cell, height: N * cell, fill: "none", "pointer-events": "all",
          stroke: chosen ? inks().mark : inks().line, "stroke-width": chosen ? 2.5 : 1 });
        group.addEventListener("click", () => choose({ head: h, block: s }));
      });
    }
  }

  function drawMatrix() {
    const f = figure("attention");
    const left = 46;
    const cell = Math.min(44, (room(f) - left - 2) / R);
    const high = Math.min(cell, 34);
    const words = range(N).map((i) => `slot ${i + 1} looks most at ${at(strongest(i))}, ${seen(i, strongest(i)).toFixed(2)}`);
    const { svg } = begin(f, 34 + N * high + 4, `Attention at ${where()}: ${words.join("; ")}.`);
    label(svg, left, 10, "looked at: slot, input");
    range(R).forEach((j) => label(svg, left + (j + 0.5) * cell, 26, column(j), { "text-anchor": "middle", fill: inks().ink }));
    range(N).forEach((i) => {
      label(svg, left - 6, 34 + (i + 0.5) * high + 4, `slot ${i + 1}`, { "text-anchor": "end", fill: inks().ink });
      range(R).forEach((j) => {
        const value = seen(i, j);
        const colour = amount(value);
        const box = { x: round(left + j * cell), y: round(34 + i * high), width: round(cell), height: round(high) };
        const rect = add(svg, "rect", { ...box, fill: colour, stroke: inks().paper, "stroke-width": 1,
          "data-row": i, "data-column": j, "data-value": value.toFixed(6) });
        add(rect, "title", {}, `slot ${i + 1} gives ${at(j)} ${value.toFixed(4)}`);
        if (cell >= 24) {
          label(svg, left + (j + 0.5) * cell, 34 + (i + 0.5) * high + 4, value.toFixed(2).replace(/^0/, ""),
            { "text-anchor": "middle", fill: on(colour), "pointer-events": "none" });
        }
      });
    });
  }
  const at = (j) => (j < N ? `slot ${j + 1}` : inputs === 1 ? "the input" : `input row ${j - N + 1}`);

  function drawArrows() {
    const f = figure("arrows");
    const gap = 30;
    const count = R;
    const shown = [];
    for (const i of range(N)) for (const j of range(R)) if (seen(i, j) >= now.least) shown.push([i, j, seen(i, j)]);
    shown.sort((a, b) => a[2] - b[2]);
    const words = shown.length === 1 ? "1 arrow" : `${shown.length} arrows`;
    const { svg, width } = begin(f, 24 + count * gap + 6, `${words} of at least ${now.least.toFixed(2)} at ${where()}.`);
    const [from, to] = [64, width - 56];
    const y = (n) => 24 + (n + 0.5) * gap;
    label(svg, 0, 12, "looked at");
    label(svg, width, 12, "looks", { "text-anchor": "end" });
    const colours = { own: inks().faint, slot: series(0).colour, input: series(1).colour };
    const defs = add(svg, "defs");
    for (const [kind, colour] of Object.entries(colours)) {
      const marker = add(defs, "marker", { id: `tip-${kind}`, viewBox: "0 0 6 6", refX: 5, refY: 3, markerWidth: 9,
        markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto" });
      add(marker, "path", { d: "M0 0L6 3L0 6z", fill: colour });
    }
    for (const [i, j, value] of shown) {
      const kind = j >= N ? "input" : j === i ? "own" : "slot";
      const middle = (from + to) / 2;
      const d = `M${from} ${y(j)}C${middle} ${y(j)} ${middle} ${y(i)} ${to - 2} ${y(i)}`;
      const path = add(svg, "path", { d, fill: "none", stroke: colours[kind], "stroke-width": round(0.8 + 5 * value),
        "stroke-opacity": round(0.35 + 0.65 * value), "marker-end": `url(#tip-${kind})`, "data-from": j, "data-to": i,
        ...(kind === "own" ? { "stroke-dasharray": "3 3" } : {}) });
      add(path, "title", {}, `slot ${i + 1} gives ${at(j)} ${value.toFixed(4)}`);
    }
    if (shown.length === 0) label(svg, (from + to) / 2, y(0) + 4, `no weight of at least ${now.least.toFixed(2)}`, { "text-anchor": "middle" });
    range(R).forEach((j) => label(svg, from - 6, y(j) + 4, j < N ? `slot ${j + 1}` : column(j),
      { "text-anchor": "end", fill: j < N ? inks().ink : colours.input }));
    range(N).forEach((i) => label(svg, to + 6, y(i) + 4, `slot ${i + 1}`, { fill: inks().ink }));
    legend(svg, 24 + count * gap + 6, [
      { name: "looks at another slot", stroke: colours.slot },
      { name: "at itself", stroke: colours.own, "stroke-dasharray": "3 3" },
      { name: "at the input", stroke: colours.input },
    ]);
  }

  function drawGates() {
    if (!gates.input) return;
    const f = figure("gates");
    const rows = range(N).map((i) => `slot ${i + 1}: input ${gateMean("input", now.step, i).toFixed(2)}, forget ${gateMean("forget", now.step, i).toFixed(2)}`);
    const { svg, width } = begin(f, 30 + N * 34 + 4, `Gates at step ${now.step + 1}. ${rows.join("; ")}.`);
    const [left, right] = [46, 40];
    const x = (value) => left + value * (width - left - right);
    for (const mark of [0, 0.5, 1]) {
      label(svg, x(mark), 12, String(mark), { "text-anchor": "middle" });
      add(svg, "line", { x1: x(mark), x2: x(mark), y1: 18, y2: 30 + N * 34, stroke: inks().line });
    }
    range(N).forEach((i) => {
      label(svg, left - 6, 30 + i * 34 + 18, `slot ${i + 1}`, { "text-anchor": "end", fill: inks().ink });
      ["input", "forget"].forEach((kind, k) => {
        const values = range(G).map((n) => gate(kind, now.step, i, n));
        const average = mean(values);
        const y = 30 + i * 34 + k * 14;
        const bar = add(svg, "rect", { x: left, y, width: round(x(average) - left), height: 11, fill: series(k).colour,
          "data-gate": kind, "data-slot": i, "data-value": average.toFixed(6) });
        add(bar, "title", {}, `slot ${i + 1}, ${kind} gate ${average.toFixed(4)}`);
        if (G > 1) {
          const [low, high] = [Math.min(...values), Math.max(...values)];
          add(svg, "line", { x1: x(low), x2: x(high), y1: y + 5.5, y2: y + 5.5, stroke: inks().ink, "stroke-width": 1 });
          for (const end of [low, high]) {
            add(svg, "line", { x1: x(end), x2: x(end), y1: y + 2.5, y2: y + 8.5, stroke: inks().ink, "stroke-width": 1 });
          }
        }
        label(svg, width - right + 8, y + 9, average.toFixed(2), { fill: inks().ink });
      });
    });
    legend(svg, 30 + N * 34 + 4, ["input gate", "forget gate"].map((name, k) => ({ name, stroke: series(k).colour })));
  }

  const VIEWS = {
    memory: { most: mostHeld, value: (i, k) => content(now.step, i, k), columns: M, shade: sign },
    change: { most: mostChanged, value: (i, k) => change(now.step, i, k), columns: M, shade: sign },
    "input gate": { most: 1, value: (i, k) => gate("input", now.step, i, k), columns: G, shade: amount },
    "forget gate": { most: 1, value: (i, k) => gate("forget", now.step, i, k), columns: G, shade: amount },
  };
  function drawMemory() {
    const f = figure("memory");
    const view = VIEWS[now.view];
    const [left, high] = [46, 22];
    const unknown = now.view === "change" && !known(now.step);
    const words = unknown ? "not known: the memory before the first step was not given"
      : range(N).map((i) => `slot ${i + 1} has length ${length(range(M).map((k) => content(now.step, i, k))).toFixed(2)}`
        + (known(now.step) ? ` and moved by ${movedAll[now.step][i].toFixed(2)}` : "")).join("; ");
    const { svg, width } = begin(f, N * high + 34, `The ${now.view} at step ${now.step + 1}: ${words}.`);
    const cell = (width - left) / view.columns;
    range(N).forEach((i) => label(svg, left - 6, (i + 0.5) * high + 4, `slot ${i + 1}`, { "text-anchor": "end", fill: inks().ink }));
    if (unknown) {
      label(svg, left, 20, "the memory before the first step was not given");
      return;
    }
    const map = heat(svg, { x: left, y: 0, rows: N, columns: view.columns, cellWidth: cell, cellHeight: high,
      shade: view.shade, value: (i, k) => view.value(i, k) / view.most });
    range(N + 1).forEach((i) => add(svg, "line", { x1: left, x2: width, y1: i * high, y2: i * high, stroke: inks().paper }));
    const signed = view.shade === sign;
    const shades = range(41).map((n) => (signed ? n / 20 - 1 : n / 40));
    shades.forEach((share, n) => add(svg, "rect", { x: left + 4 * n, y: N * high + 8, width: 4.2, height: 8, fill: view.shade(share) }));
    const end = view.most.toPrecision(3);
    label(svg, left, N * high + 29, signed ? `-${end}` : "0", {});
    if (signed) label(svg, left + 82, N * high + 29, "0", { "text-anchor": "middle" });
    label(svg, left + 164, N * high + 29, end, { "text-anchor": "end" });
    const read = $("memory-number");
    map.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const k = Math.min(view.columns - 1, Math.max(0, Math.floor((event.clientX - box.left - left) / cell)));
      const i = Math.min(N - 1, Math.max(0, Math.floor((event.clientY - box.top) / high)));
      read.textContent = `slot ${i + 1}, number ${k + 1}: ${view.value(i, k).toFixed(4)}`;
    });
    map.addEventListener("pointerleave", () => { read.textContent = ""; });
  }

  // ---- figures along time: the same columns in all of them
  const LEFT = 46;
  const stepWidth = (width) => (width - LEFT - 2) / T;
  function timeAxis(svg, width, y) {
    const cell = stepWidth(width);
    const every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((n) => n * cell >= 26) || 2000;
    range(T).filter((t) => (t + 1) % every === 0 || t === 0).forEach((t) => {
      const [x, words] = [LEFT + (t + 0.5) * cell, String(t + 1)];
      label(svg, Math.min(x, width - 3.5 * words.length), y, words, { "text-anchor": "middle" });
    });
  }
  // A frame around the chosen step, one for each [top, height]: words between the parts stay readable.
  function cursor(svg, width, parts) {
    const cell = stepWidth(width);
    for (const [y, height] of parts) {
      add(svg, "rect", { x: round(LEFT + now.step * cell), y, width: round(Math.max(cell, 2)), height, rx: 2,
        fill: "none", stroke: inks().mark, "stroke-width": 2, class: "cursor", "pointer-events": "none" });
    }
  }
  function pickSteps(svg) {
    const pick = (event) => {
      const box = svg.getBoundingClientRect();
      const t = Math.floor((event.clientX - box.left - LEFT) / stepWidth(box.width));
      choose({ step: Math.min(T - 1, Math.max(0, t)) });
    };
    svg.addEventListener("pointerdown", (event) => { if (event.button === 0) { svg.setPointerCapture(event.pointerId); pick(event); } });
    svg.addEventListener("pointermove", (event) => { if (event.buttons & 1) pick(event); });
  }

  const hidden = new Set([...document.querySelectorAll("#answer-names [aria-pressed=false]")].map((b) => Number(b.dataset.answer)));
  function drawAnswers() {
    const f = figure("answers");
    if (!f) return;
    const high = 170;
    const chances = data.answers.names.map((name, n) => [name, data.answers.values[n][now.step]]).filter((pair) => pair[1] !== null);
    const words = chances.map(([name, p]) => `${name} ${(100 * p).toFixed(1)} %`).join(", ");
    const { svg, width } = begin(f, high + 24, `Probability of the answers after step ${now.step + 1}: ${words || "none"}.`);
    const cell = stepWidth(width);
    const x = (t) => round(LEFT + (t + 0.5) * cell);
    const y = (p) => round(6 + (1 - p) * (high - 12));
    for (const mark of [0, 0.25, 0.5, 0.75, 1]) {
      add(svg, "line", { x1: LEFT, x2: width, y1: y(mark), y2: y(mark), stroke: inks().line, "stroke-width": 0.7 });
      label(svg, LEFT - 6, y(mark) + 4, `${100 * mark} %`, { "text-anchor": "end" });
    }
    data.answers.values.forEach((values, n) => {
      if (hidden.has(n)) return;
      const { colour, dash } = series(n);
      const d = values.map((p, t) => (p === null ? "" : `${t === 0 || values[t - 1] === null ? "M" : "L"}${x(t)} ${y(p)}`)).join("");
      add(svg, "path", { d, fill: "none", stroke: colour, "stroke-width": T <= 60 ? 2 : 1.3, "stroke-dasharray": dash, "data-answer": n });
      if (T <= 60) values.forEach((p, t) => p !== null && add(svg, "circle", { cx: x(t), cy: y(p), r: 2.5, fill: colour }));
    });
    timeAxis(svg, width, high + 16);
    cursor(svg, width, [[1, high - 2]]);
    const entries = data.answers.names.map((name, n) => [name + (name === data.answers.right ? " (right)" : ""), n]);
    legend(svg, high + 24, entries.filter(([, n]) => !hidden.has(n)).map(([name, n]) =>
      ({ name: lines(name), stroke: series(n).colour, "stroke-dasharray": series(n).dash })));
    for (const entry of $("answer-names").children) {
      const n = Number(entry.dataset.answer);
      const p = data.answers.values[n][now.step];
      entry.querySelector(".chance").textContent = p === null ? "" : ` ${(100 * p).toFixed(1)} %`;
      const key = entry.querySelector("line");
      key.setAttribute("stroke", series(n).colour);
      key.setAttribute("stroke-dasharray", series(n).dash);
    }
  }

  const timeWords = () => `Attention to the input, gates and change of every slot at every step. Step ${now.step + 1} is marked.`;
  function drawTime() {
    const f = figure("time");
    const strips = [
      ["attention to the input", (t, i) => range(inputs).reduce((sum, n) => sum + look(t, now.block, now.head, i, N + n), 0), "0 to 1"],
      ...(gates.input ? [["input gate, mean", (t, i) => gateMean("input", t, i), "0 to 1"],
        ["forget gate, mean", (t, i) => gateMean("forget", t, i), "0 to 1"]] : []),
      ["change of the memory", (t, i) => movedAll[t][i] / mostMoved, `0 to ${mostMoved.toPrecision(3)}`],
    ];
    const high = Math.max(5, Math.min(12, 90 / N));
    const each = N * high + 24;
    const { svg, width } = begin(f, strips.length * each + 18, timeWords());
    strips.forEach(([name, value, scale], n) => {
      label(svg, LEFT, n * each + 13, `${name} (${scale})`, { fill: inks().ink });
      heat(svg, { x: LEFT, y: n * each + 18, rows: N, columns: T, cellWidth: stepWidth(width), cellHeight: high, shade: amount,
        value: (i, t) => value(t, i) });
      range(N).filter((i) => high >= 9 || i === 0 || i === N - 1).forEach((i) =>
        label(svg, LEFT - 6, n * each + 18 + (i + 0.5) * high + 4, high >= 9 ? `slot ${i + 1}` : String(i + 1), { "text-anchor": "end", "font-size": 10 }));
    });
    timeAxis(svg, width, strips.length * each + 12);
    cursor(svg, width, strips.map((_, n) => [n * each + 17, N * high + 2]));
  }
  // Only the cursor moves with the step; redrawing the strips would cost too much in long stories.
  function moveCursor() {
    const cell = stepWidth(figure("time").querySelector(".drawing svg").viewBox.baseVal.width);
    for (const mark of figure("time").querySelectorAll(".cursor")) mark.setAttribute("x", round(LEFT + now.step * cell));
    figure("time").querySelector(".drawing svg").setAttribute("aria-label", timeWords());
  }

  // ---- words
  function fill(table, head, rows) {
    const cells = (values, tag) => values.map((value) => Object.assign(document.createElement(tag), { textContent: value }));
    const row = (values) => { const tr = document.createElement("tr"); tr.append(...values); return tr; };
    table.tHead.replaceChildren(row(cells(head, "th")));
    table.tBodies[0].replaceChildren(...rows.map(([first, ...rest]) => row([...cells([first], "th"), ...cells(rest, "td")])));
  }
  function writeNumbers() {
    if (!$("numbers").open) return;
    fill($("attention-numbers"), ["slot", ...range(R).map((j) => (j < N ? `slot ${j + 1}` : column(j)))],
      range(N).map((i) => [`slot ${i + 1}`, ...range(R).map((j) => seen(i, j).toFixed(4))]));
    const gated = gates.input ? ["input gate", "forget gate"] : [];
    fill($("slot-numbers"), ["slot", ...gated, "length", "change"], range(N).map((i) => [`slot ${i + 1}`,
      ...(gates.input ? ["input", "forget"].map((kind) => gateMean(kind, now.step, i).toFixed(4)) : []),
      length(range(M).map((k) => content(now.step, i, k))).toFixed(4), known(now.step) ? movedAll[now.step][i].toFixed(4) : "not known"]));
  }
  function markToken() {
    for (const old of document.querySelectorAll(".tokens [aria-current]")) old.removeAttribute("aria-current");
    const token = document.querySelector(`.tokens [data-step="${now.step}"]`);
    token.setAttribute("aria-current", "step");
    const box = $("story");
    const [inside, outside] = [token.getBoundingClientRect(), box.getBoundingClientRect()];
    // Scrolls the box, never the page.
    if (inside.top < outside.top + 32) box.scrollTop += inside.top - outside.top - 36;
    if (inside.bottom > outside.bottom) box.scrollTop += inside.bottom - outside.bottom + 4;
    $("step").value = now.step + 1;
    $("step").setAttribute("aria-valuetext", `step ${now.step + 1} of ${T}: ${lines(data.tokens[now.step])}`);
    $("place").textContent = `${now.step + 1} / ${T}`;
    $("current").textContent = data.tokens[now.step];
    if ($("values")) {
      const told = data.tokenValues.filter(({ values }) => values[now.step] !== null);
      $("values").textContent = told.map(({ name, values }) => `${name} ${values[now.step].toPrecision(3)}`).join(", ");
    }
  }
  function say() {
    if (now.playing) return;
    const i = range(N).reduce((best, n) => (movedAll[now.step][n] > movedAll[now.step][best] ? n : best), 0);
    const most = known(now.step) ? ` Slot ${i + 1} changed most, by ${movedAll[now.step][i].toFixed(2)}.` : "";
    $("said").textContent = `Step ${now.step + 1} of ${T}: ${lines(data.tokens[now.step])}.${most}`;
  }
  function shadeTokens() {
    const chosen = document.querySelector("#shades [aria-pressed=true]");
    if (!chosen) return;
    const values = data.tokenValues[Number(chosen.dataset.values)].values;
    const most = largest(values.filter((value) => value !== null));
    document.querySelectorAll(".tokens.flow [data-step]").forEach((token) => {
      const value = values[Number(token.dataset.step)];
      const colour = value === null ? inks().paper : value < 0 ? sign(value / most) : amount(value / most);
      token.style.background = colour;
      token.style.color = value === null ? "" : on(colour);
    });
  }

  // ---- choosing
  function press(group, name, value) {
    for (const button of document.querySelectorAll(`#${group} button`)) {
      button.setAttribute("aria-pressed", String(button.dataset[name] === String(value)));
    }
  }
  function drawStep() {
    drawHeads(); drawMatrix(); drawArrows(); drawGates(); drawMemory(); drawAnswers(); moveCursor();
    markToken(); writeNumbers(); say();
  }
  function drawAll() {
    drawTime(); drawStep(); shadeTokens();
    press("heads-choice", "head", now.head);
    press("blocks-choice", "block", now.block);
    press("views-choice", "view", now.view);
  }
  function choose(change) {
    const stepOnly = Object.keys(change).every((key) => key === "step");
    Object.assign(now, change);
    now.step = Math.min(T - 1, Math.max(0, now.step));
    if (stepOnly) drawStep(); else drawAll();
  }
  function play(on) {
    if (now.playing) clearInterval(now.playing);
    now.playing = null;
    if (on) {
      if (now.step === T - 1) choose({ step: 0 });
      now.playing = setInterval(() => (now.step < T - 1 ? choose({ step: now.step + 1 }) : play(false)), T > 60 ? 250 : 700);
    }
    $("play").textContent = now.playing ? "pause" : "play";
    $("play").setAttribute("aria-pressed", String(Boolean(now.playing)));
    say();
  }

  $("step").addEventListener("input", () => choose({ step: Number($("step").value) - 1 }));
  $("play").addEventListener("click", () => play(!now.playing));
  $("back").addEventListener("click", () => choose({ step: now.step - 1 }));
  $("forward").addEventListener("click", () => choose({ step: now.step + 1 }));
  $("least").addEventListener("input", () => {
    $("least-value").textContent = Number($("least").value).toFixed(2);
    choose({ least: Number($("least").value) });
  });
  $("numbers").addEventListener("toggle", writeNumbers);
  for (const token of document.querySelectorAll(".tokens [data-step]")) {
    token.addEventListener("click", () => choose({ step: Number(token.dataset.step) }));
  }
  for (const button of document.querySelectorAll("[data-head]:is(button)")) button.addEventListener("click", () => choose({ head: Number(button.dataset.head) }));
  for (const button of document.querySelectorAll("button[data-block]")) button.addEventListener("click", () => choose({ block: Number(button.dataset.block) }));
  for (const button of document.querySelectorAll("button[data-view]")) button.addEventListener("click", () => choose({ view: button.dataset.view }));
  for (const button of document.querySelectorAll("#shades button")) button.addEventListener("click", () => { press("shades", "values", button.dataset.values); shadeTokens(); });
  for (const entry of document.querySelectorAll("#answer-names button")) {
    entry.addEventListener("click", () => {
      const n = Number(entry.dataset.answer);
      if (!hidden.delete(n)) hidden.add(n);
      entry.setAttribute("aria-pressed", String(!hidden.has(n)));
      drawAnswers();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select, textarea")) return;
    const go = { ArrowRight: now.step + 1, ArrowLeft: now.step - 1, Home: 0, End: T - 1 }[event.key];
    if (go !== undefined) choose({ step: go });
    else if (event.key === " " && !event.target.matches("button, summary")) play(!now.playing);
    else return;
    event.preventDefault();
  });
  pickSteps(figure("time").querySelector(".drawing svg"));
  if (figure("answers")) pickSteps(figure("answers").querySelector(".drawing svg"));
  let drawnAt = document.querySelector("main").clientWidth;
  new ResizeObserver(([entry]) => {
    if (entry.target.clientWidth !== drawnAt) { drawnAt = entry.target.clientWidth; drawAll(); }
  }).observe(document.querySelector("main"));
  dark.addEventListener("change", drawAll);
  // An address may name the step, the head and the block to begin with: #step=3&head=2.
  const asked = new URLSearchParams(location.hash.slice(1));
  const from = (name, least, most) => (asked.has(name) ? Math.min(most, Math.max(least, Number(asked.get(name)) || 0)) - 1 : undefined);
  now.step = from("step", 1, T) ?? T - 1;
  now.head = from("head", 0, H) ?? (H > 1 ? -1 : 0);
  now.block = from("block", 1, S) ?? now.block;
  now.least = Number($("least").value);
  drawAll();
})();
