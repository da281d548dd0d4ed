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

