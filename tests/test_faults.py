"""Kills, damaged files and failing system calls, many of them: nothing is lost, and nothing comes out wrong.

The counts are run by `python -m pytest tests/test_faults.py tests/test_crashes.py -m long -n 0`; a sample of each is
among the other tests.
"""

import errno
import os
import shutil
import time
import warnings

import crash
import faults
import jax
import numpy as np
import pytest
from test_files import MODELS, mutated, same

import jaxmlp
from jaxmlp import files

ERRORS = [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.ESTALE, errno.EPERM, errno.EROFS]


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run with all its checkpoints, its digest, and its history files."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        folder = tmp_path_factory.mktemp("straight") / "run"
        digest = crash.digest(crash.run("one", folder, epochs=8, keep=10))
    return folder, digest, history(folder)


def history(folder):
    return [(folder / name).read_bytes() for name in ("history.jsonl", "history.csv")]


def again(folder):
    """Run to the end and return the digest, or the error of ours that it ended with."""
    with warnings.catch_warnings(action="ignore"):
        try:
            return crash.digest(crash.run("one", folder, epochs=8, keep=10))
        except ValueError as error:
            assert str(folder) in str(error)
            return error


def damaged_checkpoints(count, straight, place, seed):
    """Damage the newest one to all checkpoints of a run; returns how many runs went on, and how many stopped."""
    source, digest, texts = straight
    rng, went, stopped = np.random.default_rng(seed), 0, 0
    for i in range(count):
        folder = place / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        checkpoints = sorted(folder.glob("0*"), reverse=True)
        chosen = checkpoints[: int(rng.choice([1, 2, 3, len(checkpoints)]))]
        done = [faults.damage(one, sorted(source.glob("0*")), rng) for one in chosen for _ in range(rng.integers(1, 3))]
        before = faults.names(folder)
        found = again(folder)
        if isinstance(found, ValueError):
            stopped += 1
            assert "must hold a whole checkpoint" in str(found) and faults.names(folder) == before, (i, done)
            assert all(one.name in str(found) for one in chosen), (i, done)
        else:
            went += 1
            assert found == digest and history(folder) == texts, (i, done)
    return went, stopped


def damaged_models(count, place, seed):
    """Damage model files; returns how many were refused, and how many came back as they were."""
    place.mkdir()
    originals = {}
    for name, model in MODELS.items():
        params = model.init(jax.random.key(3))
        jaxmlp.save(place / name, model, params, metadata={"rmse": 0.25, "name": name})
        originals[name] = (place / name).read_bytes(), jaxmlp.load(place / name)
    refused = equal = 0
    for i in range(count):
        name = list(originals)[i % len(originals)]
        data, (model, params) = originals[name]
        path = place / "damaged"
        path.write_bytes(mutated(data, seed + i))
        started = time.perf_counter()
        try:
            found, back = jaxmlp.load(path)
        except ValueError as error:
            refused += 1
            assert path.name in str(error) or "param_dtype" in str(error)
        else:
            equal += 1
            assert found == model and files.read_metadata(path) == {"rmse": 0.25, "name": name}, (i, name)
            same(back, params)
        assert time.perf_counter() - started < 30
    return refused, equal


def failed_calls(count, straight, place, seed):
    """Let a system call of a run fail, of one that begins or goes on; returns how many runs ended by it."""
    source, digest, texts = straight
    rng, ended, known = np.random.default_rng(seed), 0, {}

    def prepare(begins):
        shutil.rmtree(place / "run", ignore_errors=True)
        if not begins:
            shutil.copytree(source, place / "run")
            for number in (8, 6):
                shutil.rmtree(place / "run" / f"{number:08d}")

    for begins in (True, False):
        prepare(begins)
        with faults.failing(place / "run") as counted:
            assert again(place / "run") == digest
        known[begins] = dict(counted)
    for i in range(count):
        begins = bool(i % 2)
        prepare(begins)
        names = sorted(known[begins])
        name = names[rng.integers(len(names))]
        number, error = int(rng.integers(1, known[begins][name] + 1)), int(rng.choice(ERRORS))
        case = (i, begins, name, number, errno.errorcode[error])
        with faults.failing(place / "run", name, number, error):
            found = again(place / "run")
        ended += isinstance(found, ValueError)
        assert isinstance(found, ValueError) or found == digest, case
        assert not list((place / "run").glob("*.damaged*")), case
        assert again(place / "run") == digest and history(place / "run") == texts, case
        assert not list((place / "run").glob("*.saving")) and not list((place / "run").glob(".jaxmlp*")), case
    return ended


def test_a_few_faults_lose_nothing(straight, tmp_path):
    assert sum(damaged_checkpoints(6, straight, tmp_path, seed=1)) == 6
    refused, equal = damaged_models(40, tmp_path / "models", seed=1)
    assert refused > 20 and refused + equal == 40
    assert failed_calls(6, straight, tmp_path, seed=1) > 0
    assert os.listdir(tmp_path)


@pytest.mark.long
def test_ninety_damaged_checkpoints(straight, tmp_path, capsys):
    went, stopped = damaged_checkpoints(90, straight, tmp_path, seed=2)
    with capsys.disabled():
        print(f"\n90 damaged runs: {went} went on from an older checkpoint, {stopped} stopped with names, 0 wrong")


@pytest.mark.long
def test_a_thousand_damaged_models(tmp_path, capsys):
    refused, equal = damaged_models(1000, tmp_path / "models", seed=1000)
    with capsys.disabled():
        print(f"\n1,000 damaged model files: {refused} refused, {equal} as they were, 0 wrong")


@pytest.mark.long
def test_two_hundred_failed_calls(straight, tmp_path, capsys):
    ended = failed_calls(200, straight, tmp_path, seed=3)
    with capsys.disabled():
        print(f"\n200 failed calls: {ended} runs ended with an error and went on after it, {200 - ended} went through")
