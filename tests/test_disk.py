"""Any name works or is refused, nothing but our own files is touched, and what has a name is on the disk."""

import errno
import os
import shutil
import socket
import threading
from pathlib import Path

import crash
import jax
import numpy as np
import pytest

import jaxmlp
from jaxmlp import MLP, _disk, data, files, loop, records
from jaxmlp.loop import _ours
from jaxmlp.loop._checkpoints import Checkpoints

MODEL = MLP((2, 1))
PARAMS = MODEL.init(jax.random.key(0))
HISTORY = {"loss": np.arange(3.0)}
ARRAYS = {"run.w": np.arange(6, dtype="f").reshape(2, 3), "run.nan": np.array([np.nan, -0.0]), "k": np.arange(2)}

DOORS = {
    "train": lambda path: loop.train(jax.random.key(0), (crash.X, crash.Y), crash.RECIPE, directory=path),
    "resume": lambda path: loop.resume(path, (crash.X, crash.Y)),
    "save": lambda path: jaxmlp.save(path, MODEL, PARAMS),
    "load": jaxmlp.load,
    "read_metadata": files.read_metadata,
    "read_idx": data.read_idx,
    "write_csv": lambda path: records.write_csv(path, HISTORY),
    "write_json_lines": lambda path: records.write_json_lines(path, HISTORY),
    "tensorboard": records.tensorboard,
    "HistoryFiles": records.HistoryFiles,
}
NO_PATHS = {
    "bytes": (b"run", "must be a str or a pathlib.Path; got bytes b'run'; pass os.fsdecode"),
    "a number": (7, "must be a str or a pathlib.Path; got int 7"),
    "nothing": ("", "must be the name of a file or folder; got ''"),
    "a zero": ("a\0b", "must be the name of a file or folder"),
    "gs": ("gs://bucket/run", "must be a path on this machine; got the URL 'gs://bucket/run'; mount it"),
    "s3": ("s3://bucket/run", "got the URL"),
    "a file's URL": ("file:///tmp/run", "got the URL"),
    "http": ("https://example.com/run", "got the URL"),
    "a URL as a path": (Path("gs://bucket/run"), "got the URL 'gs:/bucket/run'"),
    "nobody's home": ("~no-such-user/run", "must begin with the home of a user who is known; got '~no-such-user/run'"),
    "half a character": ("run-\ud800", "must be a name that this file system can hold"),
}


@pytest.mark.parametrize("name", NO_PATHS)
def test_what_is_no_path_here_is_refused_at_every_door(name, tmp_path, monkeypatch):
    path, words = NO_PATHS[name]
    monkeypatch.chdir(tmp_path)
    for door, call in DOORS.items():
        with pytest.raises(ValueError) as caught:
            call(path)
        assert words in str(caught.value), door
    assert os.listdir(tmp_path) == []


def test_home_is_expanded_at_every_door(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    assert _disk.path_of("directory", "~/a") == _disk.path_of("directory", Path("~/a")) == tmp_path / "a"
    assert _disk.path_of("directory", "./~") == Path("/~")
    for door in ("save", "load", "read_metadata", "write_csv", "write_json_lines", "tensorboard"):
        DOORS[door](f"~/{door}" if door not in ("load", "read_metadata") else "~/save")
    (tmp_path / "idx").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]))
    assert data.read_idx("~/idx") == [7]
    Checkpoints("~/run").close()
    assert sorted(os.listdir(tmp_path)) == ["idx", "run", "save", "tensorboard", "write_csv", "write_json_lines"]
    with pytest.raises(ValueError, match="must hold a whole checkpoint; .*run has none"):
        loop.resume("~/run", (crash.X, crash.Y))


ODD = ["sizes=[64,64]", "a\\b", "a*b?", "[!a]", "new\nline", "-dash", "ünï ☃", "trail  ", " ", "{a}#b%41", "\udcff"]
ODD += ["$HOME", "x" * 255, "a'b\"c", "a:b", "deep/[0]/er"]


