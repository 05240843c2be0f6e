"""Figures of a surface. Each carries the realism verdict in its title, and shows what is not known as not known.

``surface_map``     completeness and its 68 % half-widths in every cell, one panel a depth; insufficient cells are
hatched over
                    their raw value, empty ones are crossed out.
``against_theta_e`` completeness against theta_E with 68 % and 95 % bands: per depth, or weighted by the survey.
``two_factor``      observable fraction, conditional completeness and their joint result against theta_E.

They are drawn on Figure objects without pyplot, so that no global state is read or left, and saved without date or
version, so that the same surface gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.model import Surface
from lens_assets.science.completeness.stratified import fraction

_STYLE: Any = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11, "figure.dpi": 100,
    "axes.titlelocation": "left", "svg.hashsalt": "lens-assets",
}  # fmt: skip
_MAP = "cividis"
_STOP, _FINE, _INK = "#b3261e", "#1b6e3a", "#222222"
_DEPTHS = ("#c9a400", "#7fa650", "#3b8f83", "#2f6690", "#3d348b", "#7b2d8b", "#222222")


def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG without date or software version in it."""
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})


def surface_map(surface: Surface, point: str = "default") -> Figure:
    """One panel a depth; theta_E across, PSF upwards."""
    p = surface.point(point)
    grid = surface.grid
    cells = surface.cells.filter(pl.col("operating_point") == p.name)
    value, lo, hi = (_cube(cells, name, grid) for name in ("completeness", "total_lo68", "total_hi68"))
    n = _cube(cells, "n_injections", grid)
    support = cells["support"].to_numpy().reshape(grid.shape)
    columns = min(3, len(grid.depth) + 1)
    rows = -(-(len(grid.depth) + 1) // columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.6 * columns, 3.75 * rows + 0.9), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        top = float(np.nanmax(np.where(support == "supported", value, np.nan), initial=0.05))
        norm = Normalize(0, min(1.0, max(0.05, np.ceil(top * 10) / 10)))
        for d, ax in enumerate(axes[: len(grid.depth)]):
            _panel(ax, grid, value[:, :, d], lo[:, :, d], hi[:, :, d], n[:, :, d], support[:, :, d], norm)
            ax.set_title(f"depth r = {grid.depth.centres[d]:g} ± {grid.depth.half:g} mag")
        for ax in axes[len(grid.depth) :]:
            ax.set_axis_off()
        _map_legend(axes[len(grid.depth)], surface, p.name, support)
        bar = figure.colorbar(
            matplotlib.cm.ScalarMappable(norm, matplotlib.colormaps[_MAP]), ax=axes.tolist(), shrink=0.7, pad=0.01
        )
        bar.set_label("completeness")
        _head(figure, surface, f"Completeness at operating point {p.name}")
    return figure


def against_theta_e(surface: Surface, survey: pl.DataFrame | None = None, point: str = "default") -> Figure:
    """Completeness against theta_E: left per depth (injections pooled over PSF), right weighted by the survey, or
    pooled.

    ``survey`` is the result of :func:`marginals.survey_weighted`.
    """
    p = surface.point(point)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(12.5, 5.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for d, (c, lo, hi, n) in enumerate(_per_depth(surface, p.cut)):
            ok = n >= surface.settings.min_per_cell
            if ok.any():
                x = np.asarray(surface.grid.theta_e.centres)
                colour = _DEPTHS[d % len(_DEPTHS)]
                left.fill_between(x, lo, hi, where=ok.tolist(), color=colour, alpha=0.22, lw=0)
                left.plot(x, np.where(ok, c, np.nan), color=colour, marker="o", ms=3.5, lw=1.4,
                          label=f"{surface.grid.depth.centres[d]:g}")  # fmt: skip
        if left.lines:
            left.legend(title="r depth [mag]", frameon=False, loc="upper left")
        else:
            left.text(0.5, 0.5, "no supported depth", transform=left.transAxes, ha="center", color="#777777")
        left.set_title("by depth: injections pooled over PSF, 68 % bands")
        left.set_ylabel("completeness")
        frame = surface.marginals.filter(pl.col("axis") == "theta_e") if survey is None else survey
        _bands(right, frame.filter(pl.col("operating_point") == p.name).sort("i_axis"))
        right.set_title(
            "weighted by the survey's conditions" if survey is not None else "all injections pooled (not a survey)"
        )
        right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=3, fontsize="small")
        for ax in (left, right):
            ax.set_xlabel(r"Einstein radius $\theta_E$ [arcsec]")
            ax.set_ylim(0, None)
            ax.grid(alpha=0.25, lw=0.6)
        left.set_ylim(0, min(1.02, max(left.get_ylim()[1], right.get_ylim()[1])))
        _head(figure, surface, f"Completeness against Einstein radius at {p.name}")
    return figure


def two_factor(surface: Surface, point: str = "default") -> Figure | None:
    """Both factors against theta_E with 68 % bands, injections pooled; ``None`` where the gate was not run."""
    p = surface.point(point)
    gated = surface.members.filter(pl.col("injection_observable").is_not_null())
    if not gated.height:
        return None
    found = pl.col("injection_score") >= p.cut
    seen = pl.col("injection_observable")
    x = np.asarray(surface.grid.theta_e.centres)
    curves = [
        ("observable in the data", "#2f6690", seen, pl.lit(True)),
        ("found, if observable", "#c9a400", found & seen, seen),
        ("found (completeness)", _INK, found, pl.lit(True)),
        ("found though not observable", _STOP, found & ~seen, pl.lit(True)),
    ]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.2, 5.2), layout="constrained")
        ax = figure.subplots()
        for label, colour, hit, among in curves:
            c, lo, hi, _ = _pooled(gated.filter(among), hit, surface.grid)
            ax.fill_between(x, lo, hi, color=colour, alpha=0.2, lw=0)
            ax.plot(x, c, color=colour, marker="o", ms=3.5, lw=1.5, ls=":" if "though" in label else "-", label=label)
        ax.set_xlabel(r"Einstein radius $\theta_E$ [arcsec]")
        ax.set_ylabel("fraction of injections")
        ax.set_ylim(0, 1.02)
        ax.grid(alpha=0.25, lw=0.6)
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        _head(figure, surface, f"Two factors of the recall at {p.name}")
    return figure


