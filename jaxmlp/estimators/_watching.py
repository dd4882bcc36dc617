"""Who looks on while an estimator trains: scikit-learn's callbacks, where it has them, and `verbose`."""

from collections.abc import Callable
from typing import Any, Self

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # before scikit-learn 1.9: `verbose` alone
    CallbackSupportMixin = object
CallbackSupport: Any = CallbackSupportMixin


class Watch:
    """The tasks of one fit, as scikit-learn's callbacks see them (SLEP 23, scikit-learn 1.9).

    A fit has an epoch as its sub-task; that of an ensemble has a member, and a member an epoch. Nothing is fetched from
    the device unless somebody looks.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, given: dict[str, Any], *, called: bool = True):
        self._estimator = estimator
        self._told = {"estimator": estimator, "X": X, "y": y, "metadata": given}
        self._parents: list[Any] = []
        self._open: list[Any] = []
        self._called = called and hasattr(estimator, "set_callbacks")
        self.looks = bool(estimator.verbose) or self._called and bool(getattr(estimator, "_skl_callbacks", None))

    def __enter__(self) -> Self:
        if self._called:
            estimator, most = self._estimator, self._estimator.max_iter
            members = estimator.n_members
            if members == 1:
                root = estimator._init_callback_context(max_subtasks=most)
                self._parents = [root]
            else:
                root = estimator._init_callback_context(max_subtasks=members, sequential_subtasks=False)
                self._parents = [root, *(root.subcontext("member", i, most) for i in range(members))]
            for task in self._parents:
                task.call_on_fit_task_begin(**self._told)
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        if kind is None:
            for task in reversed(self._parents):
                task.call_on_fit_task_end(**self._told, reconstruction_attributes=dict)

    def begin(self) -> None:
        """Tell that an epoch begins."""
        if self.looks and self._called:
            self._open = [task.subcontext("epoch") for task in self._parents[-self._estimator.n_members :]]
            for task in self._open:
                task.call_on_fit_task_begin(**self._told)

    def end(self, record: Callable[[], Any]) -> bool:
        """Tell that an epoch has ended, and return whether somebody wants no more; `record` fetches the weights."""
        estimator = self._estimator
        if estimator.verbose:
            record()
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
            if getattr(estimator, "validation_scores_", None):
                print(f"Validation score: {estimator.validation_scores_[-1]:f}")

        def fetched() -> dict[str, Any]:
            record()  # sets the attributes of the estimator itself, of which a callback gets a copy
            return {}

        return any([task.call_on_fit_task_end(**self._told, reconstruction_attributes=fetched) for task in self._open])
