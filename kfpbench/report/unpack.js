// Large parts of the page are packed (gzip, base64): plotly, and the eigenfunctions.
const payload = JSON.parse(document.getElementById("payload").textContent);
let functions = {};

// What a packed element holds, read as told; undefined where there is none.
async function unpacked(id, read) {
  const element = document.getElementById(id);
  if (!element) return undefined;
  const bytes = Uint8Array.from(atob(element.textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return read(await new Response(stream).text());
}

async function loadPlotly() {
  await unpacked("plotly", (source) => {
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
  });
}
