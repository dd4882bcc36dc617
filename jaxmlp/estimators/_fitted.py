"""What an estimator holds once it is fitted, all of it NumPy's: weights in the units of the data, scaling, solver."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Self

import jax
import numpy as np
from sklearn.utils.validation import check_is_fitted

from jaxmlp.estimators._checks import rows_of
from jaxmlp.estimators._converting import from_sklearn, to_sklearn
from jaxmlp.estimators._files import save
from jaxmlp.estimators._forward import Net
from jaxmlp.estimators._parameters import CURVES, Parameters
from jaxmlp.estimators._recipes import numbers_of, recipe_of
from jaxmlp.estimators._units import Columns, Units, fold, unfold
from jaxmlp.layer import Layer
from jaxmlp.recipe import Recipe
from jaxmlp.transforms import Scaled, Standard
from jaxmlp.types import StrPath

FLOAT32_HOLDS = 1e3  # how many standard deviations a column may lie from zero, for a folded layer in float32


class Fitted(Parameters):
    """The state of a fitted estimator, and what is made of it."""

    coefs_: list[Any]
    intercepts_: list[Any]
    _units: Units = Units()
    _solver: Any
    _batch: int | None = None  # rows a step, where they are fewer than all
    out_activation_: str
    n_features_in_: int
    _norms: list[tuple[Any, Any]] = []  # scale and shift of each hidden layer, or none
    _curve: Any = None  # the parameter activation at the last fit; None of coefficients that were set
    _skips: bool | None = None  # the parameter residual when the net was drawn; None of coefficients that were set

    def _folded(self, weights: list[Any]) -> Units:
        """Return the part of the scaling that the layers themselves hold; their weights are (..., in, out) each."""
        square = len(weights) > 1 and weights[0].shape[-2] == weights[0].shape[-1]
        adds = self._skips_fitted and square  # its scaled input
        return Units(None if adds else self._units.x, self._units.y if self._folds_targets() else None)

    @property
    def _net(self) -> Net:
        inputs = self._units.x if self._folded(self.coefs_).x is None else None
        layers = self._with_norms_of(zip(self.coefs_, self.intercepts_, strict=True))
        form = self._form
        curve = form["activation"]
        curve = CURVES.get(curve, curve) if isinstance(curve, str) else curve
        return Net(layers, curve, form["norm"], form["residual"], inputs)

    def _outputs(self, X: Any) -> np.ndarray:
        """Return the outputs of all members, (members, rows, width)."""
        check_is_fitted(self)
        outputs = self._net(rows_of(self, X))
        return outputs[None] if outputs.ndim == 2 else outputs

    @property
    def _skips_fitted(self) -> bool:
        return bool(self.residual if self._skips is None else self._skips)

    @property
    def _form(self) -> dict[str, Any]:
        """The parameters of which the fitted net is made, whatever they are set to by now."""
        first = self.coefs_[0]
        scale, shift = (self._norms or [(None, None)])[0]  # without hidden layers there is no norm
        return {
            "n_members": len(first) if first.ndim == 3 else 1,
            "hidden_layer_sizes": tuple(int(w.shape[-1]) for w in self.coefs_[:-1]),
            "norm": None if scale is None else "rms" if shift is None else "layer",
            "residual": self._skips_fitted,
            "activation": self.activation if self._curve is None else self._curve,
        }

    def _with_norms_of(self, net: Iterable[tuple[Any, Any]]) -> list[Layer]:
        """Return layers (w, b) with the numbers of their norms; coefficients that a caller has set have none."""
        norms = self._norms or [(None, None)] * (len(self.coefs_) - 1)
        return [Layer(w, b, *norm) for (w, b), norm in zip(net, [*norms, (None, None)], strict=True)]

    def _sizes(self) -> tuple[int, ...]:
        """Return the widths of the net that is fitted."""
        return (*(w.shape[-2] for w in self.coefs_), self.coefs_[-1].shape[-1])

    def _keep(self, layers: list[Layer], dtype: Any) -> None:
        """Hold these layers of the net in scaled units, with the leading axis (members,), as coefficients."""
        folded = fold([(layer.w, layer.b) for layer in layers], self._folded([layer.w for layer in layers]))
        far = [a for a in self._units if a is not None and (np.abs(a.shift) > FLOAT32_HOLDS * a.scale).any()]
        if dtype != np.float32 or far:
            dtype = np.float64
        cut = (lambda a: a[0]) if len(layers[0].w) == 1 else (lambda a: a)
        self.coefs_ = [cut(w).astype(dtype) for w, _ in folded]
        self.intercepts_ = [cut(b).astype(dtype) for _, b in folded]
        wide = jax.tree.map(lambda a: cut(np.asarray(a, np.float64)), layers[:-1])
        self._norms = [(layer.scale, layer.shift) for layer in wide]

    def attributes_of_member(self, member: int) -> dict[str, Any]:
        """Return the attributes in which an estimator of one member differs from its ensemble."""
        if self._form["n_members"] == 1:
            return {}
        own = {
            name: jax.tree.map(lambda a: a[member], getattr(self, name)) for name in ("coefs_", "intercepts_", "_norms")
        }
        held = {name: vars(self).get(name) for name in ("_no_improvement_count", "_best", "_solver")}
        return {"n_members": 1, **own, **jax.tree.map(lambda a: a[member : member + 1], held)}

    def _scaled_layers(self, dtype: Any) -> tuple[Layer, ...]:
        """Return the layers of the net in scaled units, with the leading axis (members,), as they are trained."""
        net = unfold(list(zip(self.coefs_, self.intercepts_, strict=True)), self._folded(self.coefs_))
        layers = self._with_norms_of(net)
        one = self.coefs_[0].ndim == 2
        return jax.tree.map(lambda a: np.asarray(a[None] if one else a, dtype), tuple(layers))

    def save(self, path: StrPath) -> None:
        """Write the fitted estimator to one safetensors file, which `estimators.load` reads: no pickle, no code.

        Raises:
          ValueError: for one that is not fitted, whose parameters or labels JSON cannot hold, such as functions and
            generators, or a path that cannot be written.
        """
        save(self, path)

    @classmethod
    def from_sklearn(cls, estimator: Any) -> Self:
        """Return a fitted perceptron of scikit-learn as one of ours: it predicts the same, and goes on training.

        Raises:
          ValueError: for what is no fitted perceptron of scikit-learn of the same name.
        """
        return from_sklearn(cls, estimator)

    def to_sklearn(self) -> Any:
        """Return the estimator as scikit-learn's own of the same name; the scaling lies in its weights.

        Its solver begins anew where it goes on training.

        Raises:
          ValueError: for one that is not fitted, or has what scikit-learn's perceptrons have not.
        """
        return to_sklearn(self)

    @property
    def recipe_(self) -> Recipe:
        """What was trained, for all that takes a recipe.

        It lacks `schedule`, `class_weight`, and `label_smoothing` of yes and no, which lies in the targets.
        `hyperparams_` are its numbers: `jaxmlp.fit(key, data, recipe_, hyperparams_)` is another run of it.
        """
        recipe = recipe_of(self, self._sizes(), self._loss(), self._targets())
        recipe = dataclasses.replace(recipe, batch_size=self._batch)
        if self._units == Units():
            return recipe
        scaled = Scaled(
            recipe.model,
            x=None if self._units.x is None else Standard(),
            y=None if self._units.y is None else Standard(),
            head=self._head_of_scaled(),
        )
        return dataclasses.replace(recipe, model=scaled)

    @property
    def hyperparams_(self) -> dict[str, Any]:
        """The numbers of `recipe_`."""
        numbers = {"learning_rate": self.learning_rate_init, **numbers_of(self)}
        return numbers if self._units == Units() else {**numbers, "scaling": self._scaling()}

    @property
    def params_(self) -> Any:
        """The parameters that `recipe_.model` takes; those of an ensemble have the leading axis (members,)."""
        layers, scaling = self._scaled_layers(self.coefs_[0].dtype), self._scaling()
        members = self._form["n_members"]
        if members == 1:
            layers = jax.tree.map(lambda a: a[0], layers)
        else:
            scaling = jax.tree.map(lambda a: np.broadcast_to(a, (members, *a.shape)), scaling)
        return layers if self._units == Units() else {"model": layers, **scaling}

    def _scaling(self) -> dict[str, Any]:
        named = (("x", self._units.x), ("y", self._units.y))
        return {name: _standard(columns) for name, columns in named if columns is not None}


def _standard(columns: Columns) -> dict[str, np.ndarray]:
    """Return a scaling as `transforms.Standard` holds it."""
    return {"shift": np.asarray(columns.shift, np.float32), "scale": np.asarray(columns.scale, np.float32)}
