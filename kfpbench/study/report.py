"""study.html: one offline file with the front, the volume over trials, importances, slices and all trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kfpbench.report.html as run_report
from kfpbench.report.embed import packed, plotly_source, script_json
from kfpbench.report.load_notes import MARK
from kfpbench.report.numbers import format_seconds
from kfpbench.report.provenance import provenance, suite_text
from kfpbench.store.atomic import write_bytes
from kfpbench.store.run_folder import RunFolder
from kfpbench.study.figures import front_figures, history_figure, importance_figure, slice_panels
from kfpbench.study.folder import REPORT
from kfpbench.study.opened import Opened
from kfpbench.study.results import LEAST_RESULTS, Row, best_rows, front_of, importances, rows_of, stage_counts
from kfpbench.study.views import number_text, short_names
from kfpbench.suite.cell_name import compact

_HERE = Path(__file__).parent
_RUN_REPORT = Path(run_report.__file__).parent


def write_study_report(opened: Opened) -> Path:
    """Write study.html into the study's folder, and return its path.

    It needs the storage alone: the cells of workers on other machines need not be there.
    """
    opened.folder.mkdir(parents=True, exist_ok=True)
    path = opened.folder / REPORT
    write_bytes(path, render_study(opened).encode())
    return path


def render_study(opened: Opened) -> str:
    """The report as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    definition, study = opened.definition, opened.study
    rows = rows_of(study, definition)
    front = front_of(study, definition)
    found = importances(study, definition)
    figures = front_figures(rows, front, definition.objectives) if front else {}
    pairs = [{"key": key, "caption": _pair_caption(figure)} for key, figure in figures.items()]
    history = history_figure(rows, definition.objectives)
    if history is not None:
        figures["history"] = history
    ordered = sorted(
        definition.space.parameters, key=lambda path: -max((one[path] for one in found.values()), default=0)
    )
    if found:
        figures["importance-bars"] = importance_figure(found, ordered)
    panels = slice_panels(rows, definition)
    drawn = len(panels[0])
    large = {"functions": script_json({"slices": panels})} if drawn else {}
    if figures or drawn:
        large["plotly"] = plotly_source()
    environment = Environment(
        loader=FileSystemLoader([_HERE, _RUN_REPORT]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    manifest = RunFolder.open(opened.folder).read_manifest() if RunFolder.is_run(opened.folder) else {}
    names = short_names(ordered)
    return environment.get_template("study.html.j2").render(
        head=_head(opened, rows, front, manifest),
        notes=_notes(opened, rows),
        objectives=[
            f"{one.metric} ({'lower' if one.sign > 0 else 'higher'} is better)" for one in definition.objectives
        ],
        parameters=[{"path": path, "name": names[path]} for path in ordered],
        front=[_table_row(row, ordered, opened) for row in front],
        best=_best_lines(opened),
        pairs=pairs,
        history=None if history is None else {"key": "history", "caption": _history_caption(opened)},
        least_results=LEAST_RESULTS,
        importance={"key": "importance-bars", "rows": _importance_rows(found, ordered)} if found else None,
        slices=drawn,
        stages=_stage_text(opened, rows),
        trials=[_table_row(row, ordered, opened) for row in rows],
        provenance=[("storage", opened.place.shown), *provenance(manifest)],
        suite_text=suite_text(manifest),
        style=Markup((_RUN_REPORT / "report.css").read_text(encoding="utf-8")),
        script=Markup(run_report.page_script()),
        payload=Markup(script_json({"figures": figures, "scatters": {}, "ablations": {}})),
        packed={name: Markup(packed(text)) for name, text in large.items()},
    )


def _head(opened: Opened, rows: Sequence[Row], front: Sequence[Row], manifest: Mapping[str, Any]) -> dict[str, Any]:
    definition = opened.definition
    counts = Counter(row.what for row in rows)
    budget = definition.trials
    facts = {
        "tuned": f"{definition.field}.{definition.label}",
        "on the front": str(len(front)),
        "asked for": "" if budget is None else f"{budget} trials",
        "sampler": definition.block.sampler.name,
        "images per cell": f"{definition.n_samples:,}" if definition.field == "samplers" else "",
        "constraints": ", ".join(one.name for one in definition.constraints),
        "workers": str(len({row.worker for row in rows if row.worker})),
        "time of all trials": format_seconds(sum(row.seconds for row in rows if row.seconds == row.seconds)),
    }
    version = manifest.get("environment", {}).get("kfpbench", "")
    return {
        "title": definition.name,
        "description": str(opened.suite.model.description).strip(),
        "counts": dict(counts),
        "facts": {name: text for name, text in facts.items() if text},
        "version": version if isinstance(version, str) else "",
    }


def _notes(opened: Opened, rows: Sequence[Row]) -> list[str]:
    """What bears on every number."""
    notes = []
    disturbed = [str(row.number) for row in rows if row.under_load]
    if disturbed:
        notes.append(
            f"The times of {len(disturbed)} of {len(rows)} trials were taken while other programs, or other workers of "
            f"this study, had much of the machine, and may be too long: trials {', '.join(disturbed)}. `nfe` is an "
            "objective that no load changes; `kfpbench time` measures an exported front again."
        )
    data = opened.definition.document.get("data")
    if opened.definition.field == "samplers" and isinstance(data, dict) and data.get("reference", "test") == "test":
        notes.append(
            "Tuned against the test split: these numbers are no fair estimate, and there is no untouched split left. "
            "Use data.reference: validation."
        )
    return notes


def _best_lines(opened: Opened) -> list[str]:
    lines = []
    for name, row in best_rows(opened.study, opened.definition).items():
        values = ", ".join(f"{one.metric} {number_text(row, k)}" for k, one in enumerate(opened.definition.objectives))
        what = "Compromise, nearest to the best of all objectives" if name == "compromise" else f"Best {name}"
        lines.append(f"{what}: trial {row.number} ({values})")
    return lines


def _stage_text(opened: Opened, rows: Sequence[Row]) -> str:
    reached = stage_counts(opened.study, opened.definition)
    if not reached:
        return ""
    stopped = Counter(row.stage for row in rows if row.what == "stopped")
    parts = [f"{count} came to {stage} images, {stopped[stage]} stopped there" for stage, count in reached.items()]
    return (
        "; ".join(parts)
        + ". A trial stops where another one at the same number of images is better in every objective, "
        "whatever the values in the intervals; its numbers are those of that stage and are not compared with others."
    )


def _table_row(row: Row, paths: Sequence[str], opened: Opened) -> dict[str, Any]:
    values = [
        {
            "text": number_text(row, k),
            "sort": "" if row.values is None else repr(row.values[k]),
            "mark": MARK if one.metric in row.under_load else "",
        }
        for k, one in enumerate(opened.definition.objectives)
    ]
    params = []
    for path in paths:
        value = row.settings.get(path)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        params.append({"text": compact(value) if path in row.params else "", "sort": repr(value) if number else ""})
    seconds = {"text": format_seconds(row.seconds) if row.seconds == row.seconds else "", "sort": repr(row.seconds)}
    return {**row.as_plain(), "numbers": values, "params": params, "seconds": seconds}


def _importance_rows(found: Mapping[str, Mapping[str, float]], paths: Sequence[str]) -> list[dict[str, Any]]:
    return [{"path": path, "shares": [f"{100 * one[path]:.0f} %" for one in found.values()]} for path in paths]


def _pair_caption(figure: Mapping[str, Any]) -> str:
    layout = figure["layout"]
    bars = any("error_y" in trace for trace in figure["data"])
    return f"{layout['yaxis']['title']['text']} against {layout['xaxis']['title']['text']}." + (
        " Bars: 95 % intervals of the trials on the front." if bars else ""
    )


def _history_caption(opened: Opened) -> str:
    if len(opened.definition.objectives) == 1:
        return "What has been gained of the range between the worst and the best result."
    times = any(one.is_time for one in opened.definition.objectives)
    return (
        "Share of the box between the best values and the reference point that the trials dominate so far"
        + (", times on a logarithmic scale" if times else "")
        + ". Reference point: the worst values, a tenth of the range further."
    )
