"""From scored injections to counts: which cell each belongs to, and how many of each host's were found.

The pair (cell, host) is the unit everything else is computed from; cells, marginals and their intervals are sums over
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.columns.completeness import MEMBERS
from lens_assets.science.completeness.grid import Axis, Grid
from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.hashing import sites_of

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
_AGREE = 1e-5
"""A bin may differ from the host's own value only this close to an edge (float32 catalogue values)."""


def members(injections: pl.DataFrame, grid: Grid) -> tuple[pl.DataFrame, Rejections]:
    """Injections with their cell, sorted by cell and id, and the rest counted by reason."""
    for column in ("injection_id", "galaxy_id", "theta_e", "score"):
        if column not in injections.columns:
            raise BadInput("a surface is counted from this column", column=column)
    ids = injections["injection_id"]
    if ids.n_unique() != ids.len():
        raise BadInput("injections repeat", column="injection_id", row=int(ids.is_duplicated().arg_true()[0]))
    i_theta = grid.theta_e.index(_floats(injections, "theta_e"))
    i_psf = _bins(injections, grid.psf, "psfsize_r", "psf_bin")
    i_depth = _bins(injections, grid.depth, "depth_r", "depth_bin")
    score = _floats(injections, "score")
    reasons = [
        ("score is not finite", ~np.isfinite(score)),
        ("theta_E outside the grid", i_theta < 0),
        ("host's PSF outside the grid", i_psf < 0),
        ("host's depth outside the grid", i_depth < 0),
    ]
    keep = np.ones(injections.height, bool)
    rejections = Rejections()
    for reason, wrong in reasons:
        rejections.add(reason, int((keep & wrong).sum()))
        keep &= ~wrong
    optional = {
        "host_type": ("type", pl.String),
        "injection_snr": ("arc_snr", pl.Float64),
        "injection_mag_r": ("lensed_mag_r", pl.Float64),
        "host_psf": ("psfsize_r", pl.Float64),
        "host_depth": ("depth_r", pl.Float64),
        **{f"injection_source_mag_{b}": (f"source_mag_{b}", pl.Float64) for b in "grz"},
        "injection_source_re": ("source_re", pl.Float64),
        "injection_family": ("family", pl.String),
        "injection_clump_fraction": ("clump_fraction", pl.Float64),
        "injection_beta": ("beta", pl.Float64),
        "injection_observable": ("observable", pl.Boolean),
    }
    frame = pl.DataFrame(
        {
            "i_theta": i_theta,
            "i_psf": i_psf,
            "i_depth": i_depth,
            "injection": ids,
            "host": injections["galaxy_id"],
            "injection_score": score,
            **{
                name: injections[source].cast(dtype)
                if source in injections.columns
                else pl.Series([None] * injections.height, dtype=dtype)
                for name, (source, dtype) in optional.items()
            },
        }
    ).filter(pl.Series(keep))
    rejections.check(injections.height, frame.height)
    return MEMBERS.conform(frame), rejections


def _floats(frame: pl.DataFrame, column: str) -> F64:
    return frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy()


def _bins(injections: pl.DataFrame, axis: Axis, value: str, bin_: str) -> I64:
    """Index along an axis: from the host's own value where it is known, checked against the bin where that is given
    too."""
    if value in injections.columns:
        own = _floats(injections, value)
        index = axis.index(own)
        if bin_ in injections.columns:
            given = _given(injections, axis, bin_)
            wrong = (given != index) & np.isfinite(own) & (axis.to_edge(own) > _AGREE)
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise BadInput(
                    f"bin {given[row]} but {value} = {own[row]:.6g} lies in bin {index[row]} of this grid",
                    column=bin_,
                    row=row,
                )
        return index
    if bin_ not in injections.columns:
        raise BadInput(f"needs the host's {value}, or its bin", column=bin_)
    return _given(injections, axis, bin_)


def _given(injections: pl.DataFrame, axis: Axis, bin_: str) -> I64:
    """Bins as given, with every number that is not one of the axis's (below, above, missing) as -1."""
    given = injections[bin_].cast(pl.Int64).fill_null(-1).to_numpy()
    return np.where((given >= 0) & (given < len(axis)), given, -1)


@dataclass(frozen=True)
class Counts:
    """Counts by (cell, host) pair, pairs sorted; ``site`` numbers the brick of the host. ``k`` has shape (points, 5, pairs):
    the cut and its four bounds.

    ``n_gated`` counts the injections the detectability gate was run on; ``n_observable`` and ``k_observable`` are
    among these.
    """

    cell: I64
    host: I64
    site: I64
    n: I64
    k: I64
    n_gated: I64
    n_observable: I64
    k_gated: I64
    k_observable: I64
    mean_score: F64
    mean_snr: F64
    size: int

    @classmethod
    def of(cls, members: pl.DataFrame, grid: Grid, cuts: Sequence[Sequence[float]]) -> Counts:
        """Count ``members`` at each row of ``cuts``."""
        cell_of = grid.flat(*(members[c].to_numpy() for c in ("i_theta", "i_psf", "i_depth")))
        names, host_of = np.unique(members["host"].to_numpy().astype(str), return_inverse=True)
        n_hosts = int(host_of.max()) + 1 if host_of.size else 1
        pair, inverse = np.unique(cell_of * n_hosts + host_of, return_inverse=True)
        score = members["injection_score"].to_numpy()
        seen = members["injection_observable"]
        gated, visible = seen.is_not_null().to_numpy(), seen.fill_null(False).to_numpy()

        def count(mask: npt.NDArray[np.bool_]) -> I64:
            return np.bincount(inverse, mask, pair.size).astype(np.int64)

        k = np.array([[count(score >= c) for c in row] for row in cuts], np.int64).reshape(len(cuts), 5, pair.size)
        snr = members["injection_snr"].fill_null(np.nan).to_numpy()
        return cls(
            cell=pair // n_hosts,
            host=pair % n_hosts,
            site=sites_of(names)[pair % n_hosts] if names.size else np.zeros(0, np.int64),
            n=np.bincount(inverse, minlength=pair.size).astype(np.int64),
            k=k,
            n_gated=count(gated),
            n_observable=count(visible),
            k_gated=np.array([count((score >= row[0]) & gated) for row in cuts], np.int64).reshape(
                len(cuts), pair.size
            ),
            k_observable=np.array([count((score >= row[0]) & visible) for row in cuts], np.int64).reshape(
                len(cuts), pair.size
            ),
            mean_score=_means(cell_of, score, grid.size),
            mean_snr=_means(cell_of, snr, grid.size),
            size=grid.size,
        )

    def per_cell_n(self) -> I64:
        """Injections in each cell."""
        return np.bincount(self.cell, self.n, self.size).astype(np.int64)

    def per_cell_k(self) -> I64:
        """(points, 5, cells): found in each cell."""
        flat = self.k.reshape(-1, self.k.shape[-1])
        out = np.array([np.bincount(self.cell, row, self.size) for row in flat], np.int64)
        return out.reshape(*self.k.shape[:2], self.size)


def _means(cell: I64, value: F64, size: int) -> F64:
    """Mean of the finite values in each cell; ``nan`` where there is none. Sums run in row order, which is fixed."""
    ok = np.isfinite(value)
    n = np.bincount(cell[ok], minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.bincount(cell[ok], value[ok], size) / n)
