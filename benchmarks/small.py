"""How many steps a second does a small network take, where the arithmetic is nothing and everything around it all?

    python -m benchmarks small

8-50-1 and 8-64-64-1, batch 32, Adam, a table of 1,000 rows shuffled an epoch; every contender trains the same network
from the same weights (Keras, scikit-learn and the scan that sorts in orders of their own). `jaxmlp.fit` works its order
out, checks the data and pads the last batch within its time; the others are handed their orders.
"""

from benchmarks.peers import PEERS
from benchmarks.tasks import Task, table
from benchmarks.timing import Row, in_turn, installed

NETS, BATCH, ROWS = ((8, 50, 1), (8, 64, 64, 1)), 32, 1000
COMPILED = ("jaxmlp.fit", "JAX by hand, one scan", "JAX by hand, one scan that sorts")
EPOCHS, FEW = 500, 20  # of the compiled runs; of those that Python drives, for which it takes as long


def run(*, quick: bool = False) -> list[Row]:
    """Time every contender on both nets."""
    rows = []
    for sizes in NETS:
        task = Task(sizes, *table(sizes, ROWS), BATCH, epochs=1)
        contenders, steps = {}, {}
        for peer in installed(peer for peer in PEERS if "bfloat16" not in peer.name):
            mine = task.with_epochs(1 if quick else EPOCHS if peer.name in COMPILED else FEW)
            contenders[peer.name], steps[peer.name] = peer.make(mine), mine.steps
        name = "small " + "-".join(map(str, sizes))
        rows += in_turn(name, contenders, steps, unit="steps/s", repeats=2 if quick else 9)
    return rows
