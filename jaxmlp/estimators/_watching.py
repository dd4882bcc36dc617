"""Who looks on while an estimator trains: scikit-learn's callbacks, where it has them, and `verbose`."""

from collections.abc import Callable, Iterable
from typing import Any, Self

import numpy as np

from jaxmlp.estimators._recipes import rate_rule

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # before scikit-learn 1.9: `verbose` alone
    CallbackSupportMixin = type("CallbackSupportMixin", (), {})
CallbackSupport: Any = CallbackSupportMixin


class Watch:
    """The tasks of one fit, as scikit-learn's callbacks see them (SLEP 23, scikit-learn 1.9).

    A fit has an epoch as its sub-task; that of an ensemble has a member, and a member an epoch. Nothing is fetched from
    the device unless somebody asks for it.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, weight: Any, *, called: bool = True):
        self._estimator = estimator
        # Validation data are not among the metadata: a scorer is called with all of them.
        metadata = {} if weight is None else {"sample_weight": weight}
        self._told = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self._root: Any = None
        self._members: list[Any] = []
        self._open: dict[int, Any] = {}
        self._rate = 0.0  # of the epoch before
        self._called = called and bool(getattr(estimator, "_skl_callbacks", None))
        self.looks = bool(estimator.verbose) or self._called

    def __enter__(self) -> Self:
        if self._called:
            estimator, most = self._estimator, self._estimator.max_iter
            members = estimator.n_members
            if members == 1:
                self._root = estimator._init_callback_context(max_subtasks=most)
                self._members = [self._root]
            else:
                self._root = estimator._init_callback_context(max_subtasks=members, sequential_subtasks=False)
                self._members = [self._root.subcontext("member", i, most) for i in range(members)]
            for task in self._tasks():
                task.call_on_fit_task_begin(**self._told)
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        if kind is not None or not self._called:
            return
        for task in self._open.values():  # begun, and ended before its end: nothing is told of it
            task.call_on_fit_task_end(**self._told)
        for member, task in enumerate(self._tasks()[1:]):
            task.call_on_fit_task_end(**self._told, reconstruction_attributes=self._view(member))
        self._root.call_on_fit_task_end(**self._told, reconstruction_attributes=dict)

    def _tasks(self) -> list[Any]:
        return [self._root, *(task for task in self._members if task is not self._root)]

    def _view(self, member: int) -> Callable[[], dict[str, Any]]:
        return lambda: self._estimator.attributes_of_member(member)

    def begin(self, members: Iterable[Any]) -> None:
        """Tell that an epoch of these members begins."""
        if self._called:
            self._open = {int(i): self._members[i].subcontext("epoch") for i in members}
            for task in self._open.values():
                task.call_on_fit_task_begin(**self._told)

    def end(self, record: Callable[[], Any]) -> list[int]:
        """Tell that an epoch has ended, and return the members who shall take no more.

        `record` fetches what is known, and sets the attributes of the estimator; a callback gets a copy of it.
        """
        estimator, fetched = self._estimator, []

        def attributes(member: int) -> dict[str, Any]:
            if not fetched:
                record()
                fetched.append(True)
            return estimator.attributes_of_member(member)

        if estimator.verbose:
            attributes(0)
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
            if getattr(estimator, "validation_scores_", None):
                print(f"Validation score: {estimator.validation_scores_[-1]:f}")
            self._tell_of_the_rate()
        ended = []
        for member, task in self._open.items():
            if task.call_on_fit_task_end(
                **self._told, reconstruction_attributes=lambda member=member: attributes(member)
            ):
                ended.append(member)
        self._open = {}
        return ended

    def stopped(self) -> None:
        """Print that the rule of stopping has ended the run, in scikit-learn's words."""
        if self._estimator.verbose:
            adapts = rate_rule(self._estimator) == "adaptive"
            self._complain("Learning rate too small. Stopping." if adapts else "Stopping.")

    def _tell_of_the_rate(self) -> None:
        """Print that an adaptive rate has fallen; of an ensemble the mean of the members' rates."""
        if rate_rule(self._estimator) != "adaptive":
            return
        rate = float(np.mean(self._estimator._solver[2]))
        if rate < self._rate:
            self._complain(f"Setting learning rate to {rate:f}")
        self._rate = rate

    def _complain(self, then: str) -> None:
        estimator = self._estimator
        what = "Validation score" if estimator.early_stopping else "Training loss"
        print(
            f"{what} did not improve more than tol={estimator.tol:f} for {estimator.n_iter_no_change} consecutive "
            f"epochs. {then}"
        )
