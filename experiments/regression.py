"""Does a perceptron trained on squared error hold its own on a real table?

    python -m experiments regression

Diabetes progression from ten measurements of 442 patients (Efron 2004, as scikit-learn ships it), five folds,
every fold standardised by its own training rows, all folds and seeds in one program. The network without a
hidden layer must come to the predictions of least squares, and a perceptron, ten seeds averaged, must be as good
as ridge regression on the same folds, to 2 %.
"""

from typing import Any

import jax
import numpy as np
import optax
from sklearn.datasets import load_diabetes

from experiments.report import BLUE, GREEN, GREY, ORANGE, Report, canvas
from experiments.tables import Table, together
from jaxmlp import MLP, Recipe, data, linear, losses, population
from jaxmlp.training import CosineAdamW

FOLDS, SEEDS = 5, 10
RIDGE = 1.0  # scikit-learn's alpha; the best of 0, 0.1, 1, 10 and 100 on these folds
LINE = MLP((10, 1))


def run(report: Report) -> None:
    """Fit ridge, the line and the perceptron on each fold, and compare their errors on its test rows."""
    found: Any = load_diabetes(scaled=False)
    x, y = np.asarray(found.data), np.asarray(found.target)[:, None]
    folds = jax.jit(data.k_folds, static_argnums=(1, 2))(jax.random.key(0), len(x), FOLDS)
    table = Table("diabetes", x, y, [(np.asarray(train), np.asarray(test)) for train, test in folds])
    predicted = predictions(report, table)
    exact = predicted.pop("least squares")
    gap = max(abs(a - b).max() for a, b in zip(predicted["line"], exact, strict=True))

    units, tests = table.units, [y[test] for _, test in table.splits]
    predicted = {
        name: [std * z + mean for z, (mean, std) in zip(outputs, units, strict=True)]
        for name, outputs in predicted.items()
    }
    errors = {
        name: [float(np.sqrt(np.square(yhat - seen).mean())) for yhat, seen in zip(outputs, tests, strict=True)]
        for name, outputs in predicted.items()
    }
    rmse = {name: float(np.mean(values)) for name, values in errors.items()}
    report.claim("no hidden layer: least squares", expected="gap < 1e-2 sd", measured=f"{gap:.1e} sd", holds=gap < 1e-2)
    report.claim(
        "RMSE of the perceptron, beside ridge",
        expected=f"<= 1.02 x {rmse['ridge']:.2f}",
        measured=f"{rmse['perceptron']:.2f}",
        holds=rmse["perceptron"] <= 1.02 * rmse["ridge"],
    )
    report.claim(
        "both far below the mean's",
        expected=f"< 0.75 x {rmse['mean']:.1f}",
        measured=f"{rmse['perceptron'] / rmse['mean']:.2f} x",
        holds=rmse["perceptron"] < 0.75 * rmse["mean"],
    )
    draw(report, errors, np.concatenate(tests), np.concatenate(predicted["perceptron"]))


def predictions(report: Report, table: Table) -> dict[str, list[np.ndarray]]:
    """Return what each model says about each fold's test rows, standardised: all folds at once, in one table."""
    rows = together([table.rows(fold) for fold in range(FOLDS)])
    known = table.features, table.targets
    report.stage(f"the line in closed form and by L-BFGS, {FOLDS} folds")
    # A standardised column has mean zero, so a row of zeros changes neither the mean nor the sum of squares.
    z, t = (np.where(rows[..., None] < 0, 0, a[rows]) for a in known)
    layers = jax.jit(jax.vmap(linear.least_squares, (0, 0, None)))
    lbfgs = Recipe(LINE, losses.squared_error, optax.lbfgs, epochs=100)
    keys = jax.random.split(jax.random.key(1), SEEDS)
    line, _ = population.fit(keys[:FOLDS], known, lbfgs, rows=rows)

    report.stage(f"{FOLDS} folds x {SEEDS} seeds of the perceptron at once")
    hidden = MLP((10, 32, 1), "tanh", dropout=True)
    recipe = Recipe(hidden, losses.squared_error, CosineAdamW(steps=60 * 6), epochs=60, batch_size=64)
    numbers = {"learning_rate": 3e-3, "weight_decay": 0.1, "dropout_rate": 0.2}
    fold, seed = np.divmod(np.arange(FOLDS * SEEDS), SEEDS)
    members, _ = population.fit(keys[seed], known, recipe, numbers, rows=rows[fold])
    votes = population.predict(hidden, members.params, table.features)
    outputs = {
        "mean": np.zeros((FOLDS, *table.targets.shape)),
        "ridge": population.predict(LINE, (layers(z, t, RIDGE),), table.features),
        "line": population.predict(LINE, line.params, table.features),
        "perceptron": np.asarray(votes).reshape(FOLDS, SEEDS, -1, 1).mean(1),
        "least squares": population.predict(LINE, (layers(z, t, 0.0),), table.features),
    }
    tests = [table.rows(fold, test=True) for fold in range(FOLDS)]
    return {name: [np.asarray(z)[i, test] for i, test in enumerate(tests)] for name, z in outputs.items()}


def draw(report: Report, errors: dict[str, list[float]], seen: np.ndarray, predicted: np.ndarray) -> None:
    """Draw the errors of each fold, and predicted against seen progression."""
    figure, (folds, scatter) = canvas(2)
    for i, (name, colour) in enumerate(zip(errors, (GREY, ORANGE, BLUE, GREEN), strict=True)):
        folds.plot([i] * FOLDS, errors[name], "o", color=colour, alpha=0.6)
        folds.plot([i - 0.25, i + 0.25], [np.mean(errors[name])] * 2, color=colour, linewidth=3)
    folds.set(title="Five folds, and their mean", ylabel="RMSE, points of progression")
    folds.set_xticks(range(len(errors)), list(errors))
    scatter.plot(seen, predicted, ".", color=GREEN, alpha=0.5)
    scatter.plot([25, 350], [25, 350], color=GREY, linestyle="--")
    scatter.set(title="The perceptron, rows it has not seen", xlabel="progression", ylabel="prediction")
    report.figure(figure)
