"""The programs of the table on paper, compiled for devices that are not there, and what the compiler made of them.

A child process of `benchmarks.paper`: JAX fixes its devices when it starts. Shapes are compiled, nothing is computed or
held. On a CPU, virtual devices stand for any: XLA's partitioner is the same. With libtpu installed (`pip install
libtpu`; no TPU is needed), the compiler is that of a TPU v5e for so many chips, with its own schedule and memory.
"""

import json
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxmlp
from benchmarks import collectives
from benchmarks.equations import Split, slots
from jaxmlp import MLP, Recipe, losses, sharding
from jaxmlp._engine import lie, program
from jaxmlp._engine.entry import enter
from jaxmlp._engine.inputs import Inputs, Request
from jaxmlp._engine.plan import Layout
from jaxmlp._engine.runs import EpochSpan, Order, Work
from jaxmlp._engine.stops import Stops
from jaxmlp._layout import follow

TPU = {  # so that libtpu asks no machine what it is, and locks none
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}
SLICES = {1: ("1x1", 1), 8: ("2x4", 1), 64: ("8x8", 1), 256: ("16x16", 1), 1024: ("16x16", 4)}  # chips: topology, pods


class Counted(NamedTuple):
    """What a device has to do in a compiled program."""

    sent: float  # bytes, of rings
    held: int  # bytes of state and data, and besides at the most
    flops: float  # as XLA counts them, a loop's once
    traffic: float  # bytes that its operations read and write, counted likewise


def devices(platform: str, count: int) -> Sequence[Any]:
    """Return devices that are compiled for: virtual ones of this process, or a described slice of TPU v5e."""
    if platform == "cpu":
        return jax.devices()[:count]
    from jax.experimental import topologies

    name, pods = SLICES[count]
    how: dict[str, Any] = {"num_slices": pods} if pods > 1 else {}
    if count == 1:
        how["chips_per_host_bounds"] = (1, 1, 1)
    return topologies.get_topology_desc(f"v5e:{name}", platform="tpu", **how).devices


