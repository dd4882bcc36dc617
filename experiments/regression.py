"""Does a perceptron trained on squared error hold its own on a real table?

    python -m experiments regression

Diabetes progression from ten measurements of 442 patients (Efron 2004, as scikit-learn ships it), five folds,
every fold standardised by its own training rows, the seeds of a fold in one program. The network without a
hidden layer must come to the predictions of least squares, and a perceptron, ten seeds averaged, must be as good
as ridge regression on the same folds, to 2 %.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_diabetes

import jaxmlp
from experiments.report import BLUE, GREEN, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, Recipe, data, linear, losses, metrics
from jaxmlp.training import CosineAdamW

SEEDS = 10
RIDGE = 1.0  # scikit-learn's alpha; the best of 0, 0.1, 1, 10 and 100 on these folds


def run(report: Report) -> None:
    """Fit ridge, the line and the perceptron on each fold, and compare their errors on its test rows."""
    table, target = load_diabetes(return_X_y=True, scaled=False)
    x, y = np.asarray(table, "f"), np.asarray(target, "f")[:, None]
    plain = Recipe(MLP((10, 1)), losses.squared_error, optax.lbfgs, epochs=100)
    hidden = MLP((10, 32, 1), "tanh", dropout=True)
    mlp = Recipe(hidden, losses.squared_error, CosineAdamW(steps=60 * 6), epochs=60, batch_size=64)
    numbers = {"learning_rate": 3e-3, "weight_decay": 0.1, "dropout_rate": 0.2}
    keys = jax.random.split(jax.random.key(1), SEEDS)

    errors: dict[str, list[float]] = {"mean": [], "ridge": [], "line": [], "perceptron": []}
    gap, seen, predicted = 0.0, [], []
    for i, (train, test) in enumerate(data.k_folds(jax.random.key(0), len(x), 5)):
        report.stage(f"fold {i + 1} of 5")
        of_x, of_y = data.statistics(x[train]), data.statistics(y[train])
        z, z_test = (data.standardise(x[rows], of_x) for rows in (train, test))
        t = data.standardise(y[train], of_y)
        closed, exact = linear.least_squares(z, t, l2=RIDGE), linear.least_squares(z, t)
        line, _ = jaxmlp.fit(jax.random.key(0), (z, t), plain)
        members, _ = jax.vmap(jaxmlp.fit, (0, None, None, None))(keys, (z, t), mlp, numbers)
        outputs = {
            "mean": jnp.zeros((len(test), 1)),
            "ridge": MLP((10, 1)).apply((closed,), z_test),
            "line": MLP((10, 1)).apply(line.params, z_test),
            "perceptron": jax.vmap(hidden.apply, (0, None))(members.params, z_test).mean(0),
        }
        gap = max(gap, float(abs(outputs["line"] - MLP((10, 1)).apply((exact,), z_test)).max()))
        for name, output in outputs.items():
            errors[name].append(float(metrics.rmse(data.unstandardise(output, of_y), y[test])))
        seen.append(y[test])
        predicted.append(data.unstandardise(outputs["perceptron"], of_y))

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
    draw(report, errors, np.concatenate(seen), np.concatenate(predicted))


def draw(report: Report, errors: dict[str, list[float]], seen: np.ndarray, predicted: np.ndarray) -> None:
    """Draw the errors of each fold, and predicted against seen progression."""
    figure, (folds, scatter) = canvas(2)
    for i, (name, colour) in enumerate(zip(errors, (GREY, ORANGE, BLUE, GREEN), strict=True)):
        folds.plot([i] * 5, errors[name], "o", color=colour, alpha=0.6)
        folds.plot([i - 0.25, i + 0.25], [np.mean(errors[name])] * 2, color=colour, linewidth=3)
    folds.set(title="Five folds, and their mean", ylabel="RMSE, points of progression")
    folds.set_xticks(range(len(errors)), list(errors))
    scatter.plot(seen, predicted, ".", color=GREEN, alpha=0.5)
    scatter.plot([25, 350], [25, 350], color=GREY, linestyle="--")
    scatter.set(title="The perceptron, rows it has not seen", xlabel="progression", ylabel="prediction")
    report.figure(figure)
