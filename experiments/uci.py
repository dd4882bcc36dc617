"""Does it reach the published table of regression with uncertainty?

    python -m experiments uci --data DIR [NAME ...]
    python -m experiments uci [NAME ...]

Two protocols on each set, all splits and members one population:

- Deep Ensembles (Lakshminarayanan 2017, arXiv 1612.01474): one hidden ReLU layer of 50, 5 networks, 40 epochs, batches
  of 100, with the plain likelihood, and with its beta-weighted form (Seitzer 2022, arXiv 2203.09168).
- Tuned: two hidden layers, learning rate, weight decay and epochs chosen for each split on two random fifths of its
  training rows, where one number is fitted as well that stretches the variances; then 5 networks on all of them.

DIR holds a folder a set: data.txt, index_features.txt, index_target.txt, n_splits.txt, index_train_I.txt and
index_test_I.txt. Without it the named sets are fetched from OpenML, and without a name scikit-learn's diabetes data
serves, five splits, with the shorter two lengths of training. RMSE and NLL are in the target's own units; the NLL is
that of the Gaussian with the mixture's mean and variance, as in the paper, and the mixture's own stands beside it.
"""

import itertools
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.table import Table as Page

from experiments.report import Report
from experiments.tables import PUBLISHED, Table, diabetes, fifth, openml, read, together
from jaxmlp import MLP, Recipe, losses, population
from jaxmlp.data import Statistics, steps_per_epoch
from jaxmlp.optimizers import ClippedCosineAdamW
from jaxmlp.types import Number, Status

MEMBERS, FLOOR = 5, 1e-5  # networks of an ensemble; the least variance, in variances of the target
RATES, DECAYS, ACTIVATION = (3e-3, 1e-2), (0.02, 0.1), "gelu"
PARTS_OF_LONGEST = (16, 4, 1)  # lengths of training, as parts of the longest
PARTS, TRIED = 2, 2  # to choose a setting: random validation parts, and networks for each


class Score(NamedTuple):
    """What a protocol reached on each split, (splits,), in the target's units."""

    rmse: Any
    nll: Any  # of one Gaussian
    mixture: Any


class Setting(NamedTuple):
    """What the tuned protocol chooses among."""

    learning_rate: float
    weight_decay: float
    epochs: int


def run(report: Report, data: Path | None = None, names: tuple[str, ...] = ()) -> None:
    """Run both protocols on each set and print them beside the published figures."""
    if data is not None:
        names = names or tuple(sorted(path.parent.name for path in data.glob("*/index_target.txt")))
        if not names:
            raise SystemExit(f"{data} must hold a folder a set, with data.txt and index_target.txt in it; it has none")
    sources = [read(data / name) if data is not None else openml(name) for name in names] or [diabetes()]
    for table in sources:
        plain = ensembles(report, table, beta=0.0)
        weighted = ensembles(report, table, beta=0.5)
        best, chosen = tuned(report, table, PARTS_OF_LONGEST)
        report.console.print(page(table, plain, weighted, best))
        report.say(f"chosen most often: {max(chosen, key=chosen.count)}")
        judge(report, table, weighted, best)


def ensembles(report: Report, table: Table, beta: float) -> Score:
    """Return the score of the Deep Ensembles protocol."""
    report.stage(f"{table.name}: Deep Ensembles, {len(table.splits) * MEMBERS} networks, beta {beta}")
    members = [(split, MEMBERS * split + m) for split in range(len(table.splits)) for m in range(MEMBERS)]
    rows = [table.rows(split) for split, _ in members]
    model = MLP((table.x.shape[1], table.hidden, 2))
    numbers = {"learning_rate": 0.1, "weight_decay": 0.0, "beta": beta, "clip_norm": 0.1}
    params = train(report, table, model, rows, [seed for _, seed in members], numbers, epochs=40, batch=100)
    return score(table, model, params, np.ones(len(table.splits)))