def wide(sizes: tuple[int, ...], rows: int, split: Split, mesh: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the jitted step of a wide net by Adam on a mesh ("data", "model"), and the shapes of its arguments.

    It is `jaxmlp.step` as a caller compiles it; `sharding.bind` reads off the shapes how they lie, on an `AbstractMesh`
    too.
    """
    net, rate = MLP(sizes, dtype="bfloat16"), {"learning_rate": 1e-3}
    recipe = Recipe(net, losses.squared_error, optax.adam, epochs=1, batch_size=None)
    like = jax.eval_shape(lambda key: jaxmlp.start(key, recipe, rate), jax.random.key(0))
    specs = sharding.rules(net, mesh, fsdp=split.sharded)
    each: Any = specs, follow(like.params, specs, like.opt_state), P(), P()
    lies = jax.tree.map(lambda spec: NamedSharding(mesh, spec), jaxmlp.State(*each))
    state = jax.tree.map(lambda a, at: _shape(a.shape, a.dtype, at), like, lies)
    at = NamedSharding(mesh, P("data"))
    batch = tuple(_shape((rows * split.devices, n), jnp.float32, at) for n in (sizes[0], sizes[-1]))
    return jax.jit(jaxmlp.step, donate_argnums=0), (state, batch, sharding.bind(recipe, rate, state, batch))


def mesh_of(found: Sequence[Any], split: Split) -> Any:
    """Return devices as a mesh ("data", "model"), neighbours along "model"."""
    grid = np.array(found).reshape(split.data, split.model)
    return Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def crowd(sizes: tuple[int, ...], batch: int, rows: int, members: int, width: int, found: Sequence[Any]) -> Any:
    """Return the traced training program of a population by Adam on these devices, `width` members at a time."""
    recipe = Recipe(MLP(sizes), losses.squared_error, optax.adam, epochs=1, batch_size=batch)
    data = np.ones((rows, sizes[0]), "f"), np.ones((rows, sizes[-1]), "f")
    inputs = Inputs(data, None, None, None, None, None)
    some = Request(jax.random.split(jax.random.key(0), 2), inputs, recipe, {"learning_rate": np.ones(2, "f")})
    members_of_two, tables = enter(some.entered())
    layout = Layout(width, tuple(found))
    mesh, places = lie.mesh_of(layout), len(found) * slots(members, len(found), width)

    def each(like: Any, count: int) -> Any:
        return jax.tree.map(lambda a: _shape((count, *a.shape[1:]), a.dtype, NamedSharding(mesh, P("members"))), like)

    tables = jax.tree.map(lambda a: _shape(a.shape, a.dtype, NamedSharding(mesh, P())), tables)
    work = Work(each(members_of_two, places), tables, Stops().in_program)
    runs = each(jax.eval_shape(lambda work: program.begin(work, recipe, layout=layout), work), places)
    order = Order(each(np.zeros(1, np.int32), places), each(np.zeros(1, np.int32), len(found)))
    span = EpochSpan(np.int32(0), np.int32(1))
    function: Any = program.train_epochs.__wrapped__  # type: ignore[attr-defined]
    train = jax.jit(function, static_argnames=("layout",), donate_argnums=0)
    return train.trace(runs, work, recipe, span, order, layout=layout)


def _shape(shape: tuple[int, ...], dtype: Any, at: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=at)


def counted(compiled: Any) -> Counted:
    """Return what a compiled program holds and sends."""
    sent = sum(each.moved for each in collectives.of(compiled.as_text()))
    plan, cost = compiled.memory_analysis(), compiled.cost_analysis()
    held = plan.argument_size_in_bytes + plan.temp_size_in_bytes
    return Counted(sent, held, cost["flops"], cost["bytes accessed"])


def main(how: dict[str, Any]) -> list[dict[str, Any]]:
    """Return for each case the bytes sent and held, seconds of compiling, and whether it was lowered for others."""
    platform, told = how["platform"], []
    if platform == "cpu":
        jax.config.update("jax_num_cpu_devices", max(count for count, _, _ in how["cases"]))
    for count, split, width in how["cases"]:
        there = devices(platform, count)
        start = time.perf_counter()
        if split is None:
            sizes, batch, rows, members = how["crowd"]
            traced = crowd(tuple(sizes), batch, rows, members, width, there)
            lowers = platform == "cpu" and traced.lower(lowering_platforms=("cuda", "tpu")) is not None
        else:
            sizes, rows = tuple(how["wide"][0]), how["wide"][1]
            step, given = wide(sizes, rows, Split(*split), mesh_of(there, Split(*split)))
            traced, lowers = step.trace(*given), platform == "cpu" and exports(sizes, rows, Split(*split))
        try:
            made = counted(traced.lower().compile())
            found = made._asdict() if split is not None else {"sent": made.sent, "held": made.held}  # loops count once
        except jax.errors.JaxRuntimeError as error:
            found = {"held": needed(str(error))}
        told.append({**found, "seconds": time.perf_counter() - start, "lowers": int(lowers)})
    return told


def exports(sizes: tuple[int, ...], rows: int, split: Split) -> bool:
    """Tell whether the step is lowered for CUDA and TPU, on a mesh that has no devices at all."""
    mesh = AbstractMesh((split.data, split.model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    step, given = wide(sizes, rows, split, mesh)
    made = jax.export.export(step, platforms=("cuda", "tpu"))(*given)
    return made.nr_devices == split.devices and made.platforms == ("cuda", "tpu")


def needed(message: str) -> int:
    """Return the bytes that the TPU's compiler says it would have needed, of a program that does not fit.

    Raises:
      RuntimeError: for any other message.
    """
    found = re.search(r"(?:Used |required .*?\()([\d.]+)([KMGT])\b", message)
    if found is None:
        raise RuntimeError(message)
    return int(float(found[1]) * 2 ** (10 * (1 + "KMGT".index(found[2]))))


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
