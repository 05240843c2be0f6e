"""The blinded panel: a numbered sheet of real lenses and injections for human graders, its key, and the score of votes.

The sheet and the key are separate files; the sheet carries the key's digest, so that votes can be tied to a key
nobody has opened. Which stamps, in which places, is drawn by identity alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.visualization import make_lupton_rgb
from scipy.stats import binomtest

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest, generator
from lens_assets.science.intervals import wilson
from lens_assets.science.realism.probe import auc
from lens_assets.science.realism.stamps import StampSet

F32 = npt.NDArray[np.float32]
CROP = 32
"""Half-width of what the sheet shows, pixels (17 arcsec across): the full stamp makes the arcs too small to judge."""
SCALES = {"g": 1 / 0.008, "r": 1 / 0.012, "z": 1 / 0.030}
"""nmgy per pixel that map to one unit of brightness in each band: near the sky noise times five."""


@dataclass(frozen=True)
class Panel:
    """``images`` (n, 3, h, w) in the order of the sheet and ``key`` (JSON types) with the answers."""

    images: F32
    key: dict[str, Any]

    @property
    def digest(self) -> str:
        """Of the key: printed on the sheet, and asked back with the votes."""
        return str(self.key["digest"])


def assemble(real: StampSet, injected: StampSet, size: int, identity: tuple[Any, ...]) -> Panel:
    """A panel of ``size`` stamps, half real (the odd one injected); one injection a host. Fewer of either kind is an
    error.

    Give it matched stamps: graders should not be able to tell them by seeing, depth or brightness.
    """
    want = {"real": size // 2, "injected": size - size // 2}
    chosen: list[tuple[str, str, F32]] = []
    for kind, stamps in (("real", real), ("injected", injected)):
        rng = generator("panel", kind, *identity)
        order = rng.permutation(len(stamps))
        ids, groups, seen = stamps.strings("id"), stamps.strings("group"), set()
        rows: list[int] = []
        for i in order:
            if groups[i] not in seen and len(rows) < want[kind]:
                seen.add(groups[i])
                rows.append(int(i))
        if len(rows) < want[kind]:
            raise BadInput(
                f"a panel of {size} needs {want[kind]} {kind} stamps of different groups; there are {len(rows)}"
            )
        chosen += [(kind, str(ids[i]), stamps.images[i]) for i in rows]
    places = generator("panel-places", *identity).permutation(len(chosen))
    placed = [chosen[i] for i in places]
    answers = [{"number": n + 1, "kind": kind, "id": name} for n, (kind, name, _) in enumerate(placed)]
    salt = generator("panel-salt", *identity).bytes(16).hex()
    key = {"identity": [str(x) for x in identity], "size": size, "salt": salt, "answers": answers}
    key["digest"] = digest("panel-key", answers, salt)[:16]
    return Panel(np.stack([im for _, _, im in placed]), key)


def colour_image(image: F32) -> npt.NDArray[np.uint8]:
    """(h, w, 3) uint8 picture of one stamp (3, h, w): z, r, g as red, green, blue (Lupton et al. 2004), north up."""
    g, r, z = (image[i] * SCALES[b] for i, b in enumerate("grz"))
    return np.asarray(make_lupton_rgb(z, r, g, minimum=-0.3, stretch=3.0, Q=8)[::-1], dtype=np.uint8)


def write_sheet(panel: Panel, path: str | Path, columns: int = 10) -> None:
    """The numbered sheet as PNG, one picture a stamp, without any hint of the answers; the same panel gives the same
    bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(panel.images)
    rows = -(-n // columns)
    side = min(panel.images.shape[2:])
    low, high = max(side // 2 - CROP, 0), side // 2 + CROP + 1
    figure = Figure(figsize=(1.25 * columns, 1.42 * rows + 0.5), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    for i in range(n):
        axis = figure.add_subplot(rows, columns, i + 1)
        axis.imshow(colour_image(panel.images[i][:, low:high, low:high]), interpolation="nearest")
        axis.set_title(str(i + 1), fontsize=7, pad=1.5)
        axis.set_axis_off()
    figure.suptitle(f"real lens or injection?   panel {panel.digest}", fontsize=9, y=1 - 0.12 / (1.42 * rows + 0.5))
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.01, top=1 - 0.42 / (1.42 * rows + 0.5), wspace=0.06, hspace=0.16
    )
    figure.savefig(path, format="png", metadata={"Software": None})


def score_votes(
    key: Mapping[str, Any], votes: Mapping[str, Mapping[int, float]], panel_digest: str | None = None
) -> dict[str, Any]:
    """Score ``votes``: per grader, number on the sheet to the probability (0 to 1) that it is an *injection*.

    Exactly 0.5 is an abstention. Per grader: how many were called, how many rightly, with Wilson intervals and a
    two-sided binomial p against guessing; the AUC where votes are graded. Pooled: the same over all calls, and the
    mean vote's AUC per stamp. ``panel_digest`` is what the graders read on the sheet; another key's is refused.
    """
    if digest("panel-key", key["answers"], key["salt"])[:16] != key["digest"]:
        raise BadInput("the key does not match its own digest: it was changed")
    if panel_digest is not None and panel_digest != key["digest"]:
        raise BadInput(f"the votes are for panel {panel_digest}, the key is of {key['digest']}")
    truth = {int(a["number"]): a["kind"] == "injected" for a in key["answers"]}
    out: dict[str, Any] = {"panel": key["digest"], "size": len(truth), "graders": {}}
    calls = right = 0
    sums: dict[int, list[float]] = {}
    for grader in sorted(votes):
        given = {int(k): float(v) for k, v in votes[grader].items()}
        for number, p in given.items():
            if number not in truth:
                raise BadInput(f"grader {grader!r} voted on stamp {number}; the panel has 1 to {len(truth)}")
            if not 0 <= p <= 1:
                raise BadInput(f"grader {grader!r}, stamp {number}: a vote lies in [0, 1], not {p}")
            sums.setdefault(number, []).append(p)
        called = {k: p > 0.5 for k, p in given.items() if p != 0.5}
        k = sum(called[i] == truth[i] for i in called)
        out["graders"][grader] = _accuracy(k, len(called)) | {
            "voted": len(given),
            "auc": auc(np.array([given[i] for i in sorted(given)]), np.array([truth[i] for i in sorted(given)])),
        }
        calls, right = calls + len(called), right + k
    numbers = sorted(sums)
    out["pooled"] = _accuracy(right, calls) | {
        "auc_of_mean_vote": auc(
            np.array([np.mean(sums[i]) for i in numbers]), np.array([truth[i] for i in numbers], bool)
        ),
    }
    return out


def _accuracy(k: int, n: int) -> dict[str, Any]:
    i68, i95 = wilson(k, n, 0.68), wilson(k, n, 0.95)
    return {
        "called": n,
        "right": k,
        "accuracy": k / n if n else float("nan"),
        "lo68": float(i68.lo),
        "hi68": float(i68.hi),
        "lo95": float(i95.lo),
        "hi95": float(i95.hi),
        "interval": i95.name,
        "p_guessing": float(binomtest(k, n).pvalue) if n else float("nan"),
    }
