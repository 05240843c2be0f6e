"""The cuts of a pool made while a sweep file goes by, where they are simple enough for that.

A profile whose cuts compare columns of the file with constants (all that are shipped) is judged row by row in the one compiled pass
(``surveys.passing``); what that leaves to do is to measure the few rows near a known lens, to judge the odd rows, and to count.
Everything is defined elsewhere: a cut by ``selection.filters``, nearness by ``exclusion``, and other cuts, or a file with copies of
rows, go the way of tables. Both ways give the same bytes (``test_negatives_from_file``).
"""

from __future__ import annotations

import re

import numpy as np
import polars as pl

from lens_assets.science.negatives.attrition import Screened, tallied
from lens_assets.science.negatives.categories import NEIGHBOUR, neighbours_of
from lens_assets.science.negatives.exclusion import near_known
from lens_assets.science.negatives.rows import Beside
from lens_assets.science.negatives.selection import SelectionProfile, filters, flux_of, maskbits_value, passes
from lens_assets.science.negatives.settings import Settings
from lens_assets.science.negatives.strata import NOBS_OPEN
from lens_assets.science.sieve import Sieve
from lens_assets.science.surveys import schema
from lens_assets.science.surveys.judging import MOST_STEPS, Cuts
from lens_assets.science.surveys.layout import Tile
from lens_assets.science.surveys.sweeps import SweepRows

KNOWN_LENS = "known_lens"
_A_BIT_LESS = 1 - 1e-6  # bounds of what may matter are rounded down: more than needed does no harm


def step_names(profile: SelectionProfile) -> list[str]:
    """Steps of a pool in order: those of the profile, and the lenses."""
    return [*(name for name, _ in filters(profile, "negative")), KNOWN_LENS]


def cuts_of(profile: SelectionProfile, registry: pl.DataFrame, settings: Settings, tile: Tile) -> Cuts | None:
    """The profile's cuts for the compiled pass over a tile; ``None`` where one of them is not of that kind."""
    steps = {name: k for k, name in enumerate(step_names(profile))}
    ranges: list[tuple[int, str, float, float]] = []
    bits = []
    for name, k in steps.items():
        if match := re.fullmatch("nobs_([grz])", name):
            ranges.append((k, f"NOBS_{match[1].upper()}", profile.nobs_min.get(match[1], 0), np.inf))  # type: ignore[arg-type]
        elif name == "mag_z" and profile.mag_z_max is not None and not profile.dereddened:
            ranges.append((k, "FLUX_Z", float(np.nextafter(flux_of(profile.mag_z_max), np.inf)), np.inf))
        elif name == "maskbits":
            bits.append((k, "MASKBITS", maskbits_value(profile.maskbits_reject)))
        elif name == "ebv" and profile.ebv_max is not None:
            ranges.append((k, "EBV", -np.inf, _as_float32(profile.ebv_max)))
        elif name == "dec_min":
            if not (profile.dec_min is not None and profile.dec_min < tile.dec_min):
                return None
        elif name == "dec_max":
            if not (profile.dec_max is not None and profile.dec_max >= tile.dec_min + 5):
                return None
        elif name not in ("finite_position", "type", KNOWN_LENS):
            return None
    if len(steps) > MOST_STEPS:
        return None
    t = settings.n2
    return Cuts(
        len(steps),
        Sieve(*_within(registry, tile, settings.exclusion_arcsec), settings.exclusion_arcsec),
        t.neighbour_flux_r_min * _A_BIT_LESS,
        {"T2": -np.inf, "GE": t.gaia_flux_r_min * _A_BIT_LESS},
        (steps["type"], profile.types.negative),
        tuple(ranges),
        tuple(bits),
    )


def _as_float32(bound: float) -> float:
    """What a float32 column is compared with."""
    return float(np.float32(bound))


def _within(registry: pl.DataFrame, tile: Tile, arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the systems at declinations of the tile."""
    ra, dec = (registry[c].cast(pl.Float64).to_numpy() for c in ("ra", "dec"))
    reach = 2 * arcsec / 3600
    near = (dec >= tile.dec_min - reach) & (dec <= tile.dec_min + 5 + reach)
    return ra[near], dec[near]


def screened_sweep(
    rows: SweepRows, registry: pl.DataFrame, profile: SelectionProfile, settings: Settings
) -> Screened | None:
    """The rows of a sweep that pass, and the counts; ``None`` where the cuts were not made in the pass."""
    if (found := rows.judged) is None:
        return None
    names = step_names(profile)
    lens = 1 << len(names) - 1
    failed = found.failed.copy()
    place = pl.DataFrame({"ra": found.doubtful_at[:, 0], "dec": found.doubtful_at[:, 1]})
    row, pattern = found.doubtful[near_known(place, registry, settings.exclusion_arcsec)].T
    np.subtract.at(failed, pattern, 1)
    np.add.at(failed, pattern | lens, 1)
    kept = np.setdiff1d(rows.held, row, assume_unique=True)
    strata, sides = found.strata.copy(), [found.beside]
    if len(rows.odd):
        odd = rows.rows_of_file(rows.odd)
        steps = [ok for _, ok in passes(odd, profile, "negative")]
        steps.append(~near_known(odd, registry, settings.exclusion_arcsec))
        fails = (~np.array(steps)).T @ (1 << np.arange(len(names)))
        np.add.at(failed, fails, 1)
        kept = np.union1d(kept, odd["row"].to_numpy()[fails == 0])
        strata += _counted(odd)
        sides.append(odd.select(NEIGHBOUR))
    left = rows.rows_of_file(kept)
    kind, nobs = np.nonzero(strata)
    few = pl.DataFrame(
        {
            "type": pl.Series([schema.TYPES[k] for k in kind], dtype=pl.String), "nobs_z": nobs,
            "n_in": strata[kind, nobs], "n_left": _counted(left)[kind, nobs],
        }
    )  # fmt: skip
    return Screened(left, tallied(names, failed), few, [neighbours_of(left, Beside(s), settings.n2) for s in sides])


def _counted(frame: pl.DataFrame) -> np.ndarray:
    """(TYPEs, exposures in z up to ``NOBS_OPEN``) rows."""
    counts = np.zeros((len(schema.TYPES), NOBS_OPEN + 1), np.int64)
    kinds = frame["type"].cast(pl.Enum([*schema.TYPES])).to_physical().to_numpy()
    np.add.at(counts, (kinds, np.clip(frame["nobs_z"].to_numpy(), 0, NOBS_OPEN)), 1)
    return counts