def tuned(report: Report, table: Table, lengths: tuple[int, ...]) -> tuple[Score, list[Setting]]:
    """Choose a setting for each split inside its training rows, refit on all of them, and return score and choices."""
    n = len(table.splits[0][0])
    batch = 32 if n < 2000 else 128
    longest = 400 if n < 2000 else max(48, 12_000 // steps_per_epoch(n, batch))
    settings = [Setting(*values) for values in itertools.product(RATES, DECAYS, [longest // part for part in lengths])]
    model = MLP((table.x.shape[1], table.hidden, table.hidden, 2), ACTIVATION)
    splits = range(len(table.splits))
    rng = np.random.default_rng(0)
    parts = [[fifth(rng, table.rows(split)) for _ in range(PARTS)] for split in splits]

    def networks(wanted: list[tuple[Setting, np.ndarray, int]], why: str) -> Any:
        """Train (setting, rows, seed) each, those of equal epochs at once, and return their parameters in order."""
        order: list[int] = []
        found: list[Any] = []
        for epochs in sorted({setting.epochs for setting, _, _ in wanted}):
            mine = [i for i, (setting, _, _) in enumerate(wanted) if setting.epochs == epochs]
            report.stage(f"{table.name}: {len(mine)} networks of {epochs} epochs {why}")
            numbers = {
                name: np.array([getattr(wanted[i][0], name) for i in mine], "f")
                for name in ("learning_rate", "weight_decay")
            }
            rows, seeds = [wanted[i][1] for i in mine], [wanted[i][2] for i in mine]
            params = train(report, table, model, rows, seeds, {**numbers, "beta": 0.5, "clip_norm": 0.1}, epochs, batch)
            order += mine
            found.append(params)
        return population.take(jax.tree.map(lambda *a: jnp.concatenate(a), *found), np.argsort(order))

    trials = list(itertools.product(settings, splits, range(PARTS), range(TRIED)))
    params = networks([(setting, parts[s][p][0], seed) for setting, s, p, seed in trials], "to choose from")
    held = [parts[s][p][1] for _, s, p, _ in trials]
    pairs = predict(table, model, params, held)
    outputs = dict(zip(trials, pairs, strict=True))
    chosen, stretch = [], []
    for s in splits:
        y = np.concatenate([table.targets[rows] for _, rows in parts[s]])
        found = []
        for setting in settings:
            ensemble = [[outputs[setting, s, p, seed] for p in range(PARTS)] for seed in range(TRIED)]
            found.append(best_stretch(ensemble, y))
        best = int(np.argmin([value for value, _ in found]))
        chosen.append(settings[best])
        stretch.append(found[best][1])
    wanted = [(chosen[s], table.rows(s), 100 + m) for s in splits for m in range(MEMBERS)]
    params = networks(wanted, "on all training rows")
    return score(table, model, params, np.array(stretch)), chosen


def best_stretch(ensemble: list[list[tuple[np.ndarray, np.ndarray]]], y: np.ndarray) -> tuple[float, float]:
    """Return the least NLL of an ensemble whose members' variances are all stretched by one factor, and the factor."""
    means, variances = (np.stack([np.concatenate([part[k] for part in parts]) for parts in ensemble]) for k in (0, 1))
    error, doubt, noise = np.square(y - means.mean(0)), means.var(0), variances.mean(0)
    factors = np.logspace(-0.6, 1.6, 45)
    total = doubt + factors[:, None, None] * noise
    nll = 0.5 * (np.log(2 * np.pi * total) + error / total).mean((1, 2))
    return float(nll.min()), float(factors[nll.argmin()])


def likelihood(outputs: jax.Array, targets: jax.Array, *, beta: Number, min_variance: Number) -> jax.Array:
    """Return the weighted likelihood of softplus scales, as the papers have them: fast, and safe by the clipping."""
    return losses.beta_gaussian_nll(losses.from_softplus(outputs), targets, beta=beta, min_variance=min_variance)


keys_of = jax.jit(jax.vmap(jax.random.key))


def train(
    report: Report,
    table: Table,
    model: MLP,
    rows: list[np.ndarray],
    seeds: list[int],
    numbers: Any,
    epochs: int,
    batch: int,
) -> Any:
    """Train a network for each entry of rows and return their parameters."""
    longest = max(map(len, rows))
    batch = min(batch, longest)
    optimizer = ClippedCosineAdamW(epochs * steps_per_epoch(longest, batch))
    recipe = Recipe(model, likelihood, optimizer, epochs=epochs, batch_size=batch)
    keys = keys_of(np.array(seeds))
    data = table.features, table.targets
    states, history = population.fit(
        keys, data, recipe, numbers | {"min_variance": FLOOR}, rows=together(rows), callback=report.progress(epochs)
    )
    if (lost := int((np.asarray(history["status"]) == Status.DIVERGED).sum())) > 0:
        report.say(f"{lost} of {len(rows)} networks diverged and stay at their last finite weights")
    return states.params


@partial(jax.jit, static_argnums=0)
def gaussians(model: MLP, params: Any, features: Any, rows: Any) -> tuple[jax.Array, jax.Array]:
    """Return each network's means and variances on its rows of the table."""

    def outputs(mine: tuple[Any, Any]) -> jax.Array:
        return model.apply(mine[0], features[mine[1]])

    # One network at a time: the rows of all at once would be a copy of the data a member.
    return losses.gaussian(losses.from_softplus(jax.lax.map(outputs, (params, rows))), min_variance=FLOOR)


def predict(table: Table, model: MLP, params: Any, rows: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each network's mean and variance on its own rows, standardised."""
    mean, variance = (np.asarray(a) for a in gaussians(model, params, table.features, together(rows)))
    return [(mean[i, : len(r)], variance[i, : len(r)]) for i, r in enumerate(rows)]


def score(table: Table, model: MLP, params: Any, stretch: np.ndarray) -> Score:
    """Return RMSE and NLL of the ensembles on the test rows, each split's variances stretched by its number."""
    rows = [table.rows(split, test=True) for split in range(len(table.splits)) for _ in range(MEMBERS)]
    outputs = predict(table, model, params, rows)
    found = []
    for split in range(len(table.splits)):
        mine = slice(split * MEMBERS, (split + 1) * MEMBERS)
        moments = [np.stack([pair[k] for pair in outputs[mine]]) for k in (0, 1)]
        units = [a.astype("f") for a in table.units[split]]
        y = table.y[table.splits[split][1]].astype("f")
        found.append([float(value) for value in errors(moments, np.float32(stretch[split]), units, y)])
    return Score(*map(np.array, zip(*found, strict=True)))


@jax.jit
def errors(moments: Any, stretch: Any, units: Any, y: Any) -> Score:
    """Return the score of standardised means and variances, (members, rows, 1), the variances stretched."""
    mean, variance = moments
    mixed = population.Mixture(mean, stretch * variance).unstandardise(Statistics(*units))
    return Score(
        jnp.sqrt(jnp.mean(jnp.square(mixed.mean - y))), -mixed.gaussian_log_prob(y).mean(), -mixed.log_prob(y).mean()
    )


def page(table: Table, plain: Score, weighted: Score, best: Score) -> Page:
    """Return the table of a set: ours, mean and standard error over the splits, and the published means."""
    found = Page(
        box=box.SIMPLE_HEAD, pad_edge=False, title=f"{table.name}: {len(table.x):,} rows, {len(table.splits)} splits"
    )
    for column in ("", "RMSE", "NLL", "mixture's NLL"):
        found.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for i, name in enumerate(("PBP", "MC dropout", "Deep Ensembles", "Gal 2018")):
        if table.name in PUBLISHED:
            rmse, nll = PUBLISHED[table.name]
            found.add_row(name, f"{rmse[i]:g}", f"{nll[i]:g}", "")
    for name, mine in (("ours, 40 epochs", plain), ("ours, 40 epochs, beta 0.5", weighted), ("ours, tuned", best)):
        digits = (3 if mine.rmse.mean() > 0.05 else 5, 3, 3)
        errors = [a.std(ddof=1) / len(a) ** 0.5 for a in mine]
        cells = [f"{a.mean():.{k}f} ± {error:.{k}f}" for a, error, k in zip(mine, errors, digits, strict=True)]
        found.add_row(f"[bold]{name}[/]", *cells)
    return found


def judge(report: Report, table: Table, weighted: Score, best: Score) -> None:
    """Claim to be below the published figures, or, on a set without any, below what needs no network."""
    if table.name not in PUBLISHED:
        tests = [table.y[test] for _, test in table.splits]
        trains = [table.y[train] for train, _ in table.splits]
        blind = np.mean(
            [
                np.log(a.std()) + 0.5 * np.log(2 * np.pi) + (np.square(b - a.mean()) / a.var() / 2).mean()
                for a, b in zip(trains, tests, strict=True)
            ]
        )
        report.claim(
            f"{table.name}: NLL below one Gaussian's for all by 0.15",
            expected=f"< {blind - 0.15:.2f}",
            measured=f"{best.nll.mean():.2f}",
            holds=best.nll.mean() < blind - 0.15,
        )
        return
    rmse, nll = PUBLISHED[table.name]
    for who, i, mine in (("Deep Ensembles", 2, weighted), ("Gal 2018", 3, best)):
        for what, bar, value in (("RMSE", rmse[i], mine.rmse.mean()), ("NLL", nll[i], mine.nll.mean())):
            # A published figure is rounded: ours must be below it, as far as it is printed.
            places = 4 if bar < 0.01 else 3 if bar < 0.1 else 2
            report.claim(
                f"{table.name}: {what} below {who}",
                expected=f"< {bar:g}" if bar else "0.00, rounded",
                measured=f"{value:.4g}",
                holds=value < bar if bar else round(value, places - 2) == 0,
            )
