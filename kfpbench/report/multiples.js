// The ablation in small multiples: a panel for each level of one axis, or for each metric.
const MOST_PANELS = 12, NO_AXIS = "none", BY_METRIC = "metric", LOG_RATIO = 8;

function settings(key) {
  const part = (name) => document.querySelector(`select[data-multiples="${key}"][data-part="${name}"]`).value;
  const axis = (value) => (value === NO_AXIS ? null : Number(value));
  return { metric: part("metric"), along: Number(part("along")), panels: part("panels") === BY_METRIC ? BY_METRIC : axis(part("panels")),
    colours: axis(part("colours")) };
}

// The range of a metric over some cells: every value, and as much of the intervals as leaves the values room.
function valueRange(metric, cells) {
  const forward = metric.log ? Math.log10 : (value) => value;
  const rows = cells.map((i) => metric.rows[i]).filter(Boolean);
  const values = rows.map(([value]) => forward(value));
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const span = high - low || (metric.log ? 0.3 : Math.abs(high) * 0.2 || 1);
  const [floor, ceiling] = [low - span / 2, high + span / 2];
  for (const [, from, to] of rows) {
    low = Math.max(Math.min(low, from > 0 || !metric.log ? forward(from) : floor), floor);
    high = Math.min(Math.max(high, forward(to)), ceiling);
  }
  const pad = 0.08 * Math.max(high - low, span);
  return [low - pad, high + pad];
}

// The cells that agree in every axis but one, in the order of that one.
function series(ablation, cells, along, panels) {
  const found = new Map();
  for (const i of cells) {
    const rest = ablation.levels[i].map((level, axis) => (axis === along || axis === panels ? "" : level)).join();
    found.set(rest, [...(found.get(rest) || []), i]);
  }
  return [...found.values()].map((members) => members.sort((a, b) => ablation.levels[a][along] - ablation.levels[b][along]));
}

function bounds(rows, which) {
  return { type: "data", symmetric: false, thickness: 1.2, width: 3,
    array: rows.map(([value, , high]) => Math.max(high - value, 0)), arrayminus: rows.map(([value, low]) => Math.max(value - low, 0)), ...which };
}

// One panel: lines along numbers; along names a dot per cell, names downwards, since they are long.
function panelOf(ablation, metric, members, range, { along, panels, colours }) {
  const axis = ablation.axes[along];
  const shown = members.filter((i) => metric.rows[i] && (!axis.numbers || ablation.levels[i][along] < axis.numbers.length));
  const look = (i) => (colours === null ? ablation.markers[0] : ablation.markers[ablation.levels[i][colours]]);
  const tell = (i) => `<b>${plain(ablation.labels[i])}</b><br>${plain(axis.title)}: ${plain(axis.levels[ablation.levels[i][along]])}<br>${plain(metric.title)}: ${plain(metric.rows[i][3])}`;
  const value = { type: metric.log ? "log" : "linear", range, nticks: 5, exponentformat: metric.log ? "power" : Math.max(...range) >= 1000 ? "SI" : "e" };
  const base = { type: "scatter", hovertemplate: "%{hovertext}<extra></extra>" };
  const margin = { l: 40, r: 8, t: 6, b: 34 };
  if (axis.numbers) {
    const used = [...new Set(shown.map((i) => axis.numbers[ablation.levels[i][along]]))].sort((a, b) => a - b);
    const log = used[0] > 0 && used.at(-1) / used[0] >= LOG_RATIO;
    const data = series(ablation, shown, along, panels).map((line) => {
      const rows = line.map((i) => metric.rows[i]), [shade, symbol] = look(line[0]);
      return { ...base, mode: line.length > 1 ? "lines+markers" : "markers", x: line.map((i) => axis.numbers[ablation.levels[i][along]]), y: rows.map(([v]) => v),
        error_y: bounds(rows, { color: shade }), line: { width: 1.3, color: shade }, marker: { size: 8, color: shade, symbol }, hovertext: line.map(tell) };
    });
    const ticks = used.length <= 6 ? { tickvals: used, ticktext: used.map(String) } : {};
    return { data, layout: { height: 240, margin, showlegend: false, hovermode: "closest", yaxis: value,
      xaxis: { type: log ? "log" : "linear", title: { text: plain(axis.title) }, ...ticks } } };
  }
  const used = axis.levels.map((_, level) => level).filter((level) => shown.some((i) => ablation.levels[i][along] === level));
  const kinds = colours === null ? [null] : [...new Set(shown.map((i) => ablation.levels[i][colours]))].sort((a, b) => a - b);
  // Cells of one level and several colours lie side by side.
  const beside = new Map(used.map((level) => [level, kinds.filter((kind) => shown.some((i) =>
    ablation.levels[i][along] === level && (kind === null || ablation.levels[i][colours] === kind)))]));
  const shift = (level, kind) => {
    const all = beside.get(level);
    return all.length > 1 ? 0.7 * (all.indexOf(kind) / (all.length - 1) - 0.5) : 0;
  };
  const most = Math.max(1, ...[...beside.values()].map((all) => all.length));
  const data = kinds.map((kind) => {
    const own = shown.filter((i) => kind === null || ablation.levels[i][colours] === kind);
    const rows = own.map((i) => metric.rows[i]), [shade, symbol] = ablation.markers[kind ?? 0];
    return { ...base, mode: "markers", x: rows.map(([v]) => v), y: own.map((i) => used.indexOf(ablation.levels[i][along]) + shift(ablation.levels[i][along], kind)),
      error_x: bounds(rows, { color: shade, width: 2 }), marker: { size: 8, color: shade, symbol, line: { width: 0.5 } }, hovertext: own.map(tell) };
  });
  const short = (text) => (text.length > 22 ? `${text.slice(0, 21)}…` : text);
  return { data, layout: { height: 74 + used.length * Math.max(23, 9 * most), margin, showlegend: false, hovermode: "closest", xaxis: value,
    yaxis: { tickmode: "array", tickvals: used.map((_, place) => place), ticktext: used.map((level) => plain(short(axis.levels[level]))),
      range: [used.length - 0.45, -0.55], showgrid: used.length > 1, zeroline: false } } };
}

