"""What share of an accelerator's own matrix products does training reach, and how does PyTorch fare on the same card?

    python -m benchmarks accelerator

On a GPU or a TPU; elsewhere it is left out, but for `--quick`, which runs toy sizes on anything. w-w-w-w nets of widths
64 to 16,384, batch w (at least 256), Adam, as one `fit`, in float32, TensorFloat-32 and bfloat16: the products' FLOP/s
beside the best rate of bare products in that format in the same run, and beside PyTorch compiled with CUDA graphs. Then
`single`'s net, 8-50-1 and populations of 64 to 4,096. The figure is a roofline: FLOP/s against FLOPs a byte.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peaks, peers
from benchmarks.crowds import crowd, torch_func
from benchmarks.tasks import RATE, Task, table
from benchmarks.timing import Peer, Row, in_turn, installed, measured
from jaxmlp import training

WIDTHS, TOY = (64, 256, 1024, 4096, 8192, 16384), (16, 32)
PRECISIONS = {"float32": ("float32", None), "tensorfloat32": ("tensorfloat32", None), "bfloat16": (None, "bfloat16")}


def run(*, quick: bool = False) -> list[Row]:
    """Time widths, small nets and populations, and draw the roofline."""
    if jax.default_backend() == "cpu" and not quick:
        print("left out: no accelerator; `--quick` runs toy sizes")
        return []
    rows, points, ceilings = [], [], {}
    for name, (precision, dtype) in PRECISIONS.items():
        with jax.default_matmul_precision(precision or "default"):
            peak = ceilings[name] = peaks.matmul(name, shapes=peaks.SMALL if quick else None)
            for width in TOY if quick else WIDTHS:
                found, point = one_width(width, name, dtype, peak, quick)
                rows += found
                points.append((name, *point))
    bandwidth = peaks.bandwidth(2**16 if quick else 2**28)
    rows.append(measured("accelerator", "memory", bandwidth, "GB/s"))
    rows += small(quick)
    draw(points, ceilings, bandwidth, Path("figures/roofline.png"))
    return rows


def one_width(width: int, name: str, dtype: str | None, peak: float, quick: bool) -> tuple[list[Row], tuple]:
    """Return the rows of a width in a format, and its point (FLOPs a byte, GFLOP/s) of the roofline."""
    sizes, batch = (width,) * 4, max(16 if quick else 256, width)
    steps = 4 if quick else max(8, min(400, int(2e14 / (batch * peaks.training_flops(sizes)))))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(min(steps, 4) * batch, width)).astype("f")
    task = Task(sizes, x, rng.integers(0, width, len(x)).astype("i4"), batch, epochs=max(1, steps // 4))
    contenders = {"jaxmlp.fit": peers.fit(task, dtype)}
    for peer in installed([Peer("PyTorch, compiled", "torch", partial(peers.torch, compiled=True, fused=True))]):
        if not quick and name != "float32":
            import torch  # type: ignore[import-not-found]

            torch.set_float32_matmul_precision("high" if name == "tensorfloat32" else "highest")
        if not quick:
            contenders[peer.name] = peer.make(task, dtype=dtype)
    flops = batch * peaks.training_flops(sizes) / 1e9
    title = f"width {width:,}, {name}"
    rows = in_turn(title, contenders, task.steps * flops, unit="GFLOP/s", repeats=2 if quick else 5)
    rows.append(measured(title, "jaxmlp.fit: share of bare products", 100 * rows[0].value / peak, "%"))
    step, first = jax.jit(training.step), (jnp.asarray(x[:batch]), jnp.asarray(task.y[:batch]))
    costs: Any = step.lower(task.state, first, task.recipe(dtype), RATE).compile().cost_analysis()
    return rows, (costs["flops"] / costs["bytes accessed"], rows[0].value)


def small(quick: bool) -> list[Row]:
    """Return `single`'s net, the smallest one, and populations, beside PyTorch."""
    rows = []
    nets = (((784, 256, 256, 10), 128, 60_000), ((8, 50, 1), 32, 10_000))
    for sizes, batch, count in nets[quick:]:
        task = Task(sizes, *table(sizes, 200 if quick else count), batch, epochs=1)
        makers = [Peer("jaxmlp.fit", "jaxmlp", peers.fit)]
        makers += [] if quick else installed([Peer("PyTorch, compiled", "torch", partial(peers.torch, compiled=True))])
        runs = {peer.name: peer.make(task) for peer in makers}
        rows += in_turn("-".join(map(str, sizes)), runs, task.steps, unit="steps/s", repeats=2 if quick else 5)
    for members in (4,) if quick else (64, 1024, 4096):
        task = Task((64, 64, 10), *table((64, 64, 10), 128 if quick else 1792), 64, epochs=1)
        rates = np.full(members, 1e-3, "f")
        makers = [Peer("population.fit", "jaxmlp", crowd)]
        makers += [] if quick else installed([Peer("PyTorch, torch.func", "torch", torch_func)])
        runs = {peer.name: peer.make(task, rates) for peer in makers}
        title = f"{members:,} of 64-64-10"
        rows += in_turn(title, runs, members * task.steps, unit="net-steps/s", repeats=2 if quick else 5)
    return rows


def draw(points: list[tuple], ceilings: dict[str, float], bandwidth: float, path: Path) -> None:
    """Draw the roofline: what the memory allows, what the products allow, and where training lies."""
    from experiments.report import BLUE, GREEN, ORANGE, canvas

    figure, (axis,) = canvas(width=5.5)
    intensity = np.logspace(-1, 4, 100)
    for colour, (name, peak) in zip((BLUE, GREEN, ORANGE), ceilings.items(), strict=True):
        axis.plot(intensity, np.minimum(peak, bandwidth * intensity), color=colour, linewidth=1)
        mine = [point for point in points if point[0] == name]
        axis.plot([p[1] for p in mine], [p[2] for p in mine], "o", color=colour, label=name)
    axis.set(xscale="log", yscale="log", xlabel="FLOPs a byte of memory traffic", ylabel="GFLOP/s", title="Roofline")
    axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"figure {path}")
