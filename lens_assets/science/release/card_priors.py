"""What the model card says of the error of fitted priors."""

from __future__ import annotations

import numpy as np
import polars as pl

from lens_assets.science.completeness.model import Surface


def prior_error(surface: Surface, point: str) -> list[str]:
    """What the error of the fitted priors adds at an operating point; nothing for priors without a fit."""
    if surface.prior is None:
        return []
    cells = surface.cells.filter((pl.col("operating_point") == point) & (pl.col("support") == "supported"))
    every = surface.marginals.filter((pl.col("operating_point") == point) & (pl.col("axis") == "all"))
    whole = every.row(0, named=True)

    def half(kind: str, level: int) -> str:
        """Median over the cells that have such a bound, the same for all kinds."""
        known = cells.filter(pl.col(f"full_lo{level}").is_not_null() & pl.col(f"prior_lo{level}").is_not_null())
        widths = ((known[f"{kind}_hi{level}"] - known[f"{kind}_lo{level}"]) / 2).to_numpy()
        return f"{np.median(widths):.3f}" if widths.size else "not known"

    out = [
        "",
        "## Error of the fitted priors",
        "",
        f"The priors: {surface.prior.drawn.reference}. The surface was counted again with its injections weighted to "
        f"{surface.prior.n} draws",
        "of the error of that fit (`prior_draws.parquet`). `prior_*` is what the completeness would have been, `full_*` the",
        "published interval with that error. Not in it: what the lenses leave to the base set, what is not fitted, and a family",
        "of priors that is wrong.",
        "",
        "| supported cells with it | median half-width, published | error of the fit | together |",
        "|---|---|---|---|",
    ]
    for level in (68, 95):
        known = cells.height - cells[f"full_lo{level}"].null_count()
        widths = " | ".join(half(kind, level) for kind in ("total", "prior", "full"))
        out.append(f"| {known} of {cells.height}, {level} % | {widths} |")
    if whole["prior_effective"] is not None:
        out += [
            "",
            f"Of all {whole['n_injections']:,} injections {whole['prior_effective']:,.0f} are effective under a draw (median); "
            f"{whole['prior_refused']:.0%} of the draws are refused for",
            f"them; {whole['prior_beyond']:.0%} of a draw's lenses (mean) lie beyond the largest offset that was injected.",
        ]
    return out
