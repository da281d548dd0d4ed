// The front: the scatter of quality against speed, its labels placed where they do not collide.
const LABEL_SIZE = 12, MESSY = 110;

function box(left, top, width, height) {
  return { left, top, right: left + width, bottom: top + height };
}

function overlap(a, b) {
  const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  return width > 0 && height > 0 ? width * height : 0;
}

// Eight places around a marker, the preferred one first.
function candidates(x, y, width, height) {
  const gap = 10, near = 7;
  return [
    box(x + gap, y - height / 2, width, height), box(x - gap - width, y - height / 2, width, height),
    box(x + near, y - near - height, width, height), box(x + near, y + near, width, height),
    box(x - near - width, y - near - height, width, height), box(x - near - width, y + near, width, height),
    box(x - width / 2, y - gap - height, width, height), box(x - width / 2, y + gap, width, height),
  ];
}

// Functions from data to pixels inside the plot area.
function scales(div, area) {
  const along = (axis, value) => {
    const [from, to] = div.layout[axis].range;
    return ((div.layout[axis].type === "log" ? Math.log10(value) : value) - from) / (to - from);
  };
  return { px: (x) => along("xaxis", x) * area.width, py: (y) => (1 - along("yaxis", y)) * area.height };
}

// Every shown point with its pixel position; bars are the boxes of its interval bars.
function pixels(figure, area, { px, py }) {
  const points = [];
  for (const trace of figure.data) {
    if (trace.meta !== "cells") continue;
    trace.x.forEach((x, i) => {
      const y = trace.y[i];
      const [left, right] = [px(x - trace.error_x.arrayminus[i]), px(x + trace.error_x.array[i])];
      const [bottom, top] = [py(y - trace.error_y.arrayminus[i]), py(y + trace.error_y.array[i])];
      points.push({ x: px(x), y: py(y), cell: trace.customdata[i],
        bars: [box(left, py(y) - 1, right - left, 2), box(px(x) - 1, top, 2, bottom - top)] });
    });
  }
  return points.filter((p) => p.x >= 0 && p.x <= area.width && p.y >= 0 && p.y <= area.height);
}

// The boxes of the steps of the front's line.
function steps(figure, { px, py }) {
  const line = figure.data.find((trace) => trace.meta === "front");
  if (!line) return [];
  return line.x.slice(1).map((x, i) => {
    const [left, right] = [px(line.x[i]), px(x)], [top, bottom] = [py(line.y[i]), py(line.y[i + 1])];
    return box(Math.min(left, right) - 1, Math.min(top, bottom) - 1, Math.abs(right - left) + 2, Math.abs(bottom - top) + 2);
  });
}

// Annotations for the points whose label has a place free of markers and other labels; the front chooses first.
function placeLabels(div, figure, labels) {
  const plot = div.querySelector(".nsewdrag");
  if (!plot) return [];
  const area = plot.getBoundingClientRect();
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `${LABEL_SIZE}px ${getComputedStyle(document.body).fontFamily}`;
  const scale = scales(div, area);
  const points = pixels(figure, area, scale);
  const rank = (p) => (figure.front.includes(p.cell) ? 0 : 1);
  points.sort((a, b) => rank(a) - rank(b) || a.y - b.y);
  const markers = points.map((p) => box(p.x - 7, p.y - 7, 14, 14));
  const lines = [...points.flatMap((p) => p.bars), ...steps(figure, scale)];
  const taken = [];
  const annotations = [];
  for (const p of points) {
    const words = new DOMParser().parseFromString(labels[p.cell], "text/html").body.textContent;
    const width = pen.measureText(words).width + 2, height = LABEL_SIZE + 3;
    const free = candidates(p.x, p.y, width, height)
      .filter((c) => c.left >= 0 && c.top >= 0 && c.right <= area.width && c.bottom <= area.height)
      .filter((c) => ![...markers, ...taken].some((other) => overlap(c, other) > 0))
      .map((c, order) => ({ c, cost: 6 * order + lines.reduce((sum, line) => sum + overlap(c, line), 0) }))
      .sort((a, b) => a.cost - b.cost);
    // A label across many lines is worse than none; those on the front are worth it.
    if (!free.length || (free[0].cost > MESSY && rank(p) > 0)) continue;
    const { c } = free[0];
    taken.push(c);
    annotations.push({ xref: "paper", yref: "paper", x: c.left / area.width, y: 1 - (c.top + c.bottom) / 2 / area.height,
      xanchor: "left", yanchor: "middle", text: labels[p.cell], showarrow: false, borderpad: 0, bgcolor: colour("paper"),
      font: { size: LABEL_SIZE, color: rank(p) === 0 ? colour("ink") : colour("muted") } });
  }
  return annotations;
}

