"""What a regressor predicts: a number, its spread, quantiles, a mixture of distributions, draws."""

import abc
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_random_state

from jaxmlp import _check
from jaxmlp.estimators._base import BaseMLP
from jaxmlp.estimators._checks import check_same_loss
from jaxmlp.estimators._heads import Head, point, squares_of
from jaxmlp.estimators._predicted import Predicted, checked_levels

if TYPE_CHECKING:
    from jaxmlp.population import Mixture


class Predictor(BaseMLP):
    """The predictions of a regressor."""

    @abc.abstractmethod
    def _head(self) -> Head:
        """Return what the outputs mean."""

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return predictions (rows,), or (rows, outputs); with `return_std` their standard deviations too.

        The mean of the members and, of a loss that tells a spread, of its distribution; of quantiles the one nearest to
        the median. The variance is that of the noise, of the members' mean, and that between the members.

        Raises:
          ValueError: for `return_std` where neither the loss nor an ensemble tells a spread.
        """
        outputs = self._outputs(X)
        mean = self._point(outputs)
        if not return_std:
            return self._columns(mean.mean(0))
        if not self.tells_spread:
            raise ValueError(
                f"predict(X, return_std=True) must have a spread to tell; got loss={self.loss!r}, which has none, and "
                f"n_members=1; use loss='gaussian', or an ensemble: n_members=5"
            )
        noise = self._predicted(outputs).noise if self._head().tells else 0.0
        return self._columns(mean.mean(0)), self._columns(np.sqrt(mean.var(0) + noise))

    def predict_quantiles(self, X: Any, levels: Any = (0.1, 0.5, 0.9)) -> np.ndarray:
        """Return the values that targets stay below with these probabilities, (rows, [outputs,] levels).

        Of the mixture of the members' distributions. Of the loss "quantile" the levels are those that it was trained
        for, `loss_params={"level": (0.1, 0.5, 0.9)}`, and the mean of the members.

        Raises:
          ValueError: for levels outside (0, 1), levels that were not trained, and a loss that tells no distribution.
        """
        wanted, outputs = checked_levels(levels), self._outputs(X)
        if self._head().kind == "quantiles":
            found = self._trained_quantiles(outputs.mean(0), wanted)
        else:
            found = self._predicted(outputs).quantiles(wanted)
        found = np.moveaxis(found, 0, -1)  # (rows, outputs, levels)
        return found[:, 0] if found.shape[1] == 1 else found

    def predict_dist(self, X: Any) -> "Mixture":
        """Return the mixture of the members' Gaussians: mean, noise (`aleatoric`) and disagreement (`epistemic`).

        Raises:
          ValueError: for a loss whose outputs are no Gaussians.
        """
        return self._predicted(self._outputs(X)).mixture()

    def sample(self, X: Any, n: int = 1, random_state: Any = None) -> np.ndarray:
        """Return draws of the targets, (n, rows), or (n, rows, outputs); each is of one member, the same for all rows.

        Raises:
          ValueError: for a loss that tells no distribution, and for n below 1.
        """
        n = _check.positive_int("n", n)
        found = self._predicted(self._outputs(X)).sample(n, check_random_state(random_state))
        return found[:, :, 0] if found.shape[2] == 1 else found

    @property
    def tells_spread(self) -> bool:
        """Whether `predict` takes `return_std`: of a loss that tells a spread, and of an ensemble."""
        return self._head().tells or self._form["n_members"] > 1

    def _outputs(self, X: Any) -> np.ndarray:
        check_same_loss(self)
        return super()._outputs(X)

    def _point(self, outputs: np.ndarray) -> np.ndarray:
        found = point(self._head(), outputs, self.numbers_of_loss().get("level"))
        if self._units.y is not None and not self._folds_targets():
            found = found * self._units.y.scale + self._units.y.shift
        return found

    def _predicted(self, outputs: np.ndarray) -> Predicted:
        head, numbers = self._head(), self.numbers_of_loss()
        if not head.tells:
            raise ValueError(
                f"the loss must tell a distribution, as 'gaussian', 'student_t', 'crps' and 'poisson' do; got "
                f"loss={self.loss!r}"
            )
        squares = None
        if head.spreads:
            squares = squares_of(outputs, numbers)
            squares = squares if self._units.y is None else squares * self._units.y.scale**2
        return Predicted(head.kind, self._point(outputs), squares, float(numbers.get("df", 4.0)))

    def _trained_quantiles(self, outputs: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Return the quantiles (levels, rows, outputs) of outputs that are quantiles."""
        trained = np.atleast_1d(self.numbers_of_loss()["level"])
        places = [np.flatnonzero(np.isclose(trained, level)) for level in wanted]
        if not all(len(place) for place in places):
            raise ValueError(
                f"levels must be among those that were trained, {trained.tolist()}; got {wanted.tolist()}; fit with "
                f"loss_params={{'level': ...}}, or use loss='gaussian', which tells all"
            )
        each = np.stack(np.split(outputs, len(trained), axis=-1))
        return each[[place[0] for place in places]]

    def _columns(self, values: np.ndarray) -> np.ndarray:
        return values.ravel() if values.shape[-1] == 1 else values
