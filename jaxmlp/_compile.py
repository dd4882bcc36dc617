"""How the outermost programs are compiled: the one place that says it.

Compiling is most of what a user of small networks waits for. On the CPU, LLVM's first level of optimisation makes a
program of these networks in about half the time of its default, with the same bits and at the same speed: the time of
a step lies in XLA's own products and fusions, which that level does not touch.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state

CPU_OPTIONS = {"xla_backend_optimization_level": 1}


def jit(
    function: Callable[..., Any], *, static_argnames: str | Sequence[str] = (), donate_argnums: int | Sequence[int] = ()
) -> "Jitted":
    """Return `function` compiled as the outermost programs of this library are; for module-level functions.

    >>> double = jit(lambda x: 2 * x)
    >>> double(3.0).item(), jax.vmap(double)(jax.numpy.ones(2)).tolist()
    (6.0, [2.0, 2.0])
    """
    return Jitted(function, static_argnames=static_argnames, donate_argnums=donate_argnums)


class Jitted:
    """A function as `jax.jit` makes it, whose compiler options depend on the platform and on who calls it."""

    def __init__(self, function: Callable[..., Any], **options: Any):
        functools.update_wrapper(self, function)
        self._function, self._options = function, options
        self._plain = jax.jit(function, **options)
        self._outermost: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program, compiled anew for new shapes and static arguments."""
        return self._chosen()(*args, **kwargs)

    def _chosen(self) -> Any:
        # JAX takes compiler options only of the outermost program: within a trace of the caller's there are none.
        if get_opaque_trace_state(convention="flax") != _no_trace() or not compiler_options():
            return self._plain
        if self._outermost is None:
            self._outermost = jax.jit(self._function, compiler_options=CPU_OPTIONS, **self._options)
        return self._outermost

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """Lower the outermost program for these arguments."""
        return self._chosen().lower(*args, **kwargs)

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        """Return the shapes of the results for arguments of these shapes."""
        return self._plain.eval_shape(*args, **kwargs)

    def _cache_size(self) -> int:
        return sum(f._cache_size() for f in {self._plain, self._outermost} - {None})


def compiler_options() -> dict[str, Any]:
    """Return the options for the platform; none where the user has set the level, and none on accelerators.

    Asked at each call and not on import: asking for the platform starts it.
    """
    set_by_user = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    if set_by_user or jax.config.read("jax_disable_most_optimizations") or jax.default_backend() != "cpu":
        return {}
    return CPU_OPTIONS


@functools.cache
def _no_trace() -> Any:
    """Return JAX's state outside of any trace."""
    with jax.ensure_compile_time_eval():
        return get_opaque_trace_state(convention="flax")
