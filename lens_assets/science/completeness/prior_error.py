r"""The error of fitted priors in a surface: its own injections, weighted to every draw of the fit, counted again.

A set fitted to held-out lenses has an error, and the fit keeps draws of it (``calibration.bootstrap``). Under each draw an
injection weighs what :mod:`~lens_assets.science.completeness.density` says; completeness under the draw is the weighted share
of the found, in every cell by its own weights (sum w found / sum w), in a marginal with the cells weighted as for the marginal
itself. Nothing is rendered or scored again, and a draw equal to the fit gives the plain counts.

``prior_*``   quantiles of that over the draws: the completeness the surface would state, had the fit come out otherwise. They
              hold the error of the fit alone (and the noise of reweighting few injections, which makes them wider, never
              narrower). What the lenses leave to the base set (``base_share``) does not move, and is not in it.
``full_*``    ``total_*`` and that together. Lenses that are fitted, hosts that are injected and negatives that set a threshold
              are other objects, so the errors are independent and added in quadrature on the scale arcsin sqrt C, each side
              by itself, as the threshold's is (``combine``). Where none or all were found, weights cannot tell a shift: there
              ``prior_*`` is null, and ``full_*`` is the interval with n_eff times the share of it that is left under the draws.

**Refused draws.** A draw that leaves fewer than ``prior_min_effective`` effective injections (Kish: (sum w)^2 / sum w^2) in a row
says nothing there. It is not left out, or the interval would be narrower for what is not known: it counts as beyond either
end. The bound is the quantile that remains, and null where more draws are refused than lie beyond it.

What does not belong here: densities, where draws come from, and the error of the base set itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.calibration.model import NAMES, prior_of
from lens_assets.science.columns.calibration import CALIBRATION_DRAWS
from lens_assets.science.completeness.density import latents_of, log_ratio
from lens_assets.science.completeness.recount import Weights
from lens_assets.science.errors import BadInput
from lens_assets.science.injections.priors import PriorSet


@dataclass(frozen=True)
class PriorDraws:
    """What a surface's injections were ``drawn`` from, and draws of the error of that fit (table ``calibration_draws``).

    ``mixture``: whether the variant draws the source family; ``colours``: how it draws colours.
    """

    drawn: PriorSet
    table: pl.DataFrame
    mixture: bool
    colours: str

    @classmethod
    def of(cls, drawn: PriorSet, draws: pl.DataFrame, *, mixture: bool, colours: str) -> PriorDraws:
        """From the draws a calibration keeps: of parameters and nuisances, of which the latter play no part here."""
        return cls(drawn, CALIBRATION_DRAWS.conform(draws.filter(pl.col("parameter").is_in(NAMES))), mixture, colours)

    @property
    def n(self) -> int:
        """How many draws there are."""
        return self.table["draw"].n_unique()

    def check(self, injections: pl.DataFrame) -> None:
        """Raise :class:`BadInput` where the injections say that they were drawn from another set (``prior_digest``)."""
        if "prior_digest" in injections.columns:
            others = injections.filter(pl.col("prior_digest") != self.drawn.digest)
            if others.height:
                raise BadInput(
                    f"{others.height} injections were drawn from other priors than the fit", column="prior_digest"
                )

    def sets(self) -> list[PriorSet]:
        """The prior set of every draw. Raises :class:`BadInput` for a draw that lacks a parameter."""
        wide = self.table.pivot(on="parameter", index="draw", values="drawn_value").sort("draw")
        missing = [name for name in NAMES if name not in wide.columns or wide[name].null_count()]
        if missing:
            raise BadInput(f"draws without {', '.join(missing)}", column="parameter")
        return [
            prior_of(row, self.drawn, "draw", "a draw of the fit") for row in wide.select(NAMES).iter_rows(named=True)
        ]

    def weights(self, members: pl.DataFrame) -> Weights:
        """Weights of the ``members`` of a surface (``completeness_members``) under every draw."""
        x, sets = latents_of(members), self.sets()
        w, beyond = np.empty((len(sets), members.height), np.float32), np.empty(len(sets))
        for d, wanted in enumerate(sets):
            log, beyond[d] = log_ratio(x, wanted, self.drawn, mixture=self.mixture, colours=self.colours)
            w[d] = np.exp(log)
        return Weights(w, beyond)

    def header(self) -> dict[str, Any]:
        """As JSON, without the draws."""
        drawn = self.drawn.model_dump(mode="json", exclude_defaults=True)  # JSON has no infinity
        return {"drawn": drawn, "mixture": self.mixture, "colours": self.colours, "draws": self.n}

    @classmethod
    def read(cls, header: Mapping[str, Any], table: pl.DataFrame) -> PriorDraws:
        """What :meth:`header` and the table say."""
        return cls(PriorSet.model_validate(header["drawn"]), table, bool(header["mixture"]), str(header["colours"]))
