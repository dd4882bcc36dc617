"""A run that is killed, or whose checkpoints are damaged, ends with the bits of one that was not."""

import errno
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import crash
import faults
import jax
import numpy as np
import pytest

from jaxmlp import loop
from jaxmlp.loop import _folder
from jaxmlp.loop._saving import RunDirectory

FILE = Path(__file__).parent / "crash.py"
# As in this process: equal bits need equal compilers, and the library of this tree and not one that is installed.
QUICK = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(FILE.parent.parent)}


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def start(kind, directory, epochs):
    with open(directory / "errors", "w") as errors:
        command = [sys.executable, str(FILE), kind, str(directory), str(epochs)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=QUICK)


def ends(process, chunks, seconds):
    """Follow a run for so many chunks and seconds more, then kill it, unless it ended by then; tell whether it did."""
    with process.stdout as out:
        for _ in range(chunks):
            out.readline()
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
    return True


def kill_until(kind, kills, directory, seed, epochs):
    """Kill runs at random moments until they have been killed so often, and compare each that ends.

    A run is killed again and again, one time in four before its first chunk is done, and then goes on to its end.
    Returns the number of kills, how many of them cut a save, and how many runs there were.
    """
    rng = np.random.default_rng(seed)
    done = cut = runs = 0
    while done < kills:
        folder = directory / f"run{runs}"
        folder.mkdir()
        runs += 1
        for _ in range(10):
            early = rng.random() < 0.25
            # The first line says that the imports are done, and each other that a chunk is; a save takes 50 ms.
            chunks, seconds = (1, rng.uniform(0, 4)) if early else (1 + rng.integers(1, 9), rng.uniform(0, 0.06))
            if done == kills or ends(start(kind, folder, epochs), chunks, seconds):
                break
            done += 1
            cut += any(folder.glob("*.saving"))
        if (folder / "digest").exists():
            found = (folder / "digest").read_text()
        else:
            found = crash.digest(crash.run(kind, folder, epochs=epochs))
        wanted, *files = straight(kind, epochs)
        assert found == wanted, f"{kind}, run {runs}, after {done} kills"
        assert history(folder) == files, f"{kind}, run {runs}, after {done} kills"
    return done, cut, runs


@functools.cache
def straight(kind, epochs):
    """Return the digest and the history files of a run that was not killed."""
    with tempfile.TemporaryDirectory() as directory:
        return [crash.digest(crash.run(kind, directory, epochs=epochs)), *history(Path(directory))]


def history(directory):
    return [(directory / name).read_bytes() for name in ("history.jsonl", "history.csv")]


@pytest.mark.parametrize("kind", ["one", "population", "stream"])
def test_a_killed_run_goes_on_as_if_it_had_not_been(kind, tmp_path):
    kill_until(kind, 1, tmp_path, seed=1, epochs=20)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["one", "population", "stream"])
def test_a_hundred_kills(kind, tmp_path, capsys):
    kills, cut, runs = kill_until(kind, 40, tmp_path, seed=2, epochs=60)
    assert cut > 0
    with capsys.disabled():
        print(f"\n{kind}: {kills} kills in {runs} runs, {cut} of them within a save")


DAMAGES = {
    "emptied": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "flipped": lambda file: file.write_bytes(flipped(file.read_bytes())),
    "removed": lambda file: file.unlink(),
    "grown": lambda file: file.write_bytes(file.read_bytes() + b"more"),
}


