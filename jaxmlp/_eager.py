"""Eager calls that compile once for a shape, and not at every call."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from jaxmlp import _compile

Function = TypeVar("Function", bound=Callable[..., Any])


def compile_once(*static: str, inline: bool = True, quick: bool = False) -> Callable[[Function], Function]:
    """Decorate a function of a module so that eager calls of it share one program for each shape.

    JAX knows the body of a loop by its identity, so `jax.lax.map`, `scan` or `fori_loop` over a function that is
    made anew at each call compiles anew at each call. Here they are in a program whose key is the shapes of the
    arguments and the values of those named in `static`, which are keyword-only.

    Inlined where a caller traces, so a caller's own program is as if the decorator were not there; that goes for an
    eager `jax.grad` too, so a function with a loop to go backwards through says `inline=False`. Where a static
    argument has no hash (a callable object of a user's may have none) there is no key: the function runs as it
    stands, correct and compiled at each call.

    >>> @compile_once("power")
    ... def raised(x, *, power):
    ...     return x**power
    >>> raised(3, power=2)
    Array(9, dtype=int32, weak_type=True)
    """

    def decorate(function: Function) -> Function:
        program = _compile.jit(function, quick=quick, static_argnames=static, inline=inline)

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            try:
                # The structure of the arguments holds callables too: a `jax.tree_util.Partial` has its function there.
                hash((jax.tree.structure(args), *(options[name] for name in static)))
            except TypeError:
                return function(*args, **options)
            return program(*args, **options)

        return call  # type: ignore[return-value]

    return decorate
