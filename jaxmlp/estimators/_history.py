"""What scikit-learn's perceptrons tell of their training, kept from one call to the next."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmlp.estimators._program import Run


def forget(estimator: Any) -> None:
    """Set what is told to where a first fit begins."""
    early = estimator.early_stopping and estimator._steps()
    estimator.n_iter_ = estimator.t_ = 0
    estimator.n_layers_, estimator.n_outputs_ = len(estimator.coefs_) + 1, estimator.coefs_[-1].shape[-1]
    estimator._no_improvement_count = np.zeros(estimator.n_members, np.int32)
    estimator._best = np.full(estimator.n_members, -np.inf if early else np.inf)
    estimator._solver = None
    if estimator._steps():
        estimator.loss_curve_ = []
        estimator.validation_scores_ = [] if early else None
        estimator.validation_loss_curve_ = None
        estimator.best_validation_score_ = -np.inf if early else None
        estimator.best_loss_ = None if early else np.inf


def going_on(estimator: Any, run: Run, *, once: bool) -> Run:
    """Return a run that goes on from where the estimator stood; for `partial_fit`, `once`, the solver goes on too."""
    dtype = run.total.dtype
    seen = np.full(estimator.n_members, getattr(estimator, "t_", 0), dtype)
    early = getattr(estimator, "best_validation_score_", None) is not None
    if bool(estimator.early_stopping) == early and hasattr(estimator, "_best"):  # else another rule from now on
        run = run._replace(waited=estimator._no_improvement_count, best=estimator._best.astype(dtype))
    run = run._replace(seen=seen)
    solver = getattr(estimator, "_solver", None)
    if not once or solver is None:
        return run
    leaves, step, rate = solver
    tree = jax.tree.structure(run.state.opt_state)
    like = jax.tree.leaves(run.state.opt_state)
    if [np.shape(a) for a in leaves] != [np.shape(a) for a in like]:  # another solver since
        return run
    moved = [np.asarray(a, b.dtype) for a, b in zip(leaves, like, strict=True)]
    state = run.state._replace(opt_state=jax.tree.unflatten(tree, moved), step=step)
    return run._replace(state=state, rate=rate.astype(dtype))


class Before(NamedTuple):
    """What was told before this call of fit, which a warm start goes on from."""

    loss: list[float]
    score: list[float]
    validation_loss: list[float]
    seen: int

    @staticmethod
    def of(estimator: Any) -> "Before":
        """Return it as it is now."""
        names = ("loss_curve_", "validation_scores_", "validation_loss_curve_")
        loss, score, validation_loss = (list(getattr(estimator, name, None) or []) for name in names)
        return Before(loss, score, validation_loss, getattr(estimator, "t_", 0))


def keep_course(estimator: Any, run: Run, rows: int, before: Before) -> None:
    """Hold what a run has told so far; the losses are means over the members."""
    epochs = int(run.epoch.max())
    last = np.minimum(np.arange(epochs), np.maximum(run.epoch[:, None] - 1, 0))  # one that has ended stays as it was
    told = {
        name: np.take_along_axis(curve, last, axis=1).astype(np.float64).mean(axis=0).tolist()
        for name, curve in run.curves.items()
    }
    estimator.loss_curve_ = before.loss + told["loss"]
    if "score" in told:
        estimator.validation_scores_ = before.score + told["score"]
        estimator.validation_loss_curve_ = before.validation_loss + told["validation_loss"]
    estimator.n_iter_, estimator.t_ = epochs, before.seen + rows * epochs
    estimator._no_improvement_count, estimator._best = run.waited, run.best.astype(np.float64)
    if told["loss"]:
        estimator.loss_ = told["loss"][-1]
    best = float(np.mean(estimator._best))
    if estimator.early_stopping:
        estimator.best_validation_score_, estimator.best_loss_ = best, None
    else:
        estimator.best_validation_score_, estimator.best_loss_ = None, best
    leaves = [np.asarray(a) for a in jax.tree.leaves(run.state.opt_state)]
    estimator._solver = leaves, np.asarray(run.state.step), np.asarray(run.rate)
