"""Which values the host knows: none that JAX traces, and of an array of several processes what its devices reduce."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def on_host(value: object) -> np.ndarray | None:
    """Return the values as a NumPy array where they are known now, None while JAX traces them.

    None too where other processes have a part of them.
    """
    return None if isinstance(value, Tracer) or is_far(value) else np.asarray(value)


def is_far(value: object) -> bool:
    """Tell whether a part of an array is with other processes alone."""
    if not isinstance(value, jax.Array) or isinstance(value, Tracer):
        return False
    return not (value.is_fully_addressable or value.is_fully_replicated)


def is_apart(value: object) -> bool:
    """Tell whether an array lies on devices of other processes too, as parts or as copies."""
    return isinstance(value, jax.Array) and not value.is_fully_addressable


def known(value: Any) -> np.ndarray:
    """Return the values, or of an array whose parts other processes have its extremes, NaN where it holds one.

    Those are reduced on the devices, so that each process reads the same and raises alike.
    """
    if not is_far(value):
        return np.asarray(value)
    with jax.ensure_compile_time_eval():  # also while the caller traces around what is known
        return np.asarray([np.asarray(reduce(value)) for reduce in (jnp.min, jnp.max)])