@pytest.mark.parametrize("name", ODD)
def test_a_folder_may_have_any_name(name, tmp_path, monkeypatch):
    """Checkpoints, histories and models are read back from there, also relative to where the call was made."""
    monkeypatch.chdir(tmp_path)
    store = Checkpoints(name + "/")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.save(3, ARRAYS, {"mine": 1})
    store.wait()
    store.close()
    monkeypatch.chdir(tmp_path)
    store = Checkpoints(Path(name))
    found = store.recover()
    store.close()
    assert found.number == 3 and sorted(found.arrays) == sorted(ARRAYS)
    assert all(found.arrays[key].tobytes() == array.tobytes() for key, array in ARRAYS.items())
    jaxmlp.save(f"{name}/{Path(name).name}", MODEL, PARAMS)
    assert jaxmlp.load(Path(name) / Path(name).name)[0] == MODEL
    records.HistoryFiles(name).update({"loss": np.ones((1, 2))}, [2])
    records.write_csv(f"{name}/table", HISTORY)
    assert len(os.listdir(name)) == 6 and sorted(os.listdir(tmp_path)) == sorted({"elsewhere", name.split("/")[0]})


def test_a_folder_may_be_named_in_many_ways(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for name in (f"/{tmp_path}/a", "real/../b", "./c/.", "link/d", "link", f"{tmp_path}//e//", "~[0]/f"):
        name = name if not name.startswith("~") else "./" + name
        store = Checkpoints(name)
        store.save(1, ARRAYS, {})
        store.wait()
        assert store.recover().number == 1 and os.path.isdir(f"{name}/00000001")
        store.close()


def test_a_directory_that_is_a_file_or_in_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="directory must be a folder; .*file is a file"):
        Checkpoints(tmp_path / "file")
    with pytest.raises(ValueError, match="directory must be writable and have room"):
        Checkpoints(tmp_path / "file" / "run")
    for path in (tmp_path, tmp_path / "none" / "m", tmp_path / ("x" * 256)):
        with pytest.raises(ValueError, match="must be a file"):
            jaxmlp.save(path, MODEL, PARAMS)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_only_regular_files_are_read_and_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to("pipe")
    paths = {"a pipe": tmp_path / "pipe", "a folder": tmp_path, "a device": Path("/dev/zero")}
    paths |= {"a socket": tmp_path / "socket", "a pipe ": tmp_path / "link"}
    for kind, path in paths.items():
        for read in (jaxmlp.load, files.read_metadata, data.read_idx):
            with pytest.raises(ValueError, match=f"must be a regular file; it is {kind.strip()}"):
                read(path)
        with pytest.raises(ValueError, match="must be a file"):
            jaxmlp.save(path, MODEL, PARAMS)
    os.rename(tmp_path / "pipe", tmp_path / "history.csv")
    with pytest.raises(ValueError, match="must be a regular file; it is a pipe"):
        records.HistoryFiles(tmp_path).update({"loss": np.ones((1, 2))}, [2])


def test_threads_that_save_one_path_lose_nothing(tmp_path):
    """Each call has a temporary name of its own: the file is that of one of them, and no call fails."""
    trouble = []

    def save(number):
        try:
            for i in range(5):
                jaxmlp.save(tmp_path / "m", MODEL, PARAMS, metadata=[number, i])
                records.write_csv(tmp_path / "h", {"loss": np.full(3, number)})
                assert files.read_metadata(tmp_path / "m")[0] in range(8)
        except Exception as error:
            trouble.append(error)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == [] and sorted(os.listdir(tmp_path)) == ["h", "m"]


class Disk:
    """What a power cut would leave: which files and folders were synced as they are now, and in which order."""

    def __init__(self, monkeypatch):
        self.synced, self.events, self.trouble = {}, [], []
        calls = {name: getattr(os, name) for name in ("fsync", "replace")}
        remove = shutil.rmtree

        def fsync(number):
            calls["fsync"](number)
            self.synced[os.fstat(number).st_ino] = os.fstat(number).st_mtime_ns
            self.events.append(("sync", os.readlink(f"/proc/self/fd/{number}")))

        def replace(old, new):
            self.trouble += [f"{path} when {new} got its name" for path in self.loose(old)]
            calls["replace"](old, new)
            self.events.append(("name", str(new)))

        def rmtree(path, *args, **options):
            self.events.append(("remove", str(path)))
            remove(path, *args, **options)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(shutil, "rmtree", rmtree)

    def loose(self, path):
        """Return what of a file or folder is not on the disk as it is now."""
        paths = [Path(path), *Path(path).rglob("*")]
        return [str(p) for p in paths if self.synced.get(p.stat().st_ino) != p.stat().st_mtime_ns]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="files are known by /proc")
