"""The host's loop around pure training: it shows, stops, saves and resumes, and changes not one bit.

The device runs compiled chunks, of epochs or for a stream of steps; between two of them stands everything that is no
mathematics: progress, callbacks, checkpoints, signals.
"""

from jaxmlp import records as records
from jaxmlp._engine.exchange import HostLost as HostLost
from jaxmlp._engine.stops import Budget as Budget
from jaxmlp._engine.stops import Halving as Halving
from jaxmlp._engine.stops import Patience as Patience
from jaxmlp._engine.stops import Target as Target
from jaxmlp.loop._checkpoints import NotSaved as NotSaved
from jaxmlp.loop._resume import resume as resume
from jaxmlp.loop._session import Interrupted as Interrupted
from jaxmlp.loop._session import NonFinite as NonFinite
from jaxmlp.loop._train import train as train
from jaxmlp.loop.streams import npy as npy

for _error in (HostLost, Interrupted, NonFinite, NotSaved):
    _error.__module__ = __name__  # as a traceback shows them
