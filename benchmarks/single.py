"""How fast is one network of middle size, beside what one would use instead, and how far from the machine's best?

    python -m benchmarks single

784-256-256-10, batch 128, Adam, 60,000 examples shuffled an epoch; every contender trains the same network from the
same weights (Keras, scikit-learn and the scan that sorts in orders of their own). Then the best rate of matrix products
that this machine showed in the same run, and what share of it the training reaches.
"""

from benchmarks import peaks
from benchmarks.peers import PEERS
from benchmarks.tasks import Task, table
from benchmarks.timing import Row, in_turn, installed, measured

SIZES, BATCH, ROWS = (784, 256, 256, 10), 128, 60_000


def run(*, quick: bool = False) -> list[Row]:
    """Time every contender on one epoch, and jaxmlp against the peak."""
    task = Task(SIZES, *table(SIZES, 300 if quick else ROWS), BATCH, epochs=1)
    contenders = {peer.name: peer.make(task) for peer in installed(PEERS)}
    rows = in_turn("single", contenders, len(task.x), unit="examples/s", repeats=2 if quick else 7)
    for name, dtype in (("jaxmlp.fit", "float32"), ("jaxmlp.fit, bfloat16", "bfloat16")):
        peak = peaks.matmul(dtype, shapes=peaks.SMALL if quick else None)
        reached = next(row.value for row in rows if row.contender == name) * peaks.training_flops(SIZES) / 1e9
        rows.append(measured("single", f"matrix products alone, {dtype}", peak, "GFLOP/s", reached / peak))
        rows.append(measured("single", f"{name}: its products", reached, "GFLOP/s"))
    return rows
