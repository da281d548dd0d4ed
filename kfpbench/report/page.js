// What remains: drawing in turn, sorting tables, copying the command, printing.

// The eigenfunctions of the cell that is chosen; a cell with fewer panels than another leaves some empty.
function drawChoice(id) {
  const panels = functions[id][Number(document.querySelector(`select[data-choice="${id}"]`).value)];
  const drawn = [];
  for (let i = 0, div; (div = document.getElementById(`${id}-${i}`)); i += 1) {
    const panel = panels[i];
    div.closest("figure").hidden = !panel;
    document.getElementById(`${id}-${i}-caption`).textContent = panel ? panel.caption : "";
    if (panel) drawn.push(draw(`${id}-${i}`, panel));
  }
  return Promise.all(drawn);
}

// Every drawing of the page, or of one section, in the order of the page.
function jobs(key) {
  const of = (id) => !key || id.startsWith(`${key}-`);
  const found = [
    ...Object.keys(payload.scatters).filter(of).map((id) => [id, () => drawScatter(id)]),
    ...Object.entries(payload.figures).filter(([id]) => of(id)).map(([id, figure]) => [id, () => draw(id, withoutHidden(figure))]),
    ...Object.keys(payload.ablations).filter((id) => !key || id === key).map((id) => [`${id}-multiples`, () => drawMultiples(id)]),
    ...(key ? [] : Object.keys(functions).map((id) => [`${id}-0`, () => drawChoice(id)])),
  ].map(([id, job]) => ({ place: document.getElementById(id), job })).filter(({ place }) => place);
  return found.sort((a, b) => (a.place.compareDocumentPosition(b.place) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1)).map(({ job }) => job);
}

// Draws in turn, with room for the reader's input between two figures; a later call ends an earlier one of its kind.
const turns = {};
async function inTurn(key) {
  const turn = (turns[key] = (turns[key] || 0) + 1);
  document.documentElement.setAttribute("data-drawn", "no");
  for (const job of jobs(key)) {
    if (turns[key] !== turn) return;
    await job();
    if (!printing) await new Promise((done) => { setTimeout(done); });
  }
  document.documentElement.setAttribute("data-drawn", "yes");
}

function drawAll() {
  return typeof Plotly === "undefined" ? Promise.resolve() : inTurn("");
}

function drawSection(key) {
  return typeof Plotly === "undefined" ? Promise.resolve() : inTurn(key);
}

// Numbers by value and names by language; what has no value stays last in both directions.
function sortBy(table, column, direction) {
  const body = table.tBodies[0];
  const key = (row) => row.cells[column].dataset.sort;
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const difference = column === 0 ? a.localeCompare(b, "en", { numeric: true }) : Number(a) - Number(b);
    return direction === "ascending" ? difference : -difference;
  };
  body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
  [...table.tHead.rows[0].cells].forEach((head, i) => head.setAttribute("aria-sort", i === column ? direction : "none"));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => head.querySelector("button").addEventListener("click", () =>
    sortBy(table, column, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending")));
}

// Copies the text of an element; where the browser gives no clipboard, it selects the text instead.
async function copy(button) {
  const source = document.getElementById(button.dataset.copy), told = document.getElementById(button.getAttribute("aria-describedby"));
  try {
    await navigator.clipboard.writeText(source.textContent);
    told.textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(source);
    told.textContent = document.execCommand("copy") ? "Copied." : "Selected: copy it with Ctrl-C or ⌘C.";
  }
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}

// Paper has no folded parts; after printing they are as they were.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")].filter((one) => !one.matches(".filter"));
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
  folded = [];
});

for (const select of document.querySelectorAll("select[data-scatter]")) {
  select.addEventListener("change", () => drawScatter(select.dataset.scatter));
}
for (const select of document.querySelectorAll("select[data-choice]")) {
  select.addEventListener("change", () => drawChoice(select.dataset.choice));
}
for (const select of document.querySelectorAll("select[data-multiples]")) {
  select.addEventListener("change", () => drawMultiples(select.dataset.multiples));
}
for (const { select } of choices) select.addEventListener("change", writeState);

let width = document.documentElement.clientWidth, waiting;
addEventListener("resize", () => {
  if (document.documentElement.clientWidth === width) return;
  width = document.documentElement.clientWidth;
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 120);
});
addEventListener("hashchange", () => {
  // A link of the page names a place and no state: the state stays.
  if (!location.hash.includes("=")) { writeState(); return; }
  readState();
  drawAll();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
matchMedia("print").addEventListener("change", (event) => {
  printing = event.matches;
  if (!printing) { drawAll(); return; }
  if (typeof Plotly !== "undefined") for (const job of jobs("")) job(); // at once: paper does not wait for turns
});

readState();
const unpackable = await (async () => {
  try {
    functions = await unpacked("functions", JSON.parse) ?? {};
    await loadPlotly();
    return true;
  } catch {
    document.getElementById("unpacked").hidden = false;
    return false;
  }
})();
if (unpackable) await drawAll();
