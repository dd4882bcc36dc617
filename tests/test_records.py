"""History files that grow: after any kill or resume they are, byte for byte, those of a run that was never stopped."""

import csv
import io
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlp import _disk, records

RNG = np.random.default_rng(0)
NAMES = ("history.jsonl", "history.csv")
EPOCHS = np.array([9, 4, 9, 6, 1])  # members that stop early
LOSS = np.where(np.arange(9) < EPOCHS[:, None], RNG.normal(size=(5, 9)), np.nan).astype("f")
LOSS[1, 3], LOSS[3, 5] = np.inf, np.nan  # diverged in their last epoch
HISTORY = {"loss": LOSS, "validation_loss": LOSS * 2, "status": np.zeros(5)}


def until(done, history=HISTORY, epochs=EPOCHS):
    """Return the history and the members' epochs as they stand after so many epochs."""
    cut = {name: values[:, :done] if values.ndim > 1 else values for name, values in history.items()}
    return cut, np.minimum(epochs, done)


def straight(directory, chunks=(3, 6, 9), **given):
    directory.mkdir()
    files = records.HistoryFiles(directory)
    for done in chunks:
        files.update(*until(done, **given))
    return {name: (directory / name).read_bytes() for name in NAMES}


def expected(history, epochs):
    """The same lines by `rows`, member by member, sorted by epoch."""
    lines = sorted(records.rows(history, epochs), key=lambda line: (line["epoch"], line.get("member", 0)))
    finite = [{k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in one.items()} for one in lines]
    table = io.StringIO()
    writer = csv.DictWriter(table, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return {"history.jsonl": "".join(json.dumps(one) + "\n" for one in finite), "history.csv": table.getvalue()}


ODD = {
    "loss": RNG.normal(size=(2, 3)),
    "of_classes": RNG.normal(size=(2, 3, 2)),
    "count": np.arange(6).reshape(2, 3),
    "half": np.asarray(jnp.asarray(RNG.normal(size=(2, 3)), jnp.bfloat16)),
    "flag": np.array([[True, False, True]] * 2),
    'a "name", {odd}': np.ones((2, 3), "f"),
}


@pytest.mark.parametrize(
    ("history", "epochs"),
    [(HISTORY, EPOCHS), ({"loss": LOSS[:1]}, EPOCHS[:1]), (ODD, np.array([3, 2]))],
    ids=["population", "one network", "all kinds of entries"],
)
def test_lines_are_those_of_rows_sorted_by_epoch(history, epochs, tmp_path):
    length = history["loss"].shape[1]
    found = straight(tmp_path / "run", range(0, length + 1), history=history, epochs=epochs)
    assert {name: text.decode() for name, text in found.items()} == expected(history, epochs)


@pytest.mark.parametrize("chunks", [(9,), range(1, 10), (2, 2, 5, 9), (0, 9)])
def test_any_chunks_make_the_same_files(chunks, tmp_path):
    assert straight(tmp_path / "a", chunks) == straight(tmp_path / "b")


def damages(whole, after):
    """What a kill may leave: files at any byte, of more epochs, or of something else."""
    for name in NAMES:
        text = whole[name]
        for size in (0, 1, len(after[name]) - 1, len(after[name]), len(after[name]) + 7, len(text) - 1, len(text)):
            yield {name: text[:size]}
        yield {name: None}
        yield {name: b"another run's\n" + text}
        yield {name: text[: len(text) // 2] + b"x" + text[len(text) // 2 + 1 :]}
    # As it was written once, a member's epochs together.
    yield dict(
        zip(
            NAMES, (b'{"member": 0, "epoch": 0}\n{"member": 0, "epoch": 1}\n', b"member,epoch\n0,0\n0,1\n"), strict=True
        )
    )


def test_after_any_kill_the_next_save_puts_the_files_right(tmp_path):
    """Each byte-exact state of the files, then a new process that goes on from epoch 6 or from the older epoch 3."""
    whole, six = straight(tmp_path / "whole"), straight(tmp_path / "six", (3, 6))
    for i, damage in enumerate(damages(whole, six)):
        for resumed_from in (3, 6):
            directory = tmp_path / f"{i}-{resumed_from}"
            directory.mkdir()
            for name, data in (whole | damage).items():
                if data is not None:
                    (directory / name).write_bytes(data)
            files = records.HistoryFiles(directory)
            for done in range(resumed_from + 1, 10, 2):
                files.update(*until(done))
                lines = (directory / "history.jsonl").read_text().splitlines()
                assert len(lines) == np.minimum(EPOCHS, done).sum()
            files.update(*until(9))
            assert {name: (directory / name).read_bytes() for name in NAMES} == whole


def test_a_file_of_that_name_that_is_no_history_is_set_aside(tmp_path):
    for turn, aside in enumerate(("history.csv.before", "history.csv.before-2")):
        (tmp_path / "history.csv").write_text(f"year,event\n{turn},of a user\n")
        records.HistoryFiles(tmp_path).update(*until(2))
        assert (tmp_path / aside).read_text() == f"year,event\n{turn},of a user\n"
        assert (tmp_path / "history.csv").read_text().startswith("member,epoch,loss")
    records.HistoryFiles(tmp_path).update(*until(2, {"loss": LOSS + 1}))  # another run's is no user's
    assert len(list(tmp_path.iterdir())) == 4


def test_a_save_writes_the_new_lines_alone(tmp_path, monkeypatch):
    """Counted at the files: what a save writes grows with the epochs since the last one, not with those before."""
    written = []
    lines_of = records._json_text
    monkeypatch.setattr(records, "_json_text", lambda *args: written.append(lines_of(*args)) or written[-1])
    write_file = _disk.write_file
    monkeypatch.setattr(_disk, "write_file", lambda *args: written.append(None) or write_file(*args))
    members, epochs = 50, 100
    history = {"loss": RNG.normal(size=(members, epochs)).astype("f")}
    files = records.HistoryFiles(tmp_path)
    for done in range(10, epochs + 1, 10):
        files.update({"loss": history["loss"][:, :done]}, np.full(members, done))
    anew = [text for text in written if text is None]
    assert len(anew) == 2  # both files, by the first save
    assert [text.count("\n") for text in written if text is not None] == [10 * members] * 10
    assert (tmp_path / "history.jsonl").read_text() == "".join(text for text in written if text)
    # A resumed run reads what is there, and replaces nothing that is right.
    written.clear()
    inode = (tmp_path / "history.csv").stat().st_ino
    records.HistoryFiles(tmp_path).update(history, np.full(members, epochs))
    assert None not in written and (tmp_path / "history.csv").stat().st_ino == inode


def test_a_save_that_failed_is_made_good_by_the_next(tmp_path, monkeypatch):
    whole = straight(tmp_path / "whole")
    (tmp_path / "run").mkdir()
    files = records.HistoryFiles(tmp_path / "run")
    files.update(*until(3))

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(records, "_csv_text", full)
        with pytest.raises(OSError, match="No space left"):
            files.update(*until(6))
    files.update(*until(9))
    assert {name: (tmp_path / "run" / name).read_bytes() for name in NAMES} == whole


def curves(directory):
    """Return what the event files of TensorBoard hold, in order, read by the library that writes them."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            end = 12 + int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12:end])
            found += [(value.tag, event.step, np.float32(value.simple_value)) for value in event.summary.value]
            data = data[end + 4 :]
    return found


@pytest.mark.parametrize("history", [{"loss": LOSS[0], "rmse of é": LOSS[1]}, {"loss": LOSS}], ids=["one", "many"])
def test_tensorboard_is_shown_each_epoch_once_whatever_is_resumed(history, tmp_path):
    def until(done):
        return {name: values[..., :done] for name, values in history.items()}

    calls = [(3, 6), (4, 6, 9), (9,), (2,)]  # the second resumes from before the end of the first, as after a kill
    for call in calls:
        callback = records.tensorboard(tmp_path / "resumed")
        for done in call:
            callback(None, until(done))
    whole = records.tensorboard(tmp_path / "whole")
    whole(None, until(9))
    shown = curves(tmp_path / "resumed")
    assert sorted(map(str, shown)) == sorted(map(str, curves(tmp_path / "whole")))
    assert len({(tag, epoch) for tag, epoch, _ in shown}) == len(shown) >= 18
    # Another run's curves are shown whole, and a callback for several recipes shows the second from its beginning.
    whole(None, {"loss": LOSS[0] + 1})
    assert sum(value == np.float32(LOSS[0, 8] + 1) for _, _, value in curves(tmp_path / "whole")) == 1
    assert len(curves(tmp_path / "whole")) == len(shown) + 9
    # What a kill cut short is shown again, and nothing else.
    file = max((tmp_path / "whole").iterdir())
    with open(file, "rb+") as cut:
        cut.truncate(file.stat().st_size - 7)
    records.tensorboard(tmp_path / "whole")(None, {"loss": LOSS[0] + 1})
    second = [path for path in (tmp_path / "whole").iterdir() if path != file]
    assert len(second) == 1 and second[0].stat().st_size < file.stat().st_size / 4


def test_entries_are_arrays_of_any_library():
    """Read as they are, an object of `__array__` alone had no shape, and a tensor with a gradient no values."""

    class Own:
        def __array__(self, dtype=None, copy=None):
            return np.array([0.5])

    torch = pytest.importorskip("torch")
    for loss in (Own(), torch.tensor([0.5], requires_grad=True), torch.tensor([0.5]).bfloat16()):
        assert list(records.rows({"loss": loss})) == [{"epoch": 0, "loss": 0.5}]
