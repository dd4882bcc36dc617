"""What the machine can do: the best rate of matrix products that was seen, whatever their shape."""

import time
from typing import Any

import jax
import jax.numpy as jnp

CPU_SHAPES = ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (784, 128, 256), (4096, 256, 784))
ACCELERATOR_SHAPES = ((4096, 4096, 4096), (8192, 8192, 8192), (16384, 16384, 16384))
SMALL = ((64, 64, 64),)


def matmul(dtype: str, *, shapes: Any = None, repeats: int = 5) -> float:
    """Return the best GFLOP/s of m x k by k x n products with operands in `dtype` and a float32 sum.

    On an accelerator dtype "tensorfloat32" asks for float32 operands in its tensor cores' own format.
    """
    best = 0.0
    precision = "tensorfloat32" if dtype == "tensorfloat32" else "float32" if dtype == "float32" else None
    kind = "float32" if dtype == "tensorfloat32" else dtype
    for m, k, n in shapes or (CPU_SHAPES if jax.default_backend() == "cpu" else ACCELERATOR_SHAPES):
        a, b = jnp.ones((m, k), kind), jnp.ones((k, n), kind)
        product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision, preferred_element_type=jnp.float32))
        flops = 2 * m * k * n
        calls = max(1, int((2e9 if jax.default_backend() == "cpu" else 2e13) / flops))
        product(a, b).block_until_ready()
        for _ in range(repeats):
            start = time.perf_counter()
            out = [product(a, b) for _ in range(calls)][-1]
            out.block_until_ready()
            best = max(best, calls * flops / (time.perf_counter() - start) / 1e9)
    return best


def training_flops(sizes: tuple[int, ...]) -> int:
    """Return the additions and multiplications of the products of a training step for one example.

    2 in out for each layer forward, as many for the gradient of its weights, and for the gradient of its input, which
    the first layer has no need of.
    """
    first, *rest = (m * n for m, n in zip(sizes, sizes[1:], strict=False))
    return 4 * first + 6 * sum(rest)


def bandwidth(size: int, repeats: int = 5) -> float:
    """Return the best GB/s of adding one to an array of `size` floats: as many bytes read as written."""
    add = jax.jit(lambda a: a + 1)
    a = jnp.ones(size)
    add(a).block_until_ready()
    best = 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        add(a).block_until_ready()
        best = max(best, 8 * size / (time.perf_counter() - start) / 1e9)
    return best