def _head(figure: Figure, surface: Surface, what: str) -> None:
    made = ", ".join(str(surface.meta[k]) for k in ("detector", "variant") if surface.meta.get(k))
    height = float(figure.get_size_inches()[1])
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, 0, 1, 1 - 0.72 / height))  # type: ignore[call-arg]
    figure.text(0.01, 1 - 0.12 / height, what + (f"  ({made})" if made else ""), ha="left", va="top", fontsize=13)
    figure.text(
        0.01, 1 - 0.42 / height, surface.verdict.title, ha="left", va="top", fontsize=11, weight="bold",
        color=_FINE if surface.verdict.go else _STOP,
    )  # fmt: skip


def _cube(cells: pl.DataFrame, name: str, grid: Grid) -> Any:
    return cells[name].cast(pl.Float64).fill_null(np.nan).to_numpy().reshape(grid.shape)


def _panel(ax: Axes, grid: Grid, value: Any, lo: Any, hi: Any, n: Any, support: Any, norm: Normalize) -> None:
    t, p = grid.theta_e, grid.psf
    colours = matplotlib.colormaps[_MAP]
    for i in range(len(t)):
        for j in range(len(p)):
            corner = (t.edges[i], p.edges[j])
            wide, high = 2 * t.half, 2 * p.half
            if support[i, j] == "empty":
                ax.add_patch(Rectangle(corner, wide, high, fc="#f2f2f2", ec="#d9d9d9", lw=0.5))
                ax.plot(
                    [corner[0], corner[0] + 2 * t.half], [corner[1], corner[1] + 2 * p.half], color="#d0d0d0", lw=0.6
                )
                continue
            if support[i, j] == "insufficient":
                ax.add_patch(Rectangle(corner, wide, high, fc="white", ec="#bdbdbd", hatch="////", lw=0.5))
                ink, box = "#555555", {"boxstyle": "square,pad=0.12", "fc": "white", "ec": "none"}
            else:
                ax.add_patch(Rectangle(corner, wide, high, fc=colours(norm(value[i, j])), ec="white", lw=0.5))
                ink, box = ("white" if norm(value[i, j]) < 0.5 else "black"), None
            ax.text(t.centres[i], p.centres[j] + 0.28 * p.half, f"{100 * value[i, j]:.0f}", color=ink, ha="center",
                    va="center", fontsize=8.5, bbox=box)  # fmt: skip
            small = f"n={n[i, j]:.0f}" if support[i, j] == "insufficient" else (
                f"+{100 * (hi[i, j] - value[i, j]):.0f}\u2212{100 * (value[i, j] - lo[i, j]):.0f}")  # fmt: skip
            ax.text(t.centres[i], p.centres[j] - 0.42 * p.half, small, color=ink, ha="center", va="center", fontsize=6,
                    bbox=box)  # fmt: skip
    ax.set_xlim(t.edges[0], t.edges[-1])
    ax.set_ylim(p.edges[0], p.edges[-1])
    ax.set_xticks(t.centres[:: max(1, len(t) // 6)])
    ax.set_yticks(p.centres)
    ax.set_xlabel(r"$\theta_E$ [arcsec]")
    ax.set_ylabel("PSF FWHM r [arcsec]")
    ax.tick_params(length=2)


def _map_legend(ax: Axes, surface: Surface, point: str, support: Any) -> None:
    count = {s: int((support == s).sum()) for s in ("supported", "insufficient", "empty")}
    p = surface.point(point)
    ax.legend(
        handles=[
            Patch(fc=matplotlib.colormaps[_MAP](0.6), label=f"supported: {count['supported']} cells"),
            Patch(fc="white", ec="#bdbdbd", hatch="////",
                  label=f"insufficient (n < {surface.settings.min_per_cell}): {count['insufficient']}"),
            Patch(fc="#f2f2f2", ec="#d9d9d9", label=f"empty: {count['empty']}"),
        ],
        loc="upper left", frameon=False, title="cells", alignment="left",
    )  # fmt: skip
    rate = "" if p.fpr_target is None else f", set at a false-positive rate of {p.fpr_target:g}"
    error = " and for the error of the threshold" if p.has_error else ""
    lines = [
        "In each cell: completeness in per cent, and below it",
        "the distances to its 68 % bounds. The bounds allow for",
        f"hosts being reused{error}.",
        "",
        f"{surface.meta['injections_used']:,} injections, {surface.members['host'].n_unique():,} hosts",
        f"found: score ≥ {p.cut:.4g}{rate}",
    ]
    ax.text(0.03, 0.46, "\n".join(lines), transform=ax.transAxes, va="top", fontsize=9.5, color=_INK)


def _bands(ax: Axes, frame: pl.DataFrame) -> None:
    x = frame["axis_centre"].to_numpy()
    y = {
        c: frame[c].fill_null(np.nan).to_numpy()
        for c in ("completeness", "total_lo68", "total_hi68", "total_lo95", "total_hi95")
    }
    ax.fill_between(x, y["total_lo95"], y["total_hi95"], color="#2f6690", alpha=0.15, lw=0, label="95 %")
    ax.fill_between(x, y["total_lo68"], y["total_hi68"], color="#2f6690", alpha=0.35, lw=0, label="68 %")
    if frame["full_lo68"].null_count() < frame.height:
        for bound, style, label in (
            ("lo68", "-", "with the error of the fitted priors"), ("hi68", "-", None), ("lo95", ":", None), ("hi95", ":", None)
        ):  # fmt: skip
            ax.plot(
                x, frame[f"full_{bound}"].fill_null(np.nan).to_numpy(), color="#2f6690", lw=1, ls=style, label=label
            )
    ax.plot(x, y["completeness"], color=_INK, marker="o", ms=3.5, lw=1.5, label="completeness")
    if "bound_lo" in frame.columns:
        share = float(frame["share_supported"].min() or 0.0)  # type: ignore[arg-type]
        if share < 0.9995:
            lost = f"if the unsupported {100 * (1 - share):.0f} % were all lost / all found"
            ax.plot(x, frame["bound_lo"].to_numpy(), color=_STOP, lw=1, ls="--", label=lost)
            ax.plot(x, frame["bound_hi"].to_numpy(), color=_STOP, lw=1, ls="--")


def _pooled(members: pl.DataFrame, hit: pl.Expr, grid: Grid) -> tuple[Any, Any, Any, Any]:
    part = fraction(members, hit, "i_theta", len(grid.theta_e))
    return part.c, part.intervals[0.68].lo, part.intervals[0.68].hi, part.n


def _per_depth(surface: Surface, cut: float) -> list[tuple[Any, Any, Any, Any]]:
    members = surface.members
    return [
        _pooled(members.filter(pl.col("i_depth") == d), pl.col("injection_score") >= cut, surface.grid)
        for d in range(len(surface.grid.depth))
    ]
