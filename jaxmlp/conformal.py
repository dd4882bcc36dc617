"""Split conformal intervals: they hold the next target with a probability that is promised, whatever made them.

Rows that were not trained on say how far off predictions are; the interval of a new row is as much wider. What is
promised needs that those rows and the new one are exchangeable, and nothing of the model: with n rows and k = ceil((n +
1) c) the probability is k / (n + 1), between c and c + 1 / (n + 1), over rows and target together, where no two scores
are equal (Vovk 2005, doi 10.1007/b106715; Lei 2018, doi 10.1080/01621459.2017.1307116). It is of all rows on average:
for one kind of them it may be less. Rows all count alike, so there are no weights.

    score = max(low - y, y - high) / scale,   radius = the k-th least score,   [low - radius scale, high + radius scale]

- of a mean: low = high = mean, and the score is |y - mean|;
- of a mean and a spread: as well scale = spread, and intervals are wide where the model doubts (Lei 2018);
- of two quantiles: low and high are they (Romano 2019, arXiv 1905.03222); the radius may be negative;
- of a distribution, a `population.Mixture` say: its quantiles, or its mean and the square root of its variance.
"""

import math
from fractions import Fraction

import jax.numpy as jnp
from jax import Array

from jaxmlp import _arguments, _check
from jaxmlp._arrays import taking
from jaxmlp._targets import number, spread, wide, widest
from jaxmlp.types import Number, Numeric


@taking("low", "high", "y")
def scores(low: Numeric, high: Numeric, y: Numeric, *, scale: Number = 1.0) -> Array:
    """Return max(low - y, y - high) / scale, by which the interval low ... high misses y; negative inside.

    Shapes: (batch, d) or (batch,), all alike; for an interval that holds all d outputs of a row at once take
    `scores(...).max(-1)`.

    Args:
      low: lower ends in the units of y; the mean, where there is nothing else.
      high: upper ends; the mean again.
      y: targets of rows that were not trained on.
      scale: 1, or the spread of each prediction, above 0.

    Raises:
      ValueError: for shapes that differ, what holds no floats, or a scale that is not above 0.

    >>> mean, y = jnp.array([1.0, 2.0]), jnp.array([1.5, 0.0])
    >>> scores(mean, mean, y), scores(mean, mean, y, scale=jnp.array([0.5, 4.0]))
    (Array([0.5, 2. ], dtype=float32), Array([1. , 0.5], dtype=float32))
    """
    (low, high, y), scale = _alike({"low": low, "high": high, "y": y}, scale)
    return jnp.maximum(low - y, y - high) / scale


@taking("scores")
def radius(scores: Numeric, coverage: float) -> Array:
    """Return the k-th least of n scores, k = ceil((n + 1) coverage): no more is above it than may be.

    Shapes: (n,) -> (), (n, d) -> (d,), each output for itself. For members, `jax.vmap` over theirs.

    Args:
      scores: of n rows that were not trained on; NaN makes the radius NaN where JAX traces them.
      coverage: the probability c in (0, 1) that is to be held, read as the decimal number that it prints as.

    Raises:
      ValueError: for scores that are not finite, a coverage outside (0, 1), and for fewer rows than c / (1 - c): then
        no score is large enough.

    >>> radius(jnp.arange(1.0, 20.0), 0.9)
    Array(18., dtype=float32)
    """
    _check.floating("scores", scores)
    if scores.ndim < 1:
        raise ValueError(f"scores must have one for each row, (n, ...); got {_check.describe(scores)}")
    if not 0 < _arguments.scalar("coverage", coverage) < 1:
        raise ValueError(f"coverage must lie in (0, 1); got {coverage}")
    _check.finite("scores", scores)
    # As a decimal number: 100 * 0.07 is above 7 in binary, and its ceiling would be 8.
    exact, n = Fraction(str(coverage)), len(scores)
    if (k := math.ceil((n + 1) * exact)) > n:
        raise ValueError(
            f"scores must be of at least {math.ceil(exact / (1 - exact))} rows, c / (1 - c), for a coverage of "
            f"{coverage}; got {n}; take more rows, or a coverage of at most {n} / {n + 1}"
        )
    ordered = jnp.sort(wide(scores), axis=0)  # NaN comes last
    return jnp.where(jnp.isnan(ordered[-1]), ordered[-1], ordered[k - 1])


@taking("low", "high")
def interval(low: Numeric, high: Numeric, radius: Number, *, scale: Number = 1.0) -> tuple[Array, Array]:
    """Return the intervals' ends low - radius scale and high + radius scale of new rows.

    A negative radius draws them in; where the lower end is then above the upper one, the interval is empty.

    Args:
      low: lower ends (batch, d) or (batch,), of the same model as those that were scored.
      high: upper ends, of the same shape.
      radius: one number, or one for each output, (d,), from `radius`.
      scale: what the scores were divided by, of these rows.

    Raises:
      ValueError: for shapes that do not fit, or a scale that is not above 0.

    >>> mean = jnp.array([0.0, 5.0])
    >>> interval(mean, mean, 2.0)
    (Array([-2.,  3.], dtype=float32), Array([2., 7.], dtype=float32))
    """
    number("radius", radius, -math.inf, math.inf)
    (low, high), scale = _alike({"low": low, "high": high}, scale)
    margin = spread("radius", radius, low) * scale
    return low - margin, high + margin


def _alike(arrays: dict[str, Numeric], scale: Number) -> tuple[list[Array], Array]:
    """Return arrays of one shape in one dtype, and the scale of each number of theirs."""
    for name, array in arrays.items():
        _check.floating(name, array)
    first, *others = arrays.values()
    if first.ndim < 1 or any(array.shape != first.shape for array in others):
        raise ValueError(
            f"{', '.join(arrays)} must have one shape, (batch, d) or (batch,); got "
            f"{', '.join(_check.describe(array) for array in arrays.values())}"
        )
    number("scale", scale, 0, math.inf, open_low=True)
    found = [jnp.asarray(array, widest(*arrays.values())) for array in arrays.values()]
    return found, jnp.broadcast_to(spread("scale", scale, found[0]), found[0].shape)
