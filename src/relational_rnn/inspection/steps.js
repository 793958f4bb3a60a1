// The chosen step and what shows it on every page: controls, keys, what was read, the answers along time. Defines `steps`.
const steps = (() => {
  "use strict";
  const { dark, inks, series, amount, sign, on, add, label, begin, legend, round } = drawing;
  const data = JSON.parse(document.getElementById("data").textContent);
  const T = data.steps;
  const now = { step: T - 1, playing: null };
  const views = []; // of the other scripts: {step, all, told}
  const $ = (name) => document.getElementById(name);
  const figure = (name) => document.querySelector(`figure[data-name="${name}"]`);
  const lines = (text) => text.replace(/\n/g, " ");
  const range = (n) => Array.from({ length: n }, (_, i) => i);
  const largest = (values) => values.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;

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

  // ---- what was read
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
    const told = views.map((view) => view.told?.() ?? "").join("");
    $("said").textContent = `Step ${now.step + 1} of ${T}: ${lines(data.tokens[now.step])}.${told}`;
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
    for (const view of views) view.step?.();
    drawAnswers(); markToken(); say();
  }
  function drawAll() {
    for (const view of views) view.all?.();
    drawStep(); shadeTokens();
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
  for (const token of document.querySelectorAll(".tokens [data-step]")) {
    token.addEventListener("click", () => choose({ step: Number(token.dataset.step) }));
  }
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
  if (figure("answers")) pickSteps(figure("answers").querySelector(".drawing svg"));
  // An address may name the step to begin with, and what else the page lets one choose: #step=3&head=2.
  const asked = new URLSearchParams(location.hash.slice(1));
  const from = (name, least, most) => (asked.has(name) ? Math.min(most, Math.max(least, Number(asked.get(name)) || 0)) - 1 : undefined);
  now.step = from("step", 1, T) ?? now.step;
  // Once every script has said what it shows.
  document.addEventListener("DOMContentLoaded", () => {
    let drawnAt = document.querySelector("main").clientWidth;
    new ResizeObserver(([entry]) => {
      if (entry.target.clientWidth !== drawnAt) { drawnAt = entry.target.clientWidth; drawAll(); }
    }).observe(document.querySelector("main"));
    dark.addEventListener("change", drawAll);
    drawAll();
  });
  return { data, T, now, $, figure, lines, range, largest, LEFT, stepWidth, timeAxis, cursor, pickSteps, press, choose, from,
    show: (view) => views.push(view) };
})();
