// Figures that can be saved as SVG files, and curves that come and go at a click on their name.
(() => {
  "use strict";
  // The file must look like the figure wherever it is opened: colours of the page become its own.
  function standalone(svg, title) {
    const copy = svg.cloneNode(true);
    const style = getComputedStyle(svg);
    const box = svg.viewBox.baseVal;
    const legend = copy.querySelector("[data-legend]");
    if (legend) legend.removeAttribute("style");
    const [x, y, width, height] = [box.x, box.y, box.width, box.height + Number(legend?.dataset.legend ?? 0)];
    copy.setAttribute("viewBox", `${x} ${y} ${width} ${height}`);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.setAttribute("color", style.color);
    copy.setAttribute("font-family", style.fontFamily);
    const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const colour = getComputedStyle(document.body).backgroundColor;
    for (const [name, value] of Object.entries({ x, y, width, height, fill: colour })) paper.setAttribute(name, value);
    const name = document.createElementNS("http://www.w3.org/2000/svg", "title");
    name.textContent = title;
    copy.prepend(name, paper);
    return new XMLSerializer().serializeToString(copy);
  }
  for (const figure of document.querySelectorAll("figure[data-name]")) {
    const caption = figure.querySelector("figcaption");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "save";
    button.textContent = "save as SVG";
    button.setAttribute("aria-label", `save as SVG: ${figure.dataset.name}`);
    caption.append(" ", button);
    button.addEventListener("click", () => {
      const svg = figure.querySelector(".drawing svg");
      const text = standalone(svg, svg.getAttribute("aria-label") || figure.dataset.name);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
      link.download = `${figure.dataset.file || figure.dataset.name}.svg`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
  for (const button of document.querySelectorAll("button[data-curve]")) {
    const curves = [...document.querySelectorAll(`[id^="${button.dataset.curve}-"]`)];
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      for (const curve of curves) curve.style.display = shown ? "" : "none";
    });
  }
})();
