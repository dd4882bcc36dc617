"""What is trained is given back, whatever becomes of the terminal, of signals, callbacks and the disk."""

import errno
import io
import os
import signal
import sys

import crash
import jax
import numpy as np
import pytest

from jaxmlp import _events, loop, records
from jaxmlp.loop import _progress, _session
from jaxmlp.loop._progress import Progress

HISTORY = {"loss": np.array([[0.5, 0.25]])}
STATUS = np.zeros(1, int)


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Stream(io.StringIO):
    """A stream that raises from the `after`-th call of a method on."""

    def __init__(self, method, error, after=0, terminal=False):
        super().__init__()
        self.method, self.error, self.left, self.terminal = method, error, after, terminal

    def _called(self, name):
        if name == self.method:
            self.left -= 1
            if self.left < 0:
                raise self.error

    def write(self, text):
        self._called("write")
        return super().write(text)

    def flush(self):
        self._called("flush")
        return super().flush()

    def isatty(self):
        self._called("isatty")
        return self.terminal


ERRORS = [
    OSError(errno.ENOSPC, "full"),
    BrokenPipeError(errno.EPIPE, "closed"),
    OSError(errno.EIO, "gone"),
    BlockingIOError(errno.EAGAIN, "not now"),
    ValueError("I/O operation on closed file"),
    RuntimeError("reentrant call"),
    AttributeError("no such method"),
]


def show():
    """Go through all that a run shows."""
    with Progress(None, "epoch", 9, 0, 100) as progress:
        progress.say("the run goes on")
        for done in (1, 2):
            progress.update(done, done, HISTORY, STATUS)
        progress.say("ending ☃")
    assert not progress.due


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("method", ["write", "flush", "isatty"])
def test_what_cannot_be_shown_ends_no_run(method, terminal, monkeypatch):
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    for error in ERRORS:
        for after in (0, 1, 4):
            broken = Stream(method, error, after, terminal)
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stderr", broken)
                show()
                assert sys.stderr is broken  # a live line takes the streams, and gives them back


def test_a_stream_that_is_not_there_or_closed_or_not_whole(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed, object()):
        monkeypatch.setattr(sys, "stderr", stream)
        show()
    assert capsys.readouterr().out == ""  # `print(file=None)` takes standard output

    class Plain:
        text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stderr", Plain())
    show()
    assert "epoch 2/9" in sys.stderr.text and "the run goes on" in sys.stderr.text


def test_what_an_encoding_does_not_have_is_shown_by_its_number(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii", errors="strict", write_through=True))
    show()
    assert b"ending \\u2603\n" in raw.getvalue() and b"epoch 2/9" in raw.getvalue()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_run_on_a_full_disk_of_messages_gives_its_result(monkeypatch):
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    straight = crash.digest(crash.run("one", None, epochs=4))
    for stream in (open("/dev/full", "w"), None):
        monkeypatch.setattr(sys, "stderr", stream)
        assert crash.digest(crash.run("one", None, epochs=4, progress=None)) == straight
        monkeypatch.undo()
        if stream is not None:
            with pytest.raises(OSError):
                stream.close()


def test_a_signal_whose_handler_python_does_not_know_is_left_alone(monkeypatch):
    """`getsignal` is None for one of another language's: it cannot be brought back, so it is not replaced."""
    known, changed = signal.getsignal, []
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else known(number))
    set_one = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, what: changed.append(number) or set_one(number, what))
    with _session._Signals(Progress(False, "epoch", 1, 0, None)):
        pass
    assert signal.SIGTERM not in changed


def test_a_handler_that_is_set_meanwhile_stays():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background may ignore it

    def mine(number, frame):
        pass

    try:
        with _session._Signals(Progress(False, "epoch", 1, 0, None)) as signals:
            assert signal.getsignal(signal.SIGINT) == signals._catch
            signal.signal(signal.SIGINT, mine)
        assert signal.getsignal(signal.SIGINT) is mine
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with _session._Signals(Progress(False, "epoch", 1, 0, None)) as signals:
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.caught == signal.SIGINT and signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_callback_that_raises_leaves_what_was_trained(tmp_path, monkeypatch):
    """Without `every` checkpoints are ten seconds apart, and what came after the last one would be lost."""

    class Mine(Exception):
        pass

    def call(state, history):
        if len(history["loss"]) >= 2:
            raise Mine("of the callback")

    options = {"validation": (crash.X[:50], crash.Y[:50]), "progress": False}
    how = (jax.random.key(0), (crash.X, crash.Y), crash.RECIPE, crash.NUMBERS)
    with pytest.raises(Mine, match="of the callback"):
        loop.train(*how, directory=tmp_path / "run", callbacks=[call], epochs=6, **options)
    kept = sorted((tmp_path / "run").glob("0*"))
    assert len(kept) == 1 and int(kept[0].name) >= 2
    found = loop.train(*how, directory=tmp_path / "run", epochs=6, **options)
    assert crash.digest(found) == crash.digest(loop.train(*how, epochs=6, **options))
    # A record that cannot be written is one too; where the checkpoint cannot be written either, a note says so.
    block = blocking(tmp_path / "other" / "history.csv")
    board = records.tensorboard(tmp_path / "board")
    monkeypatch.setattr(_events.EventFiles, "add", lambda *args: open("/none/there"))
    with pytest.raises(FileNotFoundError) as caught:
        loop.train(*how, directory=tmp_path / "other", callbacks=[block, board], epochs=6, **options)
    assert "directory must take a checkpoint; " in caught.value.__notes__[0]


def blocking(path):
    """Return a callback that puts a folder in the place of a file while a run is under way."""

    def block(state, history):
        if not path.is_dir():
            path.unlink(missing_ok=True)
            path.mkdir()

    return block


def test_a_directory_that_cannot_be_written_keeps_no_result_back(tmp_path):
    block = blocking(tmp_path / "history.csv")
    # The folder may come before the file is looked at, or between that and its writing.
    words = "directory must (take a checkpoint; .*history.csv must be a regular file|be writable .*IsADirectoryError)"
    with pytest.raises(ValueError, match=words) as caught:
        crash.run("one", tmp_path, epochs=4, callbacks=[block])
    assert crash.digest((caught.value.state, caught.value.history)) == crash.digest(crash.run("one", None, epochs=4))
