"""Does a run that was stopped end as one that was not, and does its model travel?

    python -m experiments classification --directory runs/digits

One network on scikit-learn's digits by `loop.train`: stopped by a budget after its first chunk, gone on with from its
checkpoint to the end that patience finds, and held bit for bit to the same run without a stop. Stop this one too, by
Ctrl-C or `kill -9`, and start it again. The model is then saved, loaded, exported and given to scikit-learn.
"""

from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import jaxmlp
from experiments.classification import recipe_for
from experiments.report import BLUE, GREY, ORANGE, Report, canvas
from jaxmlp import MLP, interop, loop, metrics
from jaxmlp.data import split


def run(report: Report, directory: Path) -> None:
    """Train in the directory, compare, and send the model round."""
    images, labels = load_digits(return_X_y=True)
    x, y = (images / 16 - 0.5).astype("f"), labels.astype("i4")
    train, test = split(jax.random.key(0), len(x), 0.25)
    fitted, held_out = train[: -len(train) // 5], train[-len(train) // 5 :]
    recipe = recipe_for(MLP((64, 128, 10)), len(fitted), epochs=200, batch_size=32)
    numbers = {"learning_rate": 3e-3, "weight_decay": 0.05}
    patience = loop.Patience(15)
    run = (jax.random.key(0), (x[fitted], y[fitted]), recipe, numbers)
    options = {"validation": (x[held_out], y[held_out]), "every": 5}

    report.stage(f"{recipe.model!r}, {len(fitted):,} digits, checkpoints in {directory}")
    with report.paused():
        loop.train(*run, **options, directory=directory, stop=[patience, loop.Budget(1e-3)], progress=False)
        state, history = loop.train(*run, **options, directory=directory, stop=patience)
    report.stage("the same without a stop")
    straight, whole = loop.train(*run, **options, stop=patience, progress=False)
    pairs = zip(jax.tree.leaves((state.params, history)), jax.tree.leaves((straight.params, whole)), strict=True)
    differ = sum(int(np.sum(np.asarray(a) != np.asarray(b))) for a, b in pairs)
    report.claim(
        "stopped and resumed, bit for bit", expected="0 differ", measured=f"{differ} differ", holds=differ == 0
    )
    report.claim(
        "patience ends the run, and brings the best weights",
        expected="< 200 epochs",
        measured=f"{len(history['loss'])}, best {int(np.argmin(history['validation_loss']))}",
        holds=len(history["loss"]) < 200,
    )

    outputs = recipe.model.apply(state.params, x[test])
    accuracy = float(metrics.accuracy(outputs, y[test]))
    file = directory / "model.safetensors"
    jaxmlp.save(file, recipe.model, state.params, metadata={"test_accuracy": accuracy})
    model, params = jaxmlp.load(file)
    program = jaxmlp.export(model, params)
    (directory / "model.stablehlo").write_bytes(program)
    theirs = interop.to_sklearn(model, params, classes=np.arange(10)).predict_proba(x[test])
    away = {
        "loaded": model.apply(params, x[test]),
        "exported": jax.export.deserialize(bytearray(program)).call(x[test]),
    }
    gaps = {name: float(jnp.max(jnp.abs(found - outputs))) for name, found in away.items()}
    gaps["scikit-learn"] = float(np.max(np.abs(theirs - np.asarray(jax.nn.softmax(outputs)))))
    for name, gap in gaps.items():
        report.claim(f"predictions, {name}", expected="gap <= 1e-5", measured=f"{gap:.1g}", holds=gap <= 1e-5)
    report.claim("test accuracy", expected=">= 95 %", measured=f"{accuracy:.2%}", holds=accuracy >= 0.95)
    _draw(report, history)


def _draw(report: Report, history: dict[str, jax.Array]) -> None:
    figure, (axis,) = canvas(width=5.5)
    epochs = np.arange(1, len(history["loss"]) + 1)
    best = int(np.argmin(history["validation_loss"]))
    axis.semilogy(epochs, history["loss"], color=GREY, label="training")
    axis.semilogy(epochs, history["validation_loss"], color=BLUE, label="validation")
    axis.plot(best + 1, history["validation_loss"][best], "o", color=ORANGE, label="best, brought back")
    axis.set(xlabel="epoch", ylabel="cross entropy", title="One run, stopped after 5 epochs and resumed")
    axis.legend()
    report.figure(figure)
