"""Tables on disk: which files of a folder are data, what is refused, and what is read of it."""

import os

import jax
import numpy as np
import pytest

from jaxmlp import loop
from jaxmlp.loop._digest import of_array
from jaxmlp.loop.streams import Position, _npy, accepting, open_stream

KEY = jax.random.key(0)
X = np.arange(24, dtype=np.float32).reshape(12, 2)
Y = np.arange(12, dtype=np.float32)[:, None]


def table(folder, *names):
    """Write files of these names; rows of x and y say from which they are."""
    for i, name in enumerate(names):
        if name.endswith(".npy"):
            np.save(folder / name, X + 100 * i if name.startswith("x") else Y)
        else:
            (folder / name).write_bytes(b"nothing")
    return folder


def opened(folder):
    return open_stream(str(folder), KEY, 4, None)


def shards(folder):
    return [os.path.basename(shard[0].filename) for shard in loop.npy(folder).shards]


def both(*rests):
    return [f"{part}{rest}.npy" for part in "xy" for rest in rests]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (both("", "_old", "_test"), ["x.npy"]),
        (["x.npy", "y.npy", "x2.npy", "xs.npy", "y_old.npy"], ["x.npy"]),
        ([*both("-000"), "._x-000.npy", "x-001.npy.part", "x-001.npy.gz", "README.md"], ["x-000.npy"]),
        (both(*(f"-{i}" for i in range(12))), [f"x-{i}.npy" for i in range(12)]),  # 10 after 9, not after 1
        (both("_1", "_2"), ["x_1.npy", "x_2.npy"]),
        (both(".07", ".08"), ["x.07.npy", "x.08.npy"]),
        (both("-00000-of-00002", "-00001-of-00002"), ["x-00000-of-00002.npy", "x-00001-of-00002.npy"]),
        (both("-1-of-2", "-2-of-2"), ["x-1-of-2.npy", "x-2-of-2.npy"]),
        (both("-20240131", "-20240201"), ["x-20240131.npy", "x-20240201.npy"]),  # days are no count
    ],
)
def test_shards_are_known_by_their_names_and_in_the_order_of_their_numbers(tmp_path, names, expected):
    assert shards(table(tmp_path, *names)) == expected


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["x-000.npy", "x-001.npy", "x-003.npy", *("y-000.npy", "y-001.npy", "y-002.npy")],
            "got 3 of x, 3 of y and 0 of weight: x-002.npy is missing, y-003.npy is missing",
        ),
        ([*both("-0", "-1"), "weight-0.npy", "weight-2.npy"], "weight-1.npy is missing, x-2.npy is missing"),
        (["x_0.npy", "y-0.npy"], "x-0.npy is missing, y_0.npy is missing"),
        (["y.npy"], "got 0 of x, 1 of y and 0 of weight: x.npy is missing"),
        (["x-a.npy", "y-a.npy"], "of .npy files it holds x-a.npy, y-a.npy"),
        (both("-000", "-002", "-003"), "every shard of x from number 0 to 3; 1 missing"),
        (both("-0-of-4", "-2-of-4"), "every shard of x from number 0 to 3; 1, 3 missing"),
        (both("-0-of-2", "-1-of-3"), "must hold the shards of one table; got x-0-of-2.npy, x-1-of-3.npy"),
        (both("-1", "-01"), "must hold each shard once; got x-01.npy, x-1.npy, of one number"),
        (both("", "-0"), "must hold either one table, x.npy, or its shards; got x.npy, x-0.npy"),
        ([*both("-000"), "x-000 (copy).npy"], "almost that of a shard; got x-000 (copy).npy; call it x.npy or x-<num"),
        ([*both(""), "weights.npy"], "almost that of a shard; got weights.npy"),
        ([*both("-0"), "w-0.npy"], "almost that of a shard; got w-0.npy"),
        ([*both(""), "sample_weight.npy"], "almost that of a shard; got sample_weight.npy"),
    ],
)
def test_shards_that_are_no_pairs_are_refused_with_the_difference(tmp_path, names, words):
    with pytest.raises(ValueError, match="must hold") as error:
        opened(table(tmp_path, *names))
    assert words in str(error.value)


