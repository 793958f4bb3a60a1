// Tables that sort: a click on a heading sorts by that column, the next click turns the order round.
(() => {
  "use strict";
  // An empty value stays at the end in both orders; numbers are compared as numbers.
  function compare(a, b, direction) {
    if (a === "" || b === "") return (a === "") - (b === "");
    const difference = Number(a) - Number(b);
    return direction * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
  }
  for (const table of document.querySelectorAll("table.sorts")) {
    const headings = [...table.querySelectorAll("thead th")];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
        const body = table.tBodies[0];
        const value = (row) => row.cells[column].dataset.value;
        body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b), direction)));
      });
    });
  }
})();
