"""Models that go elsewhere and come back: StableHLO, PyTorch, scikit-learn; and those of Flax, Haiku and Equinox here.

What comes back computes what it computed there, or is refused by the name of the part that an `MLP` has not.
"""

from jaxmlp.interop._export import PLATFORMS as PLATFORMS
from jaxmlp.interop._export import export as export
from jaxmlp.interop._foreign import from_equinox as from_equinox
from jaxmlp.interop._foreign import from_flax as from_flax
from jaxmlp.interop._foreign import from_haiku as from_haiku
from jaxmlp.interop._foreign import from_nnx as from_nnx
from jaxmlp.interop._plain import Activation as Activation
from jaxmlp.interop._sklearn import SKLEARN as SKLEARN
from jaxmlp.interop._sklearn import from_sklearn as from_sklearn
from jaxmlp.interop._sklearn import to_sklearn as to_sklearn
from jaxmlp.interop._torch import TORCH as TORCH
from jaxmlp.interop._torch import from_torch as from_torch
from jaxmlp.interop._torch import to_torch as to_torch