def test_a_folder_that_is_none_is_refused(tmp_path):
    table(tmp_path, "x.npy", "y.npy")
    for path in (tmp_path / "none", tmp_path / "x.npy"):
        with pytest.raises(ValueError, match="must be a folder that holds x.npy and y.npy, or shards"):
            opened(path)


# One file.


def header(path, text):
    """Write a .npy file of 96 bytes of numbers whose header says what it likes."""
    text = text.encode()
    text += b" " * (-(10 + len(text) + 1) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + X.tobytes())


def bomb(path):
    path.write_bytes(b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little"))
    os.truncate(path, 2**32)  # a hole: NumPy would read two of its four GiB


def elsewhere(path):
    path.unlink()
    os.symlink("/dev/zero", path)


REFUSED = {
    "a FIFO": (lambda p: (p.unlink(), os.mkfifo(p)), "must be a regular file; it is a"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "must be a regular file; it is a"),
    "a device": (elsewhere, "must be a regular file; it is a"),
    "objects": (lambda p: np.save(p, np.array([[1, "a"]] * 12, object), allow_pickle=True), "Python objects in dtype"),
    "an archive": (lambda p: (np.savez(f"{p}.npz", X), os.rename(f"{p}.npz", p)), "it does not begin as one"),
    "records": (lambda p: np.save(p, np.zeros(12, [("a", "f4")])), "must hold numbers; got dtype"),
    "text": (lambda p: np.save(p, np.array(["a"] * 12)), "must hold numbers; got dtype <U1"),
    "dates": (lambda p: np.save(p, np.zeros(12, "M8[s]")), "must hold numbers; got dtype datetime64[s]"),
    "bfloat16": (lambda p: np.save(p, X.astype(jax.numpy.bfloat16)), "is saved as float32"),
    "complex": (lambda p: np.save(p, X * 1j), "must hold numbers; got dtype complex64"),
    "cut short": (lambda p: os.truncate(p, 150), "could not be read"),
    "cut in its header": (lambda p: os.truncate(p, 50), "could not be read"),
    "empty": (lambda p: os.truncate(p, 0), "could not be read"),
    "a long header": (bomb, "its header is too long"),
    "many sizes": (
        lambda p: header(p, "{'descr': '<f4', 'fortran_order': False, 'shape': (%s)}" % ("1," * 80)),
        "could",
    ),
    "a size of 10^30": (
        lambda p: header(p, f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30},)}}"),
        "could not be read",
    ),
    "sizes that overflow": (
        lambda p: header(p, f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**62}, 4)}}"),
        "could not be read",
    ),
    "no rows": (lambda p: np.save(p, X[:0]), "shard 0 must have as many rows in each file"),
    "a number": (lambda p: np.save(p, np.float32(3)), "shard 0 must have as many rows in each file"),
    "wide integers": (
        lambda p: np.save(p, X.astype(np.int64) + 2**40),
        "must fit int32, in which JAX computes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_holds_no_table_is_refused(tmp_path, name):
    change, words = REFUSED[name]
    table(tmp_path, "x.npy", "y.npy")
    change(tmp_path / "x.npy")
    with pytest.raises(ValueError) as error:
        opened(tmp_path)
    assert words in str(error.value)


RIGHT = {
    "Fortran's order": np.asfortranarray,
    "another byte order": lambda x: x.astype(">f4"),
    "another byte order and width": lambda x: x.astype(">f8"),
    "long double": lambda x: x.astype(np.longdouble),
    "big integers": lambda x: x.astype(">i8"),
}


@pytest.mark.parametrize("small", [True, False])
def test_any_numbers_are_read_as_they_are(tmp_path, monkeypatch, small):
    monkeypatch.setattr(_npy, "MAPPED_BYTES", 2**20 if small else 0)
    table(tmp_path, "x.npy", "y.npy")
    os.rename(tmp_path / "x.npy", tmp_path / "real")
    os.symlink(tmp_path / "real", tmp_path / "x.npy")
    stream = opened(tmp_path)
    assert accepting(stream, {}, others=True) == {}
    x, y, weight = stream._read(0, 0, 3)
    assert sorted(y.ravel().tolist()) == Y.ravel().tolist() and weight.all()
    for name, change in RIGHT.items():
        np.save(tmp_path / "x.npy", change(X))
        found = opened(tmp_path)._read(0, 0, 3)[0]
        np.testing.assert_array_equal(found, x, err_msg=name)
        assert found.dtype == (np.int32 if "integers" in name else np.float32)


def test_rows_above_the_order_are_refused(tmp_path):
    for name in "xy":
        with open(tmp_path / f"{name}.npy", "wb") as file:
            like = {"descr": "|u1", "fortran_order": False, "shape": (2**31 + 1, 1)}
            np.lib.format.write_array_header_1_0(file, like)
            file.truncate(file.tell() + 2**31 + 1)
    with pytest.raises(ValueError, match=r"data must have at most 2\^31 rows; got 2147483649"):
        opened(tmp_path)


@pytest.mark.parametrize("place", [(0, 3, 3), (0, -1, 0), (-1, 0, 0), (0, 10**9, 10**9)])
def test_a_place_that_no_epoch_has_is_refused(tmp_path, place):
    with pytest.raises(ValueError, match="position of the checkpoint must be one in an epoch of 3 steps; got"):
        next(opened(table(tmp_path, "x.npy", "y.npy")).stacks(Position(*place), 2, None, {}))


@pytest.mark.parametrize("limit", [2**28, 0])
def test_a_file_cut_short_while_it_is_mapped_is_an_error_and_not_the_end(tmp_path, monkeypatch, limit):
    """A map of it would end the process by SIGBUS."""
    monkeypatch.setattr(_npy, "MAPPED_BYTES", limit)
    x, y = np.zeros((40_000, 32), np.float32), np.zeros((40_000, 1), np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    mapped = tuple(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    stream = open_stream(mapped, KEY, 4096, None)
    os.truncate(tmp_path / "x.npy", 10_000)
    with pytest.raises(ValueError, match=r"x.npy must hold row \d+; it was cut short since it was mapped"):
        _ = stream.fingerprint
    with pytest.raises(ValueError, match=r"x.npy must hold row \d+; it was cut short since it was mapped"):
        open_stream(mapped, KEY, 4096, None)._read(0, 0, 9)


@pytest.mark.parametrize("limit", [2**28, 0])
def test_a_file_that_another_has_replaced_is_read_as_it_was_mapped(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(_npy, "MAPPED_BYTES", limit)
    table(tmp_path, "x.npy", "y.npy")
    mapped = tuple(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    before = open_stream(mapped, KEY, 4, None)
    np.save(tmp_path / "other.npy", X + 1)
    os.replace(tmp_path / "other.npy", tmp_path / "x.npy")
    (tmp_path / "y.npy").unlink()
    after = open_stream(mapped, KEY, 4, None)
    assert after.fingerprint == before.fingerprint
    jax.tree.map(np.testing.assert_array_equal, after._read(0, 0, 3), before._read(0, 0, 3))


# What the digest reads.


def test_a_full_digest_sees_what_samples_do_not(tmp_path):
    x = np.zeros((70, 2**16), np.uint8)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.zeros((70, 1), "f"))

    def digests(source):
        return [open_stream(data, KEY, 4, None).fingerprint for data in (source, loop.npy(source, digest="full"))]

    sampled, full = digests(tmp_path)
    assert sampled != full
    x[11, 64_300] = 1  # between two samples
    np.save(tmp_path / "x.npy", x)
    assert digests(tmp_path)[0] == sampled and digests(tmp_path)[1] != full
    mapped = tuple(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    assert digests(mapped) == digests(tmp_path)
    assert open_stream(loop.npy(tmp_path, digest="sampled"), KEY, 4, None).fingerprint == sampled
    for mistake, words in {
        "a word": (lambda: loop.npy(tmp_path, digest="all"), "digest must be one of sampled, full; got 'all'"),
        "one array": (lambda: loop.npy(mapped[0]), "source must be a folder, or (x, y) or (x, y, weight) of mapped"),
        "lists": (lambda: loop.npy(([1], [2])), "source must hold mapped arrays"),
    }.values():
        with pytest.raises(ValueError) as error:
            mistake()
        assert words in str(error.value)


def test_a_digest_of_samples_is_the_same_in_either_order(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (3000, 1500)).astype(np.float32)
    np.save(tmp_path / "c.npy", x)
    np.save(tmp_path / "f.npy", np.asfortranarray(x))
    c, f = (of_array(np.load(tmp_path / f"{order}.npy", mmap_mode="r")) for order in "cf")
    assert c == f
