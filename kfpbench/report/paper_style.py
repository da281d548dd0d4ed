"""How figures for papers look: width of a column, fonts embedded, the report's colours and markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kfpbench.errors import CapabilityError
from kfpbench.report.naming import Family

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, TEXT = 3.25, 6.75  # inches: one column, and the whole width, of the common two-column styles
GREY = "#888888"
MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
    "cross": "P",
    "x": "X",
    "star": "*",
}
_STYLE: Any = {  # the stubs name every key, those of older versions none
    "pdf.fonttype": 42,  # TrueType, embedded: Type 3 fonts are refused by many publishers
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that a figure is the same everywhere
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "legend.handletextpad": 0.3,
    "legend.columnspacing": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7ea",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 4.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.formatter.use_mathtext": True,
}


def styled() -> Any:
    """A context in which figures are made and saved. Raises CapabilityError without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise CapabilityError("figures for papers need matplotlib", remedy="pip install 'kfpbench[figures]'") from error
    return mpl.rc_context(_STYLE)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, whose parts find their own room."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def literal(text: str) -> str:
    """Text that matplotlib shows as it is: it reads mathematics between dollars."""
    return text.replace("\\", "\\\\").replace("$", r"\$") if "$" in text else text


def shortened(text: str, most: int = 34) -> str:
    """The text, cut where it is too long for a legend or a tick."""
    return literal(text if len(text) <= most else text[: most - 1].rstrip(" ,/(") + "…")


def legend_below(figure: Figure, families: Sequence[Family], columns: int) -> None:
    """One entry per family, colour and marker, under the panels."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker=MARKERS[one.symbol], color=one.colour, label=shortened(one.name))
        for one in families
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)))


def place_labels(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Writes each label beside its point, in the first of eight places where it covers nothing; else leaves it out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    canvas = FigureCanvasAgg(axes.figure)  # type: ignore[arg-type]
    canvas.draw()  # the layout, and with it the places of points, is known after this
    renderer = canvas.get_renderer()
    inside = axes.get_window_extent(renderer)
    taken = []
    for x, y, _ in points:
        px, py = axes.transData.transform((x, y))
        taken.append(Bbox.from_bounds(px - 4, py - 4, 8, 8))
    for x, y, text in points:
        for dx, dy, across, along in _AROUND:
            label = axes.annotate(
                text, (x, y), (dx, dy), textcoords="offset points", ha=across, va=along, fontsize=6, zorder=5
            )
            label.set_in_layout(False)
            extent = label.get_window_extent(renderer)
            free = not any(extent.overlaps(other) for other in taken)
            if free and inside.contains(extent.x0, extent.y0) and inside.contains(extent.x1, extent.y1):
                taken.append(extent)
                break
            label.remove()


_AROUND = (
    # beside the bars of an interval first, which are upright and level
    (4, 3, "left", "bottom"),
    (4, -3, "left", "top"),
    (-4, 3, "right", "bottom"),
    (-4, -3, "right", "top"),
    (5, 0, "left", "center"),
    (-5, 0, "right", "center"),
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
)


def figure_bytes(figure: Figure, form: str) -> bytes:
    """The figure as a file of that form, one of pdf, svg and png; the same bytes for the same figure."""
    import io

    buffer = io.BytesIO()
    # without the time of writing, so that the same numbers give the same file
    stamps: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
    figure.savefig(
        buffer, format=form, dpi=300, metadata={**stamps[form], "Creator" if form != "png" else "Software": "kfpbench"}
    )
    return buffer.getvalue()
