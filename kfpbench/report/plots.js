// Draws plotly figures in the page's colours.

// The buttons are named one by one: plotly's default set has one that sends the figure to a server.
const config = { displaylogo: false, responsive: false, showSendToCloud: false, plotlyServerURL: "",
  modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]], toImageButtonOptions: { format: "svg" } };
let printing = false;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Text that plotly shows as it is: it reads a small HTML in its labels.
function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
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
    margin: { l: narrow ? 48 : 64, r: 14, t: 14, b: 48, ...(layout.margin || {}) },
    hoverlabel: { align: "left", bgcolor: colour("panel"), bordercolor: colour("rule"), font: { color: colour("ink"), size: 12 } },
    xaxis: title({ ...axis, ...layout.xaxis }), yaxis: title({ ...axis, ...layout.yaxis }),
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("muted"), activecolor: colour("ink") },
    legend: { ...(layout.legend || {}), bgcolor: "rgba(0,0,0,0)" },
  };
}

function draw(target, figure) {
  const div = typeof target === "string" ? document.getElementById(target) : target;
  if (!div || !figure) return Promise.resolve();
  const narrow = div.clientWidth < 560;
  const layout = { ...themed(figure.layout, narrow), width: div.clientWidth, annotations: [] };
  return Plotly.react(div, figure.data, layout, { ...config, displayModeBar: narrow || printing ? false : "hover" });
}

// A trace with those of its points for which keep(i) is true.
function thinned(trace, keep) {
  const length = trace.x.length;
  const short = (list) => (Array.isArray(list) && list.length === length ? list.filter((_, i) => keep(i)) : list);
  const made = { ...trace };
  for (const name of ["x", "y", "customdata", "hovertext", "text"]) if (name in made) made[name] = short(made[name]);
  for (const name of ["error_x", "error_y"]) {
    if (made[name]) made[name] = { ...made[name], array: short(made[name].array), arrayminus: short(made[name].arrayminus) };
  }
  if (made.meta && Array.isArray(made.meta)) made.meta = short(made.meta);
  if (made.marker && Array.isArray(made.marker.symbol)) made.marker = { ...made.marker, symbol: short(made.marker.symbol) };
  return made;
}

// A figure without the cells that are filtered out: meta names the cell of a trace, or those of its points.
function withoutHidden(figure) {
  if (figure.data.some((trace) => trace.orientation === "h" && trace.customdata)) return bars(figure);
  const data = [];
  for (const trace of figure.data) {
    if (Array.isArray(trace.meta)) {
      const left = thinned(trace, (i) => !hiddenCells.has(trace.meta[i]));
      if (left.x.length) data.push(left);
    } else if (!hiddenCells.has(trace.meta)) data.push(trace);
  }
  return { ...figure, data };
}

// Horizontal bars, a row per cell: the rows that are left move up.
function bars(figure) {
  const rows = figure.data[0].customdata;
  const kept = rows.map((cell, i) => i).filter((i) => !hiddenCells.has(rows[i]));
  const data = figure.data.map((trace) => ({ ...thinned(trace, (i) => kept.includes(i)), y: kept.map((_, place) => place) }));
  const { layout } = figure, { yaxis } = layout;
  return { data, layout: { ...layout, height: layout.height - 24 * (rows.length - kept.length),
    yaxis: { ...yaxis, tickvals: kept.map((_, place) => place), ticktext: kept.map((i) => yaxis.ticktext[i]), range: [kept.length - 0.4, -0.6] } } };
}
