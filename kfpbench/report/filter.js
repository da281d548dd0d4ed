// The filter: which levels of which axes are shown. Its state, and that of every choice, is in the address's fragment:
// '#anchor&only.part-1.sampler.rank=64,128&show.part-1-front.metric=recall'.
const hiddenCells = new Set();

// The axes of a section's filter with the levels that are checked.
function checkedLevels(key) {
  return [...document.querySelectorAll(`[data-filter="${key}"] fieldset`)].map((set) =>
    new Set([...set.querySelectorAll("input")].filter((input) => input.checked).map((input) => Number(input.value))));
}

// Hides the rows, pictures and points of the cells that the section's filter leaves out.
function applyFilter(key) {
  const { cells, levels } = payload.ablations[key];
  const checked = checkedLevels(key);
  let shown = 0;
  cells.forEach((cell, i) => {
    const keep = levels[i].every((level, axis) => checked[axis].has(level));
    if (keep) hiddenCells.delete(cell); else hiddenCells.add(cell);
    shown += keep;
  });
  for (const element of document.querySelectorAll("[data-cell]")) element.hidden = hiddenCells.has(element.dataset.cell);
  const all = shown === cells.length;
  document.getElementById(`${key}-shown`).textContent = all ? `all ${cells.length} cells shown` : `${shown} of ${cells.length} cells shown`;
  document.querySelector(`[data-filter="${key}"]`).classList.toggle("active", !all);
}

// Everything that can be chosen: id for the fragment, its element, and the value that it has at first.
const choices = [...document.querySelectorAll("select[data-state]")].map((select) => ({ select, name: select.dataset.state, first: select.value }));

function stateOfPage() {
  const parts = [];
  for (const [key, { axes }] of Object.entries(payload.ablations)) {
    checkedLevels(key).forEach((levels, i) => {
      if (levels.size === axes[i].levels.length) return;
      const names = axes[i].levels.filter((_, level) => levels.has(level)).map(encodeURIComponent);
      parts.push(`only.${key}.${encodeURIComponent(axes[i].name)}=${names.join(",")}`);
    });
  }
  for (const { select, name, first } of choices) {
    if (select.value !== first) parts.push(`show.${encodeURIComponent(name)}=${encodeURIComponent(select.value)}`);
  }
  return parts;
}

function anchorOfPage() {
  const anchor = location.hash.slice(1).split("&")[0];
  return anchor.includes("=") ? "" : anchor;
}

function writeState() {
  const parts = stateOfPage(), anchor = anchorOfPage();
  const fragment = parts.length ? `#${[anchor, ...parts].join("&")}` : anchor ? `#${anchor}` : location.pathname + location.search;
  history.replaceState(null, "", fragment);
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

// Sets filters and choices from the fragment; what it does not name is as at first, and what it misnames is left out.
function readState() {
  const given = new Map(location.hash.slice(1).split("&").filter((part) => part.includes("=")).map((part) => {
    const [name, ...rest] = part.split("=");
    return [decoded(name), rest.join("=")];
  }));
  for (const [key, { axes }] of Object.entries(payload.ablations)) {
    axes.forEach((axis, i) => {
      const text = given.get(`only.${key}.${axis.name}`);
      const wanted = text === undefined ? null : new Set(text.split(",").map(decoded));
      const set = document.querySelectorAll(`[data-filter="${key}"] fieldset`)[i];
      set.querySelectorAll("input").forEach((input, level) => { input.checked = !wanted || wanted.has(axis.levels[level]); });
    });
    applyFilter(key);
    const box = document.querySelector(`[data-filter="${key}"]`);
    if (box.classList.contains("active")) box.open = true;
  }
  for (const { select, name, first } of choices) {
    const text = given.get(`show.${name}`);
    const value = text === undefined ? first : decoded(text);
    select.value = [...select.options].some((option) => option.value === value) ? value : first;
  }
  if (given.size) document.getElementById(anchorOfPage() || "none")?.scrollIntoView();
}

for (const box of document.querySelectorAll("[data-filter]")) {
  const key = box.dataset.filter;
  const changed = () => { applyFilter(key); writeState(); drawSection(key); };
  box.hidden = false;
  box.addEventListener("change", changed);
  for (const button of box.querySelectorAll("button[data-set]")) {
    button.addEventListener("click", () => {
      const inputs = (button.closest("fieldset") || box).querySelectorAll("input");
      for (const input of inputs) input.checked = button.dataset.set === "all";
      changed();
    });
  }
}
