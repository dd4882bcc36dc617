"""How the outermost programs are compiled, and where they are kept: the one place that says it."""

import os
import sys
from collections.abc import Callable
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, overload

import jax
from jax.extend import core

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# On a CPU most of what a user of small networks waits for is LLVM, and most of that are random number generators. For a
# program that only draws, LLVM's first level takes a third of the time of its third, the default, and gives the same
# bits. Training keeps the default: on a processor with AVX-512 the first level rounds some small products otherwise.
# An accelerator has another compiler, and gets no option.
CPU_OPTIONS = {"xla_backend_optimization_level": 1}

with jax.ensure_compile_time_eval():
    _NOT_TRACING = core.get_opaque_trace_state()


class Program(Generic[Parameters, Result]):
    """A function under `jax.jit`; a `quick` one is compiled with `CPU_OPTIONS` where its call is outermost on a CPU.

    JAX takes compiler options of an outermost program alone: its `grad` and `jit` refuse a function with options inside
    them. So while anything is traced the plain function is called. All is chosen at the call, so an import starts no
    device.
    """

    def __init__(self, function: Callable[Parameters, Result], *, quick: bool = False, **options: Any):
        update_wrapper(self, function)
        self._plain: Any = jax.jit(function, **options)
        self._quick: Any = jax.jit(function, **options, compiler_options=CPU_OPTIONS) if quick else self._plain

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return self._chosen()(*args, **kwargs)

    def lower(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Any:
        """Return `jax.jit(function).lower(...)`, which compiles as a call would."""
        return self._chosen().lower(*args, **kwargs)

    def eval_shape(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Any:
        """Return the shapes and dtypes of the result."""
        return self._plain.eval_shape(*args, **kwargs)

    def clear_cache(self) -> None:
        """Forget every compiled program of this function."""
        self._plain.clear_cache()
        self._quick.clear_cache()

    def _cache_size(self) -> int:
        return sum(program._cache_size() for program in {self._plain, self._quick})

    def _chosen(self) -> Any:
        if self._quick is self._plain:
            return self._plain
        quick = outermost() and jax.default_backend() == "cpu" and not _left_to_the_user()
        return self._quick if quick else self._plain


@overload
def jit(function: Callable[Parameters, Result], /, **options: Any) -> Program[Parameters, Result]: ...
@overload
def jit(
    function: None = None, /, **options: Any
) -> Callable[[Callable[Parameters, Result]], Program[Parameters, Result]]: ...
def jit(function: Any = None, /, **options: Any) -> Any:
    """Return `jax.jit(function, **options)` as an outermost program: for the functions of a module, as a decorator.

    With `quick` it is compiled in less time, for programs that only draw random numbers.
    """
    return partial(jit, **options) if function is None else Program(function, **options)


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

    path = _user_cache() / f"jax-{jax.__version__}" if directory is None else Path(directory).expanduser().absolute()
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
