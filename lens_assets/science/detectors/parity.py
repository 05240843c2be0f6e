"""The published search (Inchausti et al. 2025, arXiv:2508.20087) beside our recipes that repeat it, line by line.

``python -m lens_assets.science.detectors.parity`` prints the page; ``make docs`` keeps it as ``docs/parity.md``. Their side is
what the paper states, as verified on its page images; ours is read from the recipe, so a changed recipe changes the page.
A reproduction once claimed parity after 16 epochs on other stamps; this page is where such a claim would have to stand.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from lens_assets.science.detectors.networks import build_network, count_parameters, family
from lens_assets.science.detectors.recipes import Recipe, load_recipes

NOT_STATED = "not stated"
FACTS: dict[str, dict[str, Any]] = {
    "paper_iv": {
        "network": "ResNet with shielded bottlenecks", "kind": "bottleneck", "parameters": 194_433, "weights": NOT_STATED,
        "batch": 2048, "batch_note": " on 4 GPUs", "lr": 5e-4, "halved": 80, "epochs": 160, "best": 126, "auc": 0.9984,
    },
    "paper_iv_efficientnet": {
        "network": "EfficientNetV2, variant not named", "kind": "efficientnetv2", "parameters": 20_542_883,
        "weights": "pretrained, on what is not stated", "batch": 512, "batch_note": "", "lr": 3.88e-4, "halved": 130,
        "epochs": None, "best": 50, "auc": 0.9987,
    },
}  # fmt: skip
"""What the paper states of each of its networks (its sections on training, and its table of results)."""
SIZE, SHARE, POSITIVES, NEGATIVES = 101, 0.7, 1_372, 134_182


def _same(ours: object, theirs: object) -> str:
    return "same" if ours == theirs else "**differs**"


def _lines(recipe: Recipe, theirs: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(item, theirs, ours, how they compare)."""
    s, a, n, m = recipe.schedule, recipe.augmentation, recipe.normalisation, recipe.mixture
    parameters = count_parameters(build_network(recipe.network))
    batch = s.batch_size * s.accumulate
    share = None if recipe.random_split is None else recipe.random_split.train
    moves = [name for name, on in (("flips", a.flips), ("quarter turns", a.rotations)) if on]
    moves.append(f"shifts to {a.shift} pixels" if a.shift else "no shifts")
    rate = f"{s.lr:g}, {s.kind}"
    if s.kind == "step":
        rate = f"{s.lr:g}, times {s.gamma:g} at epoch {', '.join(map(str, s.milestones))}"
    followed = (s.lr, s.kind, s.gamma, s.milestones, s.warmup_epochs)
    asked = (theirs["lr"], "step", 0.5, (theirs["halved"],), 0.0)
    kind = recipe.network.kind
    pretrained = theirs["weights"].startswith("pretrained")
    natural = m.positive_fraction is None and m.n1 is None and m.epoch_size is None
    return [
        ("network", theirs["network"], family(recipe.network),
         "same family; the paper prints no layer table" if kind == theirs["kind"] else "**differs**"),
        ("parameters", f"{theirs['parameters']:,}", f"{parameters:,}",
         f"ours {parameters / theirs['parameters'] - 1:+.1%}"),
        ("initial weights", theirs["weights"], "random", "**differs**" if pretrained else "ours"),
        ("stamps", f"{SIZE} x {SIZE} pixels, g, r, z", f"{recipe.input_size} x {recipe.input_size} pixels, g, r, z",
         _same(recipe.input_size, SIZE)),
        ("normalisation", NOT_STATED,
         f"median and MAD of the annulus {n.inner:g} to {n.outer:g} of the half-width, clipped at {n.clip:g}", "ours"),
        ("augmentation", NOT_STATED, ", ".join(moves) + "; new every epoch", "ours"),
        ("loss", "plain cross-entropy", "weighted cross-entropy" if recipe.weighted else "plain cross-entropy",
         _same(recipe.weighted, False)),
        ("optimiser", NOT_STATED, f"AdamW, weight decay {s.weight_decay:g}", "ours"),
        ("batch", f"{theirs['batch']:,}{theirs['batch_note']}", f"{batch:,}, as {s.accumulate} x {s.batch_size}",
         f"{_same(batch, theirs['batch'])}; batch norms see the {s.batch_size}"),
        ("learning rate", f"{theirs['lr']:g}, halved at epoch {theirs['halved']}", rate, _same(followed, asked)),
        ("epochs", f"{theirs['epochs'] or NOT_STATED}, best {theirs['best']}", f"{s.epochs}",
         _same(s.epochs, theirs["epochs"]) if theirs["epochs"] else "ours"),
        ("early stopping", NOT_STATED, "none" if s.patience is None else f"after {s.patience} epochs", "ours"),
        ("choice of the epoch", "AUC on the validation set", "AUC on the select rows", "same"),
        ("split", f"random {SHARE:.0%} / {1 - SHARE:.0%}, not blocked on the sky, no test set",
         "blocks on the sky" if share is None else f"random {share:.0%} / {1 - share:.0%} of our train and select rows",
         "same kind; evaluated on our held-out sets, which are blocked" if share == SHARE else "**differs**"),
        ("an epoch", f"the sample, {POSITIVES:,} : {NEGATIVES:,}",
         "the sample as it is" if natural else "oversampled", _same(natural, True)),
        ("seeds", NOT_STATED, ", ".join(map(str, recipe.seeds)), "ours"),
        ("AUC", f"{theirs['auc']} (validation, no interval)", "`evaluation`, with intervals",
         "not comparable: other objects, and theirs chose the epoch on them"),
    ]  # fmt: skip


def page() -> str:
    """The page as Markdown, ending with a newline."""
    recipes = load_recipes()
    out = [
        "# The published search beside ours",
        "",
        "Made from the recipes by `make docs`; a test holds the two together. Theirs: Inchausti et al. 2025 (arXiv:2508.20087).",
        f"*{NOT_STATED}* is what the paper does not say; there ours is a choice of ours.",
    ]
    for name, theirs in FACTS.items():
        out += ["", f"## `{name}`", "", "| item | theirs | ours | |", "|---|---|---|---|"]
        out += [f"| {' | '.join(line)} |" for line in _lines(recipes[name], theirs)]
    out += [
        "",
        "Our own recipes differ on purpose: train and select are blocks on the sky, positives are oversampled and the prior that",
        "this adds is taken off again, rows are weighted by tier, and training stops when the select AUC no longer grows.",
    ]
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
