"""How the outermost programs are compiled, and where they are kept: the one place that says it."""

import os
import sys
from collections.abc import Callable
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import jax
from jax.extend import core

from jaxmlp import _disk

Result = TypeVar("Result")

# On a CPU most of what a user of small networks waits for is LLVM, and most of that are random number generators. For a
# program that only draws, LLVM's first level takes a third of the time of its third, the default, and gives the same
# bits. Training keeps the default: on a processor with AVX-512 the first level rounds some small products otherwise.
# An accelerator has another compiler, and gets no option.
CPU_OPTIONS = {"xla_backend_optimization_level": 1}

with jax.ensure_compile_time_eval():
    _NOT_TRACING = core.get_opaque_trace_state()


class Program(Generic[Result]):
    """A function under `jax.jit` that is compiled for who calls it.

    JAX takes compiler options of an outermost program alone: its `grad` and `jit` refuse a function with options inside
    them, and donated arguments mean nothing there. So while anything is traced the function has neither. All is chosen
    at the call, so an import starts no device.
    """

    def __init__(self, function: Callable[..., Result], *, quick: bool = False, **options: Any):
        """Wrap a function of a module.

        Args:
          function: what is compiled.
          quick: compile with `CPU_OPTIONS` where the call is outermost on a CPU.
          options: of `jax.jit`.
        """
        update_wrapper(self, function)
        inner = {name: value for name, value in options.items() if not name.startswith("donate")}
        self._inner: Any = jax.jit(function, **inner)
        self._outer: Any = jax.jit(function, **options)
        self._quick: Any = jax.jit(function, **options, compiler_options=CPU_OPTIONS) if quick else None

    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        return self._chosen()(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """Return `jax.jit(function).lower(...)`, which compiles as a call would."""
        return self._chosen().lower(*args, **kwargs)

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        """Return the shapes and dtypes of the result."""
        return self._inner.eval_shape(*args, **kwargs)

    def clear_cache(self) -> None:
        """Forget every compiled program of this function."""
        for program in self._programs():
            program.clear_cache()

    def _cache_size(self) -> int:
        return sum(program._cache_size() for program in self._programs())

    def _programs(self) -> list[Any]:
        return [program for program in (self._inner, self._outer, self._quick) if program is not None]

    def _chosen(self) -> Any:
        if not outermost():
            return self._inner
        quick = self._quick is not None and not _left_to_the_user() and jax.default_backend() == "cpu"
        return self._quick if quick else self._outer


@overload
def jit(function: Callable[..., Result], /, *, quick: bool = ..., **options: Any) -> Program[Result]: ...
@overload
def jit(
    function: None = None, /, *, quick: bool = ..., **options: Any
) -> Callable[[Callable[..., Result]], Program[Result]]: ...
def jit(function: Any = None, /, *, quick: bool = False, **options: Any) -> Any:
    """Return `jax.jit(function, **options)` as an outermost program: for the functions of a module, as a decorator.

    With `quick` it is compiled in less time: for programs that only draw random numbers, whose bits stay.
    """
    return partial(jit, quick=quick, **options) if function is None else Program(function, quick=quick, **options)


_traces = 0


def trace_count() -> int:
    """Return how often JAX has traced the program of a `fit` in this process.

    Equal recipes on equal shapes share a trace, whatever their numbers: ten learning rates add one.
    """
    return _traces


def count_trace() -> None:
    """Add one to `trace_count`: called where Python comes by only while JAX traces the program of a `fit`."""
    global _traces
    _traces += 1


def outermost() -> bool:
    """Return whether JAX traces nothing now: `jit`, `vmap`, `grad`, `eval_shape` and the like all trace."""
    return core.get_opaque_trace_state() == _NOT_TRACING


def _left_to_the_user() -> bool:
    """Return whether the user has chosen how much is optimised: JAX lets an option of a program win over theirs."""
    flags = os.environ.get("XLA_FLAGS", "")
    return "xla_backend_optimization_level" in flags or jax.config.read("jax_disable_most_optimizations")


def use_compilation_cache(directory: str | os.PathLike[str] | None = None) -> Path:
    r"""Keep compiled programs on disk, where the next process finds them, and return the directory.

    This switches JAX's persistent compilation cache on for the rest of the process, for all programs of JAX and not
    only for this library's. A program is found again by the same version of JAX on the same kind of processor, for
    equal descriptions and shapes; a second start then waits for tracing alone.

    The cache is never switched on by the library itself: with some versions of JAX on a CPU a long process that
    compiles hundreds of programs into it has crashed, once, without a known cause. Use it for scripts that you start
    again and again, and not for runs that must not be interrupted.

    Args:
      directory: where the programs lie; created if need be. By default a folder for this version of JAX in the user's
        own cache: `$XDG_CACHE_HOME/jaxmlp` or `~/.cache/jaxmlp`, on macOS `~/Library/Caches/jaxmlp`, on Windows
        `%LOCALAPPDATA%\jaxmlp`.

    Returns:
      The directory.

    Raises:
      ValueError: for a directory that cannot be created or written to.

    >>> use_compilation_cache("~/programs")  # doctest: +SKIP
    PosixPath('/home/me/programs')
    """
    from jax.experimental.compilation_cache import compilation_cache  # not part of JAX's own import

    given = _user_cache() / f"jax-{jax.__version__}" if directory is None else directory
    path = _disk.path_of("directory", given).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK | os.X_OK)
    except OSError as error:
        raise ValueError(f"directory must be one that can be created; got {path}: {error}; pass another one") from error
    if not writable:
        raise ValueError(f"directory must be one that can be written to; got {path}; pass another one")
    jax.config.update("jax_compilation_cache_dir", str(path))
    # By default only what compiled for a second or more is kept; here a program of half a second is waited for as well.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()  # JAX looks for the directory once, when it first compiles
    return path


def _user_cache() -> Path:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jaxmlp"
