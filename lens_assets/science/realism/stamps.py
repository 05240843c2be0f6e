"""A set of stamps with what is known of each: the only input type of the realism room.

Rows are kept in the order of their ``id`` so that nothing downstream can depend on the order in which they arrived.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.errors import BadInput

F32 = npt.NDArray[np.float32]

REQUIRED = ("galaxy_id", "psfsize_g", "psfsize_r", "psfsize_z", "depth_r")


@dataclass(frozen=True)
class StampSet:
    """Stamps, sorted by ``id``.

    images : (n, 3, h, w) float32, nanomaggies per pixel, bands g, r, z.
    invvar : the same shape, 1/nmgy^2; a pixel is valid where it is positive and finite.
    frame  : n rows with ``galaxy_id`` (for an injection: its host), ``psfsize_{g,r,z}`` (arcsec FWHM) and ``depth_r``
             (5-sigma point-source AB mag). Optional: ``id`` (unique; default ``galaxy_id``), ``group`` (what may not be
             shared between folds; default ``galaxy_id``), ``tier``, ``observable``.
    features : (n, d) float, penultimate features of the frozen detector, or None.

    Use :meth:`of`, which checks, completes and sorts.
    """

    images: F32
    invvar: F32
    frame: pl.DataFrame
    features: npt.NDArray[np.float64] | None = None

    @classmethod
    def of(
        cls,
        images: npt.ArrayLike,
        invvar: npt.ArrayLike,
        frame: pl.DataFrame,
        features: npt.ArrayLike | None = None,
        *,
        what: str = "stamps",
    ) -> StampSet:
        """Check shapes, columns and finiteness, add ``id`` and ``group`` where absent, sort by ``id``."""
        im, iv = np.asarray(images, np.float32), np.asarray(invvar, np.float32)
        if im.ndim != 4 or im.shape[1] != 3 or im.shape != iv.shape:
            raise BadInput(f"{what}: images {im.shape} and invvar {iv.shape} must both be (n, 3, h, w)")
        if frame.height != len(im):
            raise BadInput(f"{what}: {len(im)} images but {frame.height} rows")
        for name in REQUIRED:
            if name not in frame.columns:
                raise BadInput(f"{what}: this column is needed", column=name)
        if "id" not in frame.columns:
            frame = frame.with_columns(pl.col("galaxy_id").alias("id"))
        if "group" not in frame.columns:
            frame = frame.with_columns(pl.col("galaxy_id").alias("group"))
        for name in ("id", "group", "galaxy_id"):
            if frame[name].null_count():
                raise BadInput(f"{what}: a null", column=name, row=int(frame[name].is_null().arg_true()[0]))
        if frame["id"].n_unique() != frame.height:
            raise BadInput(f"{what}: ids repeat", column="id", row=int(frame["id"].is_duplicated().arg_true()[0]))
        bad = ~np.isfinite(np.where(iv > 0, im, 0)).reshape(len(im), -1).all(axis=1)
        if bad.any():
            raise BadInput(f"{what}: a valid pixel is not finite", column="images", row=int(np.flatnonzero(bad)[0]))
        ft = None
        if features is not None:
            ft = np.asarray(features, np.float64)
            if ft.ndim != 2 or len(ft) != len(im):
                raise BadInput(f"{what}: features {ft.shape} for {len(im)} stamps")
            if not np.isfinite(ft).all():
                raise BadInput(
                    f"{what}: a feature is not finite",
                    column="features",
                    row=int(np.flatnonzero(~np.isfinite(ft).all(axis=1))[0]),
                )
        order = frame["id"].cast(pl.String).arg_sort().to_numpy()
        return cls(im, iv, frame, ft).take(order)

    def __len__(self) -> int:
        return self.frame.height

    def take(self, rows: npt.ArrayLike) -> StampSet:
        """The chosen rows, in the order given."""
        i = np.asarray(rows)
        i = np.flatnonzero(i) if i.dtype == bool else i.astype(np.int64)
        same = len(i) == len(self) and bool((i == np.arange(len(self))).all())
        if same:
            return self
        return StampSet(
            self.images[i], self.invvar[i], self.frame[i], None if self.features is None else self.features[i]
        )

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """A numeric column as float64, null as nan."""
        return self.frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float64)

    def strings(self, name: str) -> npt.NDArray[np.str_]:
        """A column as strings."""
        return np.asarray(self.frame[name].cast(pl.String).to_list(), dtype=str)

    def has(self, names: Iterable[str]) -> bool:
        """Whether the frame carries all of these columns."""
        return set(names) <= set(self.frame.columns)
