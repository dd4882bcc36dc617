"""What classifier and regressor share: fit, partial_fit, warm starts, and what is known after them."""

import warnings
from functools import partial
from typing import Any

import jax
import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight

from jaxmlp.estimators import _lbfgs
from jaxmlp.estimators._checks import check_all_rows_at_once, check_loss, check_same_net, loss_of
from jaxmlp.estimators._drive import Course, Table, computing, drive, seeds_of, started, with_curves
from jaxmlp.estimators._fitted import Fitted
from jaxmlp.estimators._history import Before, forget, going_on, keep_course
from jaxmlp.estimators._inputs import Ready, Rows, near_one, present, scaled_rows, scaled_targets, set_aside, units_of
from jaxmlp.estimators._orders import draw_layers
from jaxmlp.estimators._parameters import SOLVERS, sizes_of
from jaxmlp.estimators._program import Member, Program, Run
from jaxmlp.estimators._recipes import member_of, numbers_of, program_of, recipe_of
from jaxmlp.estimators._watching import Watch
from jaxmlp.layer import Layer


class BaseMLP(Fitted, BaseEstimator):
    """The course of `fit` and `partial_fit`."""

    n_iter_: int
    loss_: float

    def _fit(self, X: Any, y: Any, given: dict[str, Any], *, incremental: bool = False) -> Any:
        ready = self._prepare(X, y, given, incremental=incremental)
        watching = Watch(self, X, y, given.get("sample_weight"), called=not incremental)
        with computing(ready.dtype, self.device), watching as watch:
            table = self._table(ready)
            if self._steps():
                self._descend(table, self._course(ready, watched=watch.looks, once=incremental), ready.rngs, watch)
            else:
                self._minimise(table, watch)
        self._check_finite()
        return self

    def _prepare(self, X: Any, y: Any, given: dict[str, Any], *, incremental: bool = False) -> Ready:
        """Check what is given, draw what is drawn, and return what a run is made of; a first fit keeps its start."""
        hidden = sizes_of(self.hidden_layer_sizes)
        first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        if not first:
            check_same_net(self)
        if not self._steps():
            check_all_rows_at_once(self, given)
        rows, seen = self._rows(X, y, given.get("sample_weight"), incremental=incremental, reset=first)
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        validation = self._validation(given, seen)
        rng = check_random_state(self.random_state)
        rngs = self._generators(rng)
        sizes = (self.n_features_in_, *hidden, self._width())
        drawn = [draw_layers(each, sizes, self.activation) for each in rngs] if first else None
        if self.early_stopping and validation is None and self._steps():
            rows, validation = set_aside(rows, self.validation_fraction, rng, self._strata(rows))
        if drawn is not None:
            self._skips = self.residual
            self._units = units_of(rows, x=self.scale, y=self.scale and self._scales_targets())
            self._keep(self._with_norms(drawn), rows.x.dtype)
            forget(self)
        if self._steps() and self.batch_size != "auto" and self.batch_size > rows.x.shape[0]:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=5
            )
        batch = min(200 if self.batch_size == "auto" else self.batch_size, rows.x.shape[0])
        full = batch == rows.x.shape[0] or not self._steps()
        self._batch = None if full else batch
        self._loss_fitted, self._curve = loss_of(self), self.activation
        dtype = self._dtype(rows.x.dtype, full=full)
        return Ready(rows, validation, rngs, batch, dtype)

    def _course(self, ready: Ready, *, watched: bool = False, once: bool = False) -> Course:
        nobody = np.zeros(self.n_members, bool)
        return Course(1 if once else self.max_iter, ready.batch_size, self.shuffle, nobody, watched, once)

    def _check_finite(self) -> None:
        if not all(np.isfinite(a).all() for a in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
                "preprocessed."
            )

    def _rows(self, X: Any, y: Any, weight: Any, *, incremental: bool, reset: bool) -> tuple[Rows, Any]:
        X, targets, labels = self._validate(X, y, incremental=incremental, reset=reset)
        if weight is not None:
            weight = _check_sample_weight(weight, X, dtype=np.float64)
            if (weight < 0).any():
                raise ValueError("Negative values in data passed to `sample_weight`.")
        return present(Rows(X, targets, self._weighted(weight, labels))), (labels, weight)

    def _validation(self, given: dict[str, Any], seen: Any) -> Rows | None:
        """Return the caller's own validation data, their classes weighed as those that are `seen` in training.

        Raises:
          ValueError: for inputs without targets, or targets without inputs.
        """
        X, y = given.get("X_val"), given.get("y_val")
        if (X is None) != (y is None):
            raise ValueError("X_val and y_val must be given together; got one of them; pass both, or neither")
        if X is None:
            return None
        try:
            X, targets, labels = self._validate(X, y, incremental=True, reset=False)
        except ValueError as error:
            raise ValueError(f"X_val and y_val must be as X and y; {error}") from error
        return Rows(X, targets, self._weighted(None, labels, seen))

    def _generators(self, rng: Any) -> list[Any]:
        """Return the generator of each member; that of a single one is the estimator's own, as in scikit-learn."""
        if self.n_members == 1:
            return [rng]
        return [np.random.RandomState(seed) for seed in rng.randint(2**31 - 1, size=self.n_members)]

    def _steps(self) -> bool:
        """Return whether the solver takes steps on batches."""
        return self.optimizer is not None or self.solver in SOLVERS

    def _dtype(self, given: Any, *, full: bool) -> Any:
        """Return in which dtype a net is trained; see the parameter `dtype`."""
        if self.dtype is not None:
            return np.dtype(self.dtype if self.dtype == "float64" else np.float32)
        return np.dtype(np.float64 if full and given == np.float64 else np.float32)

    def _with_norms(self, drawn: list[Any]) -> list[Layer]:
        """Return drawn layers (w, b) of all members as one net, with the numbers of its norms."""
        stacked: Any = [[np.stack(parts) for parts in zip(*each, strict=True)] for each in zip(*drawn, strict=True)]
        layers = [Layer(w, b) for w, b in stacked]
        if self.norm is None:
            return layers
        ones = [np.ones_like(layer.b) for layer in layers[:-1]]
        shifts = [np.zeros_like(a) if self.norm == "layer" else None for a in ones]
        return [
            *(a._replace(scale=one, shift=shift) for a, one, shift in zip(layers, ones, shifts, strict=False)),
            layers[-1],
        ]

    def _table(self, ready: Ready) -> Table:
        rows, validation, dtype = ready.rows, ready.validation, ready.dtype
        dense, sparse = scaled_rows(self._units, dtype), not isinstance(rows.x, np.ndarray)
        seen = None
        if validation is not None:
            near, _ = near_one(validation.weight)
            own = None if near is None else near.astype(dtype)
            held_out = scipy.sparse.csr_array(validation.x) if sparse else dense(validation.x)
            seen = (held_out, scaled_targets(validation.y, self._units, dtype), own)
        near, unit = near_one(rows.weight)
        return Table(
            rows.x.tocsr() if sparse else dense(rows.x),
            self._coded(scaled_targets(rows.y, self._units, dtype), dtype),
            None if near is None else near.astype(dtype),
            seen,
            np.asarray(np.clip(unit, np.finfo(dtype).tiny, np.finfo(dtype).max), dtype),
            dense if sparse else None,
        )

    def _start(self, table: Table, course: Course) -> tuple[tuple[Layer, ...], Member, Program]:
        """Return the first layers of the members of a run, their numbers, and the program that trains them."""
        rows = len(table.y)
        layers = self._scaled_layers(table.unit.dtype)
        recipe = recipe_of(self, self._sizes(), self._loss(), self._targets())
        check_loss(self, recipe, layers, table.y)
        program = program_of(self, recipe, validated=table.validation is not None)
        member = member_of(self, rows, -(-rows // course.batch_size), layers[0].w.dtype)
        return layers, jax.tree.map(lambda a: np.stack([a] * self.n_members), member), program

    def _descend(self, table: Table, course: Course, rngs: list[Any], watch: Watch) -> None:
        """Take the steps of a course, and keep where they led."""
        layers, member, program = self._start(table, course)
        before = Before.of(self)
        run = going_on(self, started(layers, member, program, seeds_of(rngs)), once=course.once)
        last = run = with_curves(run, course.epochs, program)
        interrupted = False
        try:
            watch.begin(range(self.n_members))
            for last in drive(run, member, table, program, course, rngs):
                if watch.looks:
                    course.ended[watch.end(lambda run=last: self._record(run, table, course, before))] = True
                    last = last._replace(running=np.asarray(last.running) & ~course.ended)
                    watch.begin(np.flatnonzero(last.running) if int(last.epoch.max()) < course.epochs else ())
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=5)
            interrupted = True
        self._record(last, table, course, before)
        goes_on = np.asarray(last.running).any()
        if not goes_on and not course.ended.any():
            watch.stopped()
        if goes_on and not interrupted and not course.once:
            self._warn_of_the_limit()

    def _warn_of_the_limit(self) -> None:
        warnings.warn(
            f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
            f"converged yet.",
            ConvergenceWarning,
            stacklevel=6,
        )

    def _minimise(self, table: Table, watch: Watch) -> None:
        """Let SciPy minimise the loss of all rows, a member after the other."""
        dtype = table.unit.dtype
        net = self._scaled_layers(dtype)
        recipe = recipe_of(self, self._sizes(), self._loss(), self._targets())
        check_loss(self, recipe, net, table.y)
        numbers = {name: np.asarray(value, dtype) for name, value in numbers_of(self).items()}
        limits = {"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol}
        found, results = net, []
        for i in range(self.n_members):
            own = jax.tree.map(lambda a, i=i: a[i], net)
            self.n_iter_ = 0
            watch.begin([i])
            tell = partial(self._tell, watch, found, i) if watch.looks else None
            layers, result = _lbfgs.minimise(own, table, recipe, numbers, limits, tell)
            found = _with_member(found, i, layers)
            results.append(result)
        self.n_iter_ = max(_lbfgs.iterations(result, self.max_iter) for result in results)
        self.loss_ = float(np.mean([result.fun for result in results]))
        self._keep(list(found), self.coefs_[0].dtype)

    def _tell(self, watch: Watch, net: Any, member: int, layers: Any, result: Any) -> bool:
        """Tell of an iteration of the solver that takes all rows at once."""
        self.n_iter_ += 1
        self.loss_ = float(result.fun)
        dtype = self.coefs_[0].dtype
        ended = watch.end(lambda: self._keep(list(_with_member(net, member, layers)), dtype))
        watch.begin([member] if self.n_iter_ < self.max_iter and not ended else ())
        return bool(ended)

    def _record(self, run: Run, table: Table, course: Course, before: Before) -> None:
        """Hold what is known after an epoch."""
        host = jax.device_get(run)
        self._keep(list(host.kept), self.coefs_[0].dtype)
        keep_course(self, host, len(table.y), before)

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: sparse inputs are taken."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _with_member(net: Any, member: int, layers: Any) -> Any:
    """Return the layers of all members, with other ones of one."""

    def put(all_of_them: Any, own: Any) -> np.ndarray:
        wide = np.array(all_of_them, np.float64)
        wide[member] = own
        return wide

    return jax.tree.map(put, net, layers)
