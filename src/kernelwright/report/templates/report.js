"use strict";
// Figures name their colours by CSS variable, so that they follow the reader's colour scheme.
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const coloured = (value) => {
  if (typeof value === "string") return value.startsWith("--") ? css(value) : value;
  if (Array.isArray(value)) return value.map(coloured);
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item)]));
  return value;
};

function draw() {
  const axis = {
    gridcolor: css("--grid"), zerolinecolor: css("--grid"), linecolor: css("--line"),
    tickfont: { size: 12 }, minor: { gridcolor: "rgba(0,0,0,0)" },
  };
  for (const [name, figure] of Object.entries(FIGURES)) {
    const { data, layout } = coloured(figure);
    Plotly.react(name, data, {
      ...layout,
      xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
      font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: css("--text") },
      margin: { l: 56, r: 18, t: 12, b: 48 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      hoverlabel: { bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--text") } },
    }, { responsive: true, displayModeBar: false });
  }
}
draw();
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

// A click on a heading sorts; rows without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.addEventListener("click", () => {
    const down = heading.dataset.order === "up";
    headings.forEach((other) => delete other.dataset.order);
    heading.dataset.order = down ? "down" : "up";
    const numeric = heading.dataset.kind === "number";
    const key = (row) => numeric ? row.cells[column].dataset.value : row.cells[column].innerText;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = numeric ? Number(x) - Number(y) : x.localeCompare(y);
      return down ? -order : order;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }));
}

const filters = [...document.querySelectorAll("#filters button")];
filters.forEach((button) => button.addEventListener("click", () => {
  filters.forEach((other) => other.classList.toggle("on", other === button));
  for (const row of document.querySelectorAll("#verdicts tbody tr"))
    row.hidden = button.dataset.outcome !== "" && row.dataset.outcome !== button.dataset.outcome;
}));