function varies(metric, cells) {
  return new Set(cells.filter((i) => metric.rows[i]).map((i) => metric.rows[i][0])).size > 1;
}

// What the panels are: their titles, metrics and cells.
function panelsOf(ablation, cells, { metric, panels }) {
  if (panels === BY_METRIC) {
    return Object.values(ablation.metrics).filter((one) => varies(one, cells))
      .map((one) => ({ title: `${one.title} (${one.advice})`, metric: one, members: cells, range: valueRange(one, cells) }));
  }
  const one = ablation.metrics[metric];
  const having = cells.filter((i) => one.rows[i]);
  if (!having.length) return [];
  const range = valueRange(one, having);
  if (panels === null) return [{ title: "", metric: one, members: having, range }];
  return ablation.axes[panels].levels.map((level, number) => ({ title: `${ablation.axes[panels].title} ${level}`, metric: one, range,
    members: having.filter((i) => ablation.levels[i][panels] === number) })).filter(({ members }) => members.length);
}

async function drawMultiples(key) {
  const ablation = payload.ablations[key], chosen = settings(key);
  const cells = ablation.cells.map((_, i) => i).filter((i) => !hiddenCells.has(ablation.cells[i]));
  const made = panelsOf(ablation, cells, chosen);
  const place = document.getElementById(`${key}-multiples`);
  for (const legend of document.querySelectorAll(`[data-legend^="${key}."]`)) legend.hidden = legend.dataset.legend !== `${key}.${chosen.colours}`;
  while (place.children.length > Math.min(made.length, MOST_PANELS)) {
    Plotly.purge(place.lastElementChild.querySelector(".canvas"));
    place.lastElementChild.remove();
  }
  const jobs = made.slice(0, MOST_PANELS).map(({ title, metric, members, range }, number) => {
    let figure = place.children[number];
    if (!figure) {
      figure = document.createElement("figure");
      figure.className = "plot panel";
      figure.append(document.createElement("figcaption"), document.createElement("div"));
      figure.lastElementChild.className = "canvas";
      figure.lastElementChild.setAttribute("role", "img");
      place.append(figure);
    }
    figure.firstElementChild.textContent = title;
    figure.lastElementChild.setAttribute("aria-label", `${metric.title} along ${ablation.axes[chosen.along].title}${title ? `, ${title}` : ""}; the table has its numbers`);
    return () => draw(figure.lastElementChild, panelOf(ablation, metric, members, range, chosen));
  });
  const notes = [];
  if (chosen.panels !== BY_METRIC) notes.push(`${ablation.metrics[chosen.metric].title}: ${ablation.metrics[chosen.metric].advice}.`);
  const equal = Object.values(ablation.metrics).filter((one) => cells.some((i) => one.rows[i]) && !varies(one, cells)).map((one) => one.title);
  if (chosen.panels === BY_METRIC && equal.length) notes.push(`Equal in all cells that have it: ${equal.join(", ")}.`);
  if (made.length > MOST_PANELS) notes.push(`No room for: ${made.slice(MOST_PANELS).map(({ title }) => title).join(", ")}.`);
  const { numbers, title } = ablation.axes[chosen.along];
  const beside = numbers ? cells.filter((i) => ablation.levels[i][chosen.along] >= numbers.length).length : 0;
  if (beside) notes.push(`${beside} cells have no ${title} and are not drawn.`);
  if (!made.length) notes.push("No cell that is shown has this number.");
  document.getElementById(`${key}-multiples-note`).textContent = notes.join(" ");
  for (const job of jobs) await job();
}