function chosen(id) {
  const part = (name) => document.querySelector(`select[data-scatter="${id}"][data-part="${name}"]`).value;
  return `${part("speed")}|${part("metric")}`;
}

// The corners of the line around the points that no other beats, from the fastest on; lower x is better.
function staircase(points, better, corner) {
  const sign = better === "higher" ? -1 : 1;
  const ordered = [...points].sort((a, b) => a.x - b.x || sign * (a.y - b.y));
  const xs = [], ys = [];
  let best = Infinity, level = corner.y;
  for (const { x, y } of ordered) {
    if (sign * y >= best) continue;
    xs.push(x, x);
    ys.push(level, y);
    best = sign * y;
    level = y;
  }
  return xs.length ? { x: [...xs, corner.x], y: [...ys, level] } : { x: [], y: [] };
}

// The traces without the cells that are filtered out, and the line around those that are left.
function frontData(figure, cells) {
  const end = (axis, i) => (axis.type === "log" ? 10 ** axis.range[i] : axis.range[i]);
  const left = figure.data.filter((trace) => trace.meta === "cells")
    .map((trace) => thinned(trace, (i) => !hiddenCells.has(cells[trace.customdata[i]]))).filter((trace) => trace.x.length);
  const points = left.flatMap((trace) => trace.x.map((x, i) => ({ x, y: trace.y[i] })));
  const { xaxis, yaxis } = figure.layout;
  const corner = { x: end(xaxis, 1), y: end(yaxis, figure.better === "higher" ? 0 : 1) };
  const lines = figure.data.filter((trace) => trace.meta === "front").map((trace) => ({ ...trace, ...staircase(points, figure.better, corner) }));
  return [...lines, ...left];
}

async function drawScatter(id) {
  const { variants, labels, hover, cells } = payload.scatters[id];
  const figure = variants[chosen(id)];
  const div = document.getElementById(id);
  const caption = document.getElementById(`${id}-caption`);
  const data = figure ? frontData(figure, cells) : [];
  if (!data.some((trace) => trace.meta === "cells")) {
    Plotly.purge(div);
    caption.textContent = figure ? "No cell that is shown has both of these numbers." : "No cell has both of these numbers.";
    return;
  }
  caption.textContent = figure.caption;
  const inked = data.map((trace) => trace.meta !== "cells" ? trace : {
    ...trace, hovertext: trace.customdata.map((cell) => hover[cell]),
    marker: trace.marker.symbol.endsWith("-open") ? trace.marker : { ...trace.marker, line: { ...trace.marker.line, color: colour("ink") } } });
  const shown = { ...figure, data: inked };
  await draw(id, shown);
  const label = () => Plotly.relayout(div, { annotations: placeLabels(div, shown, labels) });
  if (div.removeAllListeners) div.removeAllListeners("plotly_relayout");
  // A zoom moves the points, hence the labels; setting annotations is a relayout too, which must not call itself.
  div.on("plotly_relayout", (change) => { if (Object.keys(change).some((key) => key.includes("axis"))) label(); });
  await label();
}
