"""The offline report of a run: one HTML file with everything in it, which asks the network for nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfpbench.claim.card import card_of_run
from kfpbench.report.aggregate import Group, group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.claim_section import build_claim
from kfpbench.report.comparable import Part, comparable_parts, is_collected, without_mixed_times
from kfpbench.report.dataset_section import DatasetSection, build_dataset
from kfpbench.report.embed import script_json, script_source
from kfpbench.report.findings_section import build_findings
from kfpbench.report.grids import Gallery
from kfpbench.report.nearest_section import build_nearest
from kfpbench.report.provenance import head, omissions, provenance, suite_text
from kfpbench.report.spectrum_section import SpectrumSection, build_spectrum
from kfpbench.report.speed_section import build_speed
from kfpbench.runner.timing_record import read_timing
from kfpbench.store.atomic import write_bytes
from kfpbench.store.json_values import dumps

FILE_NAME = "report.html"
STATISTICS = "statistics.json"
_HERE = Path(__file__).parent


def write_report(manifest: Mapping[str, Any], records: Iterable[Any], folder: Path) -> Path:
    """Write ``report.html`` and ``statistics.json`` into the run folder and return the path of the report.

    The latter holds the comparisons of the report as JSON, by data set: classes of the fronts, hypervolumes,
    differences from the anchor, effects of the axes; null for what is not there.

    ``records`` are cell records as mappings or objects; sample grids are read from the folder. Raises
    StoreError for a record that cannot be read, OSError where the file cannot be written.
    """
    path = Path(folder) / FILE_NAME
    text, comparisons = _render(manifest, list(records), Path(folder))
    write_bytes(path, text.encode())  # replaces a link that a stranger's folder may hold, not what it leads to
    content = {"schema_version": 1, "datasets": comparisons}
    write_bytes(Path(folder) / STATISTICS, (dumps(content, indent=1) + "\n").encode())
    return path


def render_report(manifest: Mapping[str, Any], records: Iterable[Any], folder: Path) -> str:
    """The report as text; see ``write_report``."""
    return _render(manifest, list(records), folder)[0]


def _render(manifest: Mapping[str, Any], records: Sequence[Any], folder: Path) -> tuple[str, dict[str, Any]]:
    """The report as text, and its comparisons by data set."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    card = card_of_run(manifest, records, folder)
    cells = read_cells(records)
    groups = group_repeats(cells)
    datasets, spectra = _sections(groups, folder)
    figures = {name: figure for part in datasets for name, figure in part.figures.items()}
    figures |= {name: figure for part in spectra for name, figure in part.figures.items()}
    scatters = {name: figure for part in datasets for name, figure in part.scatters.items()}
    drawn = [part.functions for part in spectra if part.functions and part.functions.variants]
    choices = {functions.key: functions.variants for functions in drawn}
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("report.html.j2").render(
        head=head(manifest, cells),
        claim=None if card is None else build_claim(card),
        found=build_findings(groups),
        nearest=build_nearest(groups, Path(folder)),
        datasets=datasets,
        spectra=spectra,
        speeds=build_speed(read_timing(Path(folder))),
        omissions=omissions(cells),
        provenance=provenance(manifest),
        suite_text=suite_text(manifest),
        command=shlex.join(map(str, manifest.get("command") or ())),
        style=Markup("".join((_HERE / name).read_text(encoding="utf-8") for name in ("report.css", "claim.css"))),
        plotly=Markup(script_source(get_plotlyjs()) if figures or scatters or choices else ""),
        script=Markup(script_source((_HERE / "report.js").read_text(encoding="utf-8"))),
        payload=Markup(script_json({"figures": figures, "scatters": scatters, "choices": choices})),
    )
    return text, {part.name: part.statistics for part in datasets}


def _sections(groups: Sequence[Group], folder: Path) -> tuple[list[DatasetSection], list[SpectrumSection]]:
    """A section per data set and kind, in order of appearance; groups without a good repeat have none."""
    gallery = Gallery(folder, _count_grids(groups))
    by_place: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        if group.ok:
            by_place.setdefault((group.first.kind, group.first.dataset), []).append(group)
    collected = is_collected(groups)
    datasets: list[DatasetSection] = []
    spectra: list[SpectrumSection] = []
    for (kind, name), members in by_place.items():
        for place, part in enumerate(comparable_parts(members) if collected else [Part(members)], start=1):
            key = f"part-{len(datasets) + len(spectra) + 1}"
            title = name if place == 1 else f"{name}, apart {place - 1}"
            reason = f"Not compared with the first section of {name}: {part.reason}." if part.reason else ""
            if kind == "sample":
                own, note = without_mixed_times(part.groups)
                section = build_dataset(key, title, own, gallery)
                section.warnings[:0] = filter(None, (reason, note))
                datasets.append(section)
            else:
                spectrum = build_spectrum(key, title, part.groups, folder)
                spectra.append(replace(spectrum, summary=" ".join(filter(None, (reason, spectrum.summary)))))
    return datasets, spectra


def _count_grids(groups: Sequence[Group]) -> int:
    return sum(bool(group.first.grid) for group in groups if group.ok)