def flipped(data):
    at = len(data) // 3
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def test_every_damage_to_a_checkpoint_is_seen_named_and_survived(tmp_path):
    """Each file of a checkpoint emptied, cut, flipped and removed; then the run goes on from the one before."""
    straight_run = crash.digest(crash.run("one", tmp_path / "run", epochs=12))
    newest, older = "00000012", "00000010"
    names = [p.relative_to(tmp_path / "run" / newest) for p in (tmp_path / "run" / newest).rglob("*") if p.is_file()]
    count = 0
    for (kind, damage), name in itertools.product(DAMAGES.items(), sorted(names)):
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "run", folder)
        damage(folder / newest / name)
        with (
            RunDirectory(folder) as opened,
            pytest.warns(UserWarning, match=f"checkpoint .*{newest} is damaged and is not used") as seen,
        ):
            found = opened.recover()
        assert name.name in str(seen[0].message) or name.name == "SHA256SUMS", (kind, name)
        assert found.where == {"epoch": int(older)} and (folder / f"{newest}.damaged").is_dir()
        count += 1
    assert count >= 50
    # The last of them to the end; and a second time, since nothing may need a hand.
    for _ in range(2):
        with warnings.catch_warnings(action="error"):
            assert crash.digest(crash.run("one", folder, epochs=12)) == straight_run


def test_a_run_stops_where_checkpoints_are_and_none_is_whole(tmp_path):
    """What is there may be put back from a copy: neither door begins anew, and nothing is renamed."""
    straight_run = crash.digest(crash.run("one", tmp_path / "run", epochs=4))
    good = {folder: (folder / "run.json").read_bytes() for folder in (tmp_path / "run").glob("0*")}
    for folder in good:
        (folder / "run.json").write_text("{}")
    found = sorted(os.listdir(tmp_path / "run"))
    words = r"must hold a whole checkpoint, or none; (.|\n)*00000004: run.json has changed(.|\n)*00000002: run.json"
    for _ in range(2):
        with pytest.raises(ValueError, match=words):
            crash.run("one", tmp_path / "run", epochs=4)
        with pytest.raises(ValueError, match=words):
            loop.resume(tmp_path / "run", (crash.X, crash.Y), progress=False)
        assert sorted(os.listdir(tmp_path / "run")) == found
    for folder, data in good.items():
        (folder / "run.json").write_bytes(data)
    assert crash.digest(crash.run("one", tmp_path / "run", epochs=4)) == straight_run
    for folder in good:
        shutil.rmtree(folder)
    with pytest.raises(ValueError, match="must hold a whole checkpoint; .* has none; begin with loop.train"):
        loop.resume(tmp_path / "run", (crash.X, crash.Y), progress=False)


def test_a_read_that_fails_stops_the_run_and_changes_nothing(tmp_path):
    """Each call of the system while a run is recovered fails once, for many reasons: none is taken for damage."""
    crash.run("one", tmp_path / "run", epochs=6)
    for junk in (".DS_Store", "00000006/.DS_Store", "00000006/arrays/.nfs01", "00000006/Thumbs.db", "lost+found/a"):
        (tmp_path / "run" / junk).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / junk).write_bytes(b"junk")
    (tmp_path / "run" / "00000006" / "arrays" / "notes.txt~").write_text("of an editor")
    found = faults.names(tmp_path / "run")

    def recover():
        with RunDirectory(tmp_path / "run") as opened:
            saved = opened.recover()
            return saved.where, {name: array.tobytes() for name, array in saved.arrays.items()}

    with faults.failing(tmp_path / "run") as counted:
        whole = recover()
    errors = itertools.cycle([errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ETIMEDOUT])
    stopped = 0
    for name, count in dict(counted).items():
        for number in sorted({*range(1, min(count, 6) + 1), count}):
            try:
                with faults.failing(tmp_path / "run", name, number, next(errors)):
                    assert recover() == whole
            except ValueError as error:
                assert str(tmp_path / "run") in str(error) and str(error).startswith("directory must be"), (
                    name,
                    number,
                )
                stopped += 1
            assert faults.names(tmp_path / "run") == found
            assert recover() == whole
    assert stopped > 10