def test_what_has_its_name_is_on_the_disk_before_anything_older_goes(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    run = tmp_path / "new" / "run"
    store, history = Checkpoints(run, keep=1), records.HistoryFiles(run)
    assert ("sync", str(tmp_path)) in disk.events and ("sync", str(tmp_path / "new")) in disk.events
    for number in (1, 2, 3):
        losses = {"loss": np.ones((1, number))}
        store.save(number, ARRAYS, {}, first=lambda losses=losses: history.update(losses, [losses["loss"].shape[1]]))
        store.wait()
        assert not disk.loose(run / "history.csv") and not disk.loose(run / "history.jsonl")
    store.close()
    jaxmlp.save(tmp_path / "m", MODEL, PARAMS)
    records.write_csv(tmp_path / "table", HISTORY)
    assert disk.trouble == []
    removed = [at for at, (what, _) in enumerate(disk.events) if what == "remove"]
    assert len(removed) == 2 and store.numbers() == [3]
    for number, at in zip((2, 3), removed, strict=True):
        named = disk.events.index(("name", str(run / f"{number:08d}")))
        assert disk.events[named + 1] == ("sync", str(run)) and named + 1 < at
    for path in (tmp_path / "m", tmp_path / "table"):
        assert disk.events[disk.events.index(("name", str(path))) + 1] == ("sync", str(tmp_path))


def foreign(folder):
    """Fill a directory with names that look like ours and are a user's; return all that is there."""
    for name in (
        "mine.saving",
        "20240101",
        "12345678",
        "00000004.saving",
        "00000009.saving/arrays",
        "00000012.damaged",
        "²",
        "00000002",
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "notes.txt").write_text(name)
    (folder / "20240101" / "run.json").write_text('{"wandb": 1}')
    (folder / "12345678" / "SHA256SUMS").write_text("0" * 64 + "  notes.txt\n")
    for name in ("7", "³", "00000003", "11.saving", "00000006.saving", "99999999.damaged", ".jaxmlp-mine.new", "a.new"):
        (folder / name).write_text(name)
    (folder / "00000008").symlink_to("nowhere")
    return contents(folder)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()} | {
        p.relative_to(folder): None for p in folder.rglob("*") if not p.is_file()
    }


def test_what_is_not_ours_is_neither_removed_nor_renamed_nor_read(tmp_path):
    """Nor does it stop a run, unless a checkpoint needs the very name."""
    run = tmp_path / "run"
    users = foreign(run)
    for name in (".jaxmlp-4194305-0123456789abcdef.new", "00000005.12-0123456789abcdef.saving"):
        path = run / name  # what killed processes leave
        path.write_text("") if name.endswith("new") else (path / "arrays").mkdir(parents=True)
    store = Checkpoints(run, keep=1)
    assert store.numbers() == [] and store.recover() is None and contents(run).keys() - users.keys() == {Path(".lock")}
    for number in (11, 13):
        store.save(number, ARRAYS, {})
    store.wait()
    (run / "00000013" / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="must hold a whole checkpoint, or none; .*(.|\n)*00000013: run.json has"):
        store.recover()
    store.save(14, ARRAYS, {})
    store.wait()
    assert store.recover().number == 14
    (run / "00000014" / "run.json").unlink()
    shutil.copytree(run / "00000014", run / "00000012")
    assert store.numbers() == [12, 14]
    store.save(2, ARRAYS, {})
    with pytest.raises(ValueError, match="00000002 has the name of a checkpoint and is none; move it away"):
        store.wait()
    store.close()
    assert {name: told for name, told in contents(run).items() if name in users} == users


def test_names_of_checkpoints_are_exact():
    names = ["00000012", "123456789", "99999999", "000000012", "0000012", "12", "²²²²²²²²", "٠٠٠٠٠٠١٢", "00000012 "]
    assert [bool(_ours.NUMBER.fullmatch(name)) for name in names] == [True] * 3 + [False] * 6
    assert _ours.name_of(12) == "00000012" and _ours.name_of(123456789) == "123456789"
    assert _ours.SAVING.fullmatch(_ours.saving_name(7)) and _disk.NEW.fullmatch(_disk.new_name())


def test_what_a_trial_of_a_folder_leaves_is_left_over_at_once(tmp_path, monkeypatch):
    """Also while this process lives, which the file of another call of it might belong to."""

    def fails(path, missing_ok=False):
        raise OSError(errno.ESTALE, "stale", str(path))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="stale"):
        patch.setattr(Path, "unlink", fails)
        _disk.check_writable(tmp_path)
    (left,) = tmp_path.iterdir()
    assert _ours.is_left_over(left) and not _ours.is_left_over(tmp_path / _disk.new_name())
