"use strict";
// The report's behaviour: draws the figures in the page's colours, places labels where they do not collide, sorts tables.
(() => {
  const payload = JSON.parse(document.getElementById("payload").textContent);
  // The buttons are named one by one: plotly's default set has one that sends the figure to a server.
  const config = { displaylogo: false, responsive: false, showSendToCloud: false, plotlyServerURL: "",
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]], toImageButtonOptions: { format: "svg" } };
  const LABEL_SIZE = 12, MESSY = 110;
  let printing = false;

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  // The layout of a figure with the colours, fonts and margins of the page.
  function themed(layout, narrow) {
    const axis = { gridcolor: colour("grid"), zerolinecolor: colour("rule"), linecolor: colour("muted"), showline: true,
      ticks: "outside", tickcolor: colour("muted"), ticklen: 4, automargin: true };
    const title = (side) => ({ ...side, title: { standoff: 10, font: { size: narrow ? 12 : 13 }, ...(side.title || {}) } });
    return {
      height: narrow ? 380 : 470, ...layout,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12.5, color: colour("ink") },
      margin: { l: narrow ? 48 : 64, r: 14, t: 14, b: 48 },
      hoverlabel: { align: "left", bgcolor: colour("panel"), bordercolor: colour("rule"), font: { color: colour("ink"), size: 12 } },
      xaxis: title({ ...axis, ...layout.xaxis }), yaxis: title({ ...axis, ...layout.yaxis }),
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("muted"), activecolor: colour("ink") },
      legend: { ...(layout.legend || {}), bgcolor: "rgba(0,0,0,0)" },
    };
  }

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
      const plain = new DOMParser().parseFromString(labels[p.cell], "text/html").body.textContent;
      const width = pen.measureText(plain).width + 2, height = LABEL_SIZE + 3;
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

  function draw(id, figure) {
    const div = document.getElementById(id);
    if (!div || !figure) return Promise.resolve();
    const narrow = div.clientWidth < 560;
    const layout = { ...themed(figure.layout, narrow), width: div.clientWidth, annotations: [] };
    return Plotly.react(div, figure.data, layout, { ...config, displayModeBar: narrow || printing ? false : "hover" });
  }

  function chosen(id) {
    const part = (name) => document.querySelector(`select[data-scatter="${id}"][data-part="${name}"]`).value;
    return `${part("speed")}|${part("metric")}`;
  }

  async function drawScatter(id) {
    const { variants, labels, hover } = payload.scatters[id];
    const figure = variants[chosen(id)];
    const div = document.getElementById(id);
    const caption = document.getElementById(`${id}-caption`);
    if (!figure) {
      Plotly.purge(div);
      caption.textContent = "No cell has both of these numbers.";
      return;
    }
    caption.textContent = figure.caption;
    const data = figure.data.map((trace) => trace.meta !== "cells" ? trace : {
      ...trace, hovertext: trace.customdata.map((cell) => hover[cell]),
      marker: trace.marker.symbol.endsWith("-open") ? trace.marker : { ...trace.marker, line: { ...trace.marker.line, color: colour("ink") } } });
    await draw(id, { ...figure, data });
    const label = () => Plotly.relayout(div, { annotations: placeLabels(div, figure, labels) });
    if (div.removeAllListeners) div.removeAllListeners("plotly_relayout");
    // A zoom moves the points, hence the labels; setting annotations is a relayout too, which must not call itself.
    div.on("plotly_relayout", (change) => { if (Object.keys(change).some((key) => key.includes("axis"))) label(); });
    await label();
  }

  // Draws the panels of the cell that is chosen; a cell with fewer panels than another leaves some empty.
  function drawChoice(id) {
    const panels = payload.choices[id][Number(document.querySelector(`select[data-choice="${id}"]`).value)];
    const drawn = [];
    for (let i = 0, div; (div = document.getElementById(`${id}-${i}`)); i += 1) {
      const panel = panels[i];
      div.closest("figure").hidden = !panel;
      document.getElementById(`${id}-${i}-caption`).textContent = panel ? panel.caption : "";
      if (panel) drawn.push(draw(`${id}-${i}`, panel));
    }
    return Promise.all(drawn);
  }

  function drawAll() {
    if (typeof Plotly === "undefined") return Promise.resolve();
    return Promise.all([
      ...Object.keys(payload.scatters).map(drawScatter),
      ...Object.entries(payload.figures).map(([id, figure]) => draw(id, figure)),
      ...Object.keys(payload.choices).map(drawChoice),
    ]);
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
  for (const select of document.querySelectorAll("select[data-scatter]")) {
    select.addEventListener("change", () => drawScatter(select.dataset.scatter));
  }
  for (const select of document.querySelectorAll("select[data-choice]")) {
    select.addEventListener("change", () => drawChoice(select.dataset.choice));
  }
  let width = document.documentElement.clientWidth, waiting;
  addEventListener("resize", () => {
    if (document.documentElement.clientWidth === width) return;
    width = document.documentElement.clientWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 120);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  matchMedia("print").addEventListener("change", (event) => { printing = event.matches; drawAll(); });
  drawAll().then(() => document.documentElement.setAttribute("data-drawn", "yes"));
})();