def test_checkpoints_of_versions_that_listed_no_files_are_found(tmp_path):
    crash.run("one", tmp_path / "run", epochs=4)
    for folder in (tmp_path / "run").glob("0*"):
        meta = json.loads((folder / "run.json").read_text())
        del meta["files"]
        (folder / "run.json").write_text(json.dumps(meta))
        (folder / "SHA256SUMS").write_text(_folder.sums(folder))
    with RunDirectory(tmp_path / "run") as opened:
        assert opened.recover().where == {"epoch": 4}
    # A list of digests that lost a line, and one whose line is of a file elsewhere.
    whole = (folder / "SHA256SUMS").read_text()
    for text in (whole.replace("run.json", "../../run.json"), "".join(whole.splitlines(True)[:-1]), "\n", "é" * 70):
        (folder / "SHA256SUMS").write_text(text)
        assert "SHA256SUMS" in _folder.damages(folder)[0]


def test_what_a_checkpoint_says_is_named_where_it_is_wrong(tmp_path):
    crash.run("one", tmp_path / "run", epochs=4)
    folder = tmp_path / "run" / "00000004"
    good = json.loads((folder / "run.json").read_text())
    wrong = {"run": [], "where": None, "every": "2", "versions": 7, "format": {}}
    texts = [json.dumps({**good, name: value}) for name, value in wrong.items()] + ["[]", "[" * 100_000, "7", "{"]
    texts += [json.dumps({name: value for name, value in good.items() if name != left}) for left in wrong]
    for text in texts:
        (folder / "run.json").write_text(text)
        (folder / "SHA256SUMS").write_text(_folder.sums(folder))
        with (
            RunDirectory(tmp_path / "run") as opened,
            pytest.raises(ValueError, match="run must|run.json|00000004"),
        ):
            opened.recover()


def test_a_full_disk_is_an_error_that_leaves_the_older_checkpoints_whole(tmp_path, monkeypatch):
    """The disk is full from the third save on: the error says so, and the run goes on once there is room."""
    from jaxmlp.loop import _checkpoints

    write, room = _checkpoints._sums, [2]

    def sums(folder):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(28, "No space left on device")
        return write(folder)

    monkeypatch.setattr(_checkpoints, "_sums", sums)
    with pytest.raises(ValueError, match="must be writable and have room; .*No space left on device"):
        crash.run("one", tmp_path / "run", epochs=12)
    assert sorted(p.name for p in (tmp_path / "run").glob("0*")) == ["00000002", "00000004"]
    monkeypatch.setattr(_checkpoints, "_sums", write)
    assert crash.digest(crash.run("one", tmp_path / "run", epochs=12)) == crash.digest(
        crash.run("one", None, epochs=12)
    )


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="directory must be writable and have room"):
        crash.run("one", tmp_path / "file" / "run", epochs=4)


def test_a_directory_serves_one_process_at_a_time(tmp_path):
    with RunDirectory(tmp_path), pytest.raises(ValueError, match="another process trains in"):
        crash.run("one", tmp_path, epochs=4)
    assert os.listdir(tmp_path) == [".lock"]


def test_what_is_no_fault_of_the_disk_is_not_called_one(tmp_path, monkeypatch):
    """Orbax wraps what the system says; an error of another kind asks nobody to make room."""
    from jaxmlp.loop import _checkpoints, _folder

    def fails(error):
        def write(*args):
            raise error

        return write

    wrapped = ValueError("tensorstore failed")
    wrapped.__cause__ = OSError(28, "No space left on device")
    for error, words in ((wrapped, "must be writable and have room"), (TypeError("odd"), "must take a checkpoint; ")):
        monkeypatch.setattr(_checkpoints._folder, "write", fails(error))
        with pytest.raises(ValueError, match=f"directory {words}.*older checkpoints in it are whole"):
            crash.run("one", tmp_path / "run", epochs=2)
    monkeypatch.undo()
    crash.run("one", tmp_path / "run", epochs=2)
    monkeypatch.setattr(_folder, "read_arrays", fails(KeyError("shape")))
    with pytest.raises(ValueError, match="directory must hold what a run wrote; .*once it is moved away"):
        crash.run("one", tmp_path / "run", epochs=2)
