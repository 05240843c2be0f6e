"""Stamps scored a second on a GPU: the platform's scorer, from a shard to logits, against a plain loop of the same network.

Both read the same memory-mapped shard and normalise with the same function. Theirs is what most would write: float32,
contiguous, batches of 64, one thread beside the card. Ours is :class:`Scorer`. ``end_to_end`` gives ours by precision,
batch and number of threads; ``network`` the network alone, inputs on the card, by form and batch, with each form's largest
change of a logit from float32 (``drift``) on the held-out stamps and the range of those. The second network (``others``) is
untrained: its rates tell something, its drift nothing.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lens_assets.bench.device import attempt, device_of, facts, finished, rate
from lens_assets.bench.network import Trained, stamps, trained
from lens_assets.bench.shards import make_stamps, write_shard
from lens_assets.bench.timing import interleaved, line
from lens_assets.science.cutouts.normalise import normalise
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.cutouts.shard import ShardSet
from lens_assets.science.detectors.networks import LensNet, build_network, fused
from lens_assets.science.detectors.recipes import load_recipes
from lens_assets.science.detectors.score import BATCH, Scorer, beside, exact_products, score_rows

F32 = npt.NDArray[np.float32]
Form = Callable[[torch.Tensor], torch.Tensor]


def _plain(network: Trained, net: nn.Module, shard: ShardSet, ids: list[str], device: torch.device) -> F32:
    out = []
    with torch.inference_mode(), exact_products(device):
        for i in range(0, len(ids), BATCH):
            part = ids[i : i + BATCH]
            x = torch.from_numpy(normalise(shard.images(part), network.spec, valid=shard.invvar(part) > 0))
            out.append(net(x.to(device)).cpu().numpy())
    return np.concatenate(out)


def _forms(
    net: LensNet, device: torch.device, compiled: bool
) -> dict[str, tuple[Form, torch.dtype, bool, torch.memory_format]]:
    """Name -> network, dtype and order of its input, whether products may be TF32."""
    plain = copy.deepcopy(net).eval().requires_grad_(False).to(device)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    whole = fused(net).to(device)
    half = fused(net).to(device, torch.bfloat16)
    order = torch.contiguous_format
    found: dict[str, tuple[Form, torch.dtype, bool, torch.memory_format]] = {
        "eager float32": (plain, torch.float32, False, order),
        "channels-last float32": (last, torch.float32, False, torch.channels_last),
        "fused float32": (whole, torch.float32, False, net.memory_format),
        "fused TF32": (whole, torch.float32, True, net.memory_format),
        "autocast bfloat16": (_autocast(plain, device), torch.float32, False, order),
        "fused bfloat16": (half, torch.bfloat16, False, net.memory_format),
    }
    if compiled:
        found["compiled fused bfloat16"] = (torch.compile(half), torch.bfloat16, False, net.memory_format)
    return found


def _autocast(net: nn.Module, device: torch.device) -> Form:
    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return net(x)  # type: ignore[no-any-return]

    return run


def _products(device: torch.device, tf32: bool) -> Any:
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=True) if tf32 else exact_products(device)


def _alone(
    net: LensNet, seen: F32, device: torch.device, batches: tuple[int, ...], repeats: int, compiled: bool, shown: int
) -> dict[str, Any]:
    """Rates and drift of the network alone, by form and batch; ``shown`` stamps a measurement."""
    held = torch.from_numpy(seen).to(device)
    truth: torch.Tensor | None = None
    out: dict[str, Any] = {}
    for name, (form, dtype, tf32, order) in _forms(net, device, compiled).items():
        out[name] = attempt(_form, form, dtype, tf32, order, held, device, batches, repeats, shown)
        logits = out[name].pop("logits", None)
        truth = logits if truth is None else truth
        if logits is not None and truth is not None:
            out[name]["drift"] = float((logits - truth).abs().max())
            out[name]["logit_range"] = float(truth.max() - truth.min())
    return out


def _form(
    form: Form, dtype: torch.dtype, tf32: bool, order: torch.memory_format, held: torch.Tensor, device: torch.device,
    batches: tuple[int, ...], repeats: int, shown: int,
) -> dict[str, Any]:  # fmt: skip
    with torch.inference_mode(), _products(device, tf32):
        part = min(BATCH, len(held))
        whole = len(held) - len(held) % part
        logits = torch.cat([
            form(held[i : i + part].to(dtype).contiguous(memory_format=order)).float() for i in range(0, whole, part)
        ])  # fmt: skip
        rates = {}
        for batch in batches:
            x = held[torch.arange(batch, device=device) % len(held)].to(dtype).contiguous(memory_format=order)
            calls = max(1, shown // batch)

            def side(x: torch.Tensor = x, calls: int = calls) -> None:
                for _ in range(calls):
                    form(x)

            rates[str(batch)] = rate(side, calls * batch, device, repeats)
    return {"rates": rates, "logits": logits}


def _scorers(
    network: Trained, shard: ShardSet, ids: list[str], device: torch.device, batches: tuple[int, ...], repeats: int
) -> list[dict[str, Any]]:
    """End to end, from the shard, by precision, batch and threads."""
    out = []
    many = beside(device)
    precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
    for precision in precisions:
        for batch, threads in [(batches[0], 1), *((b, many) for b in batches)]:

            def measure(p: Literal["fp32", "bf16"] = precision, b: int = batch, t: int = threads) -> dict[str, Any]:
                scorer = Scorer(
                    network.net, network.spec, network.size, precision=p, drift=network.drift, max_drift=10.0, batch=b,
                    device=device, threads=t,
                )  # fmt: skip
                return rate(lambda: score_rows(scorer, ids, shard), len(ids), device, repeats)

            out.append({"precision": precision, "batch": batch, "threads": threads, **attempt(measure)})
    return out


def bench_gpu_scoring(
    repeats: int = 5, *, device: str = "cuda", n: int = 4096, size: int = 101, steps: int = 20, held_out: int = 192,
    batches: tuple[int, ...] = (64, 256, 1024), others: tuple[str, ...] = ("efficientnetv2_s",), compiled: bool = True,
    shown: int = 2048,
) -> dict[str, Any]:  # fmt: skip
    """One result line: stamps a second from shard to logit, ours at the default batch and precision, and the plain loop."""
    where = device_of(device)
    network = trained(size, steps, held_out)
    seen = normalise(stamps(held_out, size, "held out")[0], network.spec)
    with tempfile.TemporaryDirectory(prefix="lens-assets-bench-") as scratch:
        shard = write_shard(Path(scratch) / "s", *make_stamps(n, size), Settings(size=size))
        ids = shard.index["galaxy_id"].to_list()
        net = copy.deepcopy(network.net).eval().requires_grad_(False).to(where)
        scorer = Scorer(
            network.net, network.spec, size, drift=network.drift, max_drift=max(0.1, network.drift), device=where
        )
        ours = score_rows(scorer, ids, shard)
        theirs = _plain(network, net, shard, sorted(ids), where)
        difference = float(np.abs(ours["logit"].to_numpy() - theirs).max())
        if not difference <= max(3 * network.drift, 1e-2):
            raise RuntimeError(f"the sides do not score alike: logits differ by {difference}")
        seconds = interleaved(
            finished(lambda: score_rows(scorer, ids, shard), where),
            finished(lambda: _plain(network, net, shard, sorted(ids), where), where), repeats,
        )  # fmt: skip
        by_scorer = _scorers(network, shard, ids, where, batches, repeats)
    recipes = load_recipes()
    return line(
        "scoring-gpu", "the same network, eager float32 on the same device, one thread beside it", seconds, (n, n), "stamps/s",
        scorer.threads, **facts(where), precision=scorer.precision, **network.facts(), difference=difference,
        end_to_end=by_scorer, network=_alone(network.net, seen, where, batches, repeats, compiled, shown),
        others={
            name: attempt(
                _alone, build_network(recipes[name].network, seed=1).eval(), seen, where, batches, repeats, False, shown
            )
            for name in others
        }, n=n,
    )  # fmt: skip
