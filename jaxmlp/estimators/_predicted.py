"""The distributions that a regressor predicts: an even mixture of its members' Gaussians, Student's t or counts."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import stats

from jaxmlp import _check

if TYPE_CHECKING:
    from jaxmlp.population import Mixture

HALVINGS = 60  # of an interval, until its ends are as close as float64 knows


class Predicted(NamedTuple):
    """What members predict of each row; of counts the means are the rates, and there are no scales."""

    kind: str  # "gaussian", "student", "rate"
    means: np.ndarray  # (members, rows, d)
    squares: Any  # of the scales, (members, rows, d)
    df: float = 4.0

    @property
    def noise(self) -> np.ndarray:
        """The mean of the members' variances, (rows, d).

        Raises:
          ValueError: for Student's t without a variance.
        """
        if self.kind == "rate":
            return self.means.mean(0)
        if self.kind != "student":
            return self.squares.mean(0)
        if self.df <= 2:
            raise ValueError(
                f"df of the loss student_t must be above 2 for a variance; got {self.df}; use predict_quantiles"
            )
        return self.squares.mean(0) * (self.df / (self.df - 2))

    def _members(self) -> Any:
        """Return the members' distributions, as SciPy has them."""
        if self.kind == "rate":
            return stats.poisson(self.means)
        if self.kind == "student":
            return stats.t(self.df, self.means, np.sqrt(self.squares))
        return stats.norm(self.means, np.sqrt(self.squares))

    def quantiles(self, levels: np.ndarray) -> np.ndarray:
        """Return the values (levels, rows, d) that the mixture stays below with these probabilities.

        By bisection between the lowest and the highest quantile of the members, between which it lies; of counts it is
        the smallest count whose probability, of it or less, is at least the level.
        """
        members = self._members()
        return np.stack([self._quantile(members, level) for level in levels])

    def _quantile(self, members: Any, level: float) -> np.ndarray:
        each = members.ppf(level)
        low, high = each.min(0), each.max(0)
        if self.kind == "rate":
            low = low - 1.0
            while (high - low > 1).any():
                middle = np.floor((low + high) / 2)
                enough = members.cdf(middle).mean(0) >= level
                low, high = np.where(enough, low, middle), np.where(enough, middle, high)
            return high
        for _ in range(HALVINGS if len(self.means) > 1 else 0):
            middle = 0.5 * (low + high)
            above = members.cdf(middle).mean(0) > level
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return 0.5 * (low + high)

    def sample(self, count: int, rng: np.random.RandomState) -> np.ndarray:
        """Return draws (count, rows, d); each draw is of one member, the same for all rows."""
        who = rng.randint(len(self.means), size=count)
        if self.kind == "rate":
            return rng.poisson(self.means[who]).astype(np.float64)
        scale = np.sqrt(self.squares[who])
        noise = rng.standard_t(self.df, scale.shape) if self.kind == "student" else rng.standard_normal(scale.shape)
        return self.means[who] + scale * noise

    def mixture(self) -> "Mixture":
        """Return it as `population.Mixture`, which tells the noise from what the members disagree about.

        Raises:
          ValueError: for members that are no Gaussians.
        """
        if self.kind != "gaussian":
            raise ValueError(
                "predict_dist must have Gaussians to mix: loss='gaussian', 'beta_gaussian' or 'crps'; got members of "
                f"kind {self.kind!r}; predict_quantiles and sample take them all"
            )
        from jaxmlp.population import Mixture  # of a room that few who fit one net have need of

        return Mixture(self.means, self.squares)  # type: ignore[arg-type]


def checked_levels(levels: Any) -> np.ndarray:
    """Return levels as a vector of numbers in (0, 1).

    Raises:
      ValueError: for others.
    """
    found = np.atleast_1d(np.asarray(levels, np.float64))
    if found.ndim != 1 or not found.size or not ((found > 0) & (found < 1)).all():
        raise ValueError(f"levels must be numbers in (0, 1); got {_check.shown(levels)}")
    return found
