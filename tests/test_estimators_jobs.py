"""Estimators in workers of joblib: they share the cores that it hands out, and give the numbers of one process."""

import os

import numpy as np
import pytest

pytest.importorskip("sklearn")
import joblib
from joblib import Parallel, delayed
from sklearn.datasets import load_iris

from jaxmlp.estimators import MLPClassifier

X, Y = load_iris(return_X_y=True)


def fitted(seed):
    net = MLPClassifier((4,), solver="lbfgs", tol=0.1, max_iter=50, random_state=seed).fit(X, Y)

    return net.coefs_, os.environ.get("NPROC")


def test_workers_take_no_more_threads_than_they_are_given(monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)
    (first, limit), (second, other) = Parallel(n_jobs=2)(delayed(fitted)(seed) for seed in (0, 1))
    assert limit == other == str(max(joblib.cpu_count() // 2, 1))
    for found, seed in ((first, 0), (second, 1)):
        for a, b in zip(found, fitted(seed)[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    assert "NPROC" not in os.environ  # of the process itself nothing is changed
