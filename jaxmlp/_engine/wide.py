"""One network on a mesh in the executor's hands: its state and its data stay on the devices on which they lie."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp._engine.executor import Executor, without_keys
from jaxmlp._engine.hosts import fetch
from jaxmlp._engine.lie import of_first, put_batches, settled
from jaxmlp._engine.plan import EVERYWHERE, Layout
from jaxmlp._engine.runs import Run, Work
from jaxmlp._placement import Placement
from jaxmlp.training import State
from jaxmlp.types import Data, Numeric


class Wide(Executor):
    """A population of one that lies on a mesh: what is large stays there, and figures come to every process."""

    def state(self, member: int | None = None) -> State:
        """Return a copy of the state of the one, or with its axis, that stays when training goes on."""
        runs = _copied(self.runs._replace(history={}, mean=None), placement=self.layout.placement)
        return runs.state if member is None else jax.tree.map(of_first, runs.state)

    def runs_so_far(self) -> Run:
        """Return a copy of the runs."""
        runs = _copied(self.runs._replace(mean=None), placement=self.layout.placement)
        return self._figures(runs, jnp.asarray)

    def saved_runs(self) -> Run:
        """Return the runs as they are to be written: on the host, or of several processes each its own part."""
        if not self.hosts.many:
            return super().saved_runs()
        return self._figures(without_keys(self.runs), np.asarray)._replace(mean=fetch(without_keys(self.runs.mean)))

    def results(self, to: Callable[[np.ndarray], Numeric] = jax.device_put, place: str = EVERYWHERE) -> Run:
        """Return the runs, keys as the integers behind them, the state where it lies; nothing can follow."""
        runs = self._figures(without_keys(self.runs), to)
        del self.runs
        return runs._replace(mean=None)

    def _figures(self, runs: Run, to: Callable[[np.ndarray], Numeric]) -> Run:
        """Return the runs with all but states and best weights brought from the devices."""
        best = runs.best
        if best is not None:
            small = jax.tree.map(lambda a: to(np.asarray(a)), fetch(best._replace(params=None)))
            best = small._replace(params=best.params)
        status, epochs = (to(np.asarray(a)) for a in fetch((runs.status, runs.epochs)))
        history = {name: to(values) for name, values in self.history().items()}
        return runs._replace(status=status, epochs=epochs, history=history, best=best)

    def _with_batches(self, batches: Data) -> Work:
        if batches[2].ndim == 2:  # a stack, and not the example of a batch
            batches = put_batches(batches, self.layout.placement)
        else:
            batches = self.layout.placement.lay(tuple(batches))
        return self._work._replace(tables=self._work.tables._replace(data=batches))


def executor_of(layout: Layout) -> type[Executor]:
    """Return what trains members that lie so."""
    return Executor if layout.placement.mesh is None else Wide


@partial(jax.jit, static_argnames="placement")
def _copied(run: Run, *, placement: Placement) -> Run:
    return settled(jax.tree.map(jnp.copy, run), placement)
