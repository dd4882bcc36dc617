"""The IDX reader: every type, plain and gzipped, and a clear error for every way a file can be wrong."""

import gzip
import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jaxmlp._idx import TYPES, _Unzipped
from jaxmlp.data import read_idx


def idx(array, code=8):
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(TYPES[code]).tobytes()


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("code", TYPES)
def test_every_type_comes_back(tmp_path, code, zipped):
    array = np.arange(-6, 6).reshape(2, 3, 2).astype(np.dtype(TYPES[code]).newbyteorder("="))
    content = idx(array, code)
    (tmp_path / "file").write_bytes(gzip.compress(content) if zipped else content)
    read = read_idx(tmp_path / "file")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype and read.dtype.isnative and read.flags.writeable


BAD = {
    "empty": (b"", "starts with 4 bytes of magic number; the file has 0 bytes"),
    "three bytes": (GOOD[:3], "the file has 3 bytes"),
    "text": (b"<html>not found</html>", "magic number is 00 00, a type .* got 3c 68 74 6d"),
    "unknown type": (bytes([0, 0, 7, 1, 0, 0, 0, 0]), "got 00 00 07 01"),
    "truncated header": (GOOD[:10], "truncated in the header: 3 axes need 12 bytes, 6 are there"),
    "truncated": (GOOD[:-1], r"truncated: the header counts \(2, 3, 4\) values, 24 bytes; 23 bytes are there"),
    "too long": (GOOD + b"\0", r"wrong count: .* 24 bytes; more bytes follow"),
    "huge claim": (bytes([0, 0, 8, 3]) + b"\xff" * 12, "the header claims .* over the bound of 2,147,483,648 bytes"),
    "huge claim within the bound": (bytes([0, 0, 8, 1]) + b"\x7f" + b"\xff" * 3, "truncated"),
    "many axes": (bytes([0, 0, 8, 255]) + bytes(4 * 255), "in 32 axes"),
    "axes of nothing and of all": (
        bytes([0, 0, 14, 4]) + bytes(4) + b"\xff" * 12,
        "the header claims 0 bytes in shape",
    ),
    "broken gzip": (gzip.compress(GOOD)[:-12], "the gzip data is broken"),
    "flipped gzip": (gzip.compress(GOOD)[:-8] + b"\0" * 8, "the gzip data is broken"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_says_what_is_wrong(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / "file").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / "file")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e7
    with pytest.raises(ValueError, match="file: "):
        read_idx(tmp_path / "file")


def test_a_gzip_bomb_is_read_no_further_than_its_claim(tmp_path):
    (tmp_path / "bomb").write_bytes(gzip.compress(GOOD + bytes(10**8)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="more bytes follow"):
        read_idx(tmp_path / "bomb")
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_the_bound_can_be_given(tmp_path):
    (tmp_path / "file").write_bytes(GOOD)
    with pytest.raises(ValueError, match="over the bound of 23 bytes"):
        read_idx(tmp_path / "file", max_bytes=23)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nowhere")


@example(bytes([0, 0, 8, 0]) + b"\5")
@given(st.binary(max_size=40).map(lambda tail: GOOD[:4] + tail) | st.binary(max_size=40))
def test_any_bytes_give_an_array_or_a_value_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(content)
    try:
        array = read_idx(path)
    except ValueError:
        return
    assert idx(array, content[2]) == content


def test_the_headers_and_the_padding_of_gzip_take_no_time(tmp_path, monkeypatch):
    """The gzip module reads both byte by byte: it has no part in it."""
    monkeypatch.delattr(gzip, "GzipFile")
    path, member = tmp_path / "file", gzip.compress(GOOD)
    named = member[:3] + bytes([8 + 16]) + member[4:10] + b"a" * 10**6 + b"\0comment\0" + member[10:]
    whole = (named, member + bytes(10**6), gzip.compress(GOOD[:9]) + gzip.compress(b"") + gzip.compress(GOOD[9:]))
    for content in whole:
        path.write_bytes(content)
        np.testing.assert_array_equal(read_idx(path), np.arange(24).reshape(2, 3, 4))
    endless = bytes([0x1F, 0x8B, 8, 8, *[0] * 6]) + b"a" * 10**6
    for content in (endless, member + endless, member + b"junk", gzip.compress(b"") * 1100 + member):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="file: the gzip data is broken"):
            read_idx(path)


@given(st.lists(st.binary(max_size=9), max_size=4), st.integers(0, 30), st.integers(1, 9))
def test_gzip_is_read_as_the_gzip_module_reads_it(parts, zeros, size):
    content = b"".join(map(gzip.compress, parts)) + bytes(zeros if parts else 0)
    unzipped, found = _Unzipped(io.BytesIO(content or gzip.compress(b""))), []
    while piece := unzipped.read(size):
        found.append(piece)
    assert b"".join(found) == b"".join(parts) and all(len(piece) == size for piece in found[:-1])
