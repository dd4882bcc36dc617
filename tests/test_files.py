"""A model file brings the same model back, on any day, and a hostile one brings an error and nothing else."""

import json
import re
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

import jaxmlp
from jaxmlp import MLP, files, losses

GOLDEN = Path(__file__).parent / "golden"
MODELS = {
    "plain": MLP((3, 4, 2)),
    "norm": MLP((3, 4, 4, 2), "gelu", norm="layer", residual=True, dropout=True),
    "no_bias": MLP((2, 1), bias=False),
    "bfloat16": MLP((3, 2), "tanh", dtype="bfloat16", param_dtype="bfloat16"),
}


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("members", [(), (3,)])
def test_a_model_comes_back(name, members, tmp_path, key):
    model = MODELS[name]
    init = jax.vmap(model.init) if members else model.init
    params = init(jax.random.split(key, members) if members else key)
    jaxmlp.save(tmp_path / "m.safetensors", model, params, metadata={"rmse": 0.5, "units": ["m"]})
    found, back = jaxmlp.load(tmp_path / "m.safetensors")
    assert found == model and files.read_metadata(tmp_path / "m.safetensors") == {"rmse": 0.5, "units": ["m"]}
    same(params, back)
    # Any reader of safetensors opens it, without jaxmlp.
    tensors = load_file(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(tensors["0/w"], params[0].w)


def test_the_files_of_earlier_versions_are_read():
    """Written once by tests/golden/make.py and never again: each format must be read by every later version."""
    x = jnp.linspace(-1, 1, 6, dtype=jnp.float32).reshape(2, 3)
    expected = json.loads((GOLDEN / "outputs.json").read_text())
    known = {f"{name}_{number}" for name in ("plain", "population") for number in files.READABLE}
    assert set(expected) == {path.stem for path in GOLDEN.glob("*.safetensors")} == known
    for number in files.READABLE:
        model, params = load_quietly(GOLDEN / f"plain_{number}.safetensors")
        np.testing.assert_allclose(model.apply(params, x), expected[f"plain_{number}"], rtol=1e-5)
        model, params = load_quietly(GOLDEN / f"population_{number}.safetensors")
        outputs = jax.vmap(model.apply, (0, None))(params, x)
        np.testing.assert_allclose(outputs, expected[f"population_{number}"], rtol=1e-5)
        assert files.read_metadata(GOLDEN / f"plain_{number}.safetensors") == {"made": "by hand"}


def load_quietly(path):
    """Files of format 1 with pairs of outputs warn of what a raw scale was."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is of format 1: ")
        return jaxmlp.load(path)


def test_a_gaussian_head_of_before_is_told_and_reads_as_it_was_written():
    """The variance of format 1 was softplus(raw)^2 + min_variance; the golden file's outputs, read as a Gaussian's."""
    with pytest.warns(UserWarning, match="is of format 1: .* pass them through losses.from_softplus") as told:
        model, params = jaxmlp.load(PLAIN)
    assert len(told) == 1 and told[0].filename == __file__
    outputs = np.array(json.loads((GOLDEN / "outputs.json").read_text())["plain_1"])
    x = jnp.linspace(-1, 1, 6, dtype=jnp.float32).reshape(2, 3)
    mean, variance = losses.gaussian(losses.from_softplus(model.apply(params, x)))
    np.testing.assert_allclose(mean, outputs[:, :1], rtol=1e-5)
    np.testing.assert_allclose(variance, np.logaddexp(0, outputs[:, 1:]) ** 2 + 1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["saved anew", "one output"])
def test_no_other_file_warns_of_a_head(name, tmp_path, key):
    path = tmp_path / "m.safetensors"
    if name == "saved anew":
        jaxmlp.save(path, *load_quietly(PLAIN))
    else:
        jaxmlp.save(path, MLP((3, 1)), MLP((3, 1)).init(key))
        header, body = parts(path)
        told = json.loads(header["__metadata__"]["jaxmlp"]) | {"format": 1}
        path.write_bytes(join({**header, "__metadata__": {"jaxmlp": json.dumps(told)}}, body))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxmlp.load(path)


def parts(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join(header, body):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


PLAIN = GOLDEN / "plain_1.safetensors"
HEADER, BODY = parts(PLAIN)
TOLD = json.loads(HEADER["__metadata__"]["jaxmlp"])


def described(**changes):
    told = {**TOLD, **changes}
    return join({**HEADER, "__metadata__": {"jaxmlp": json.dumps(told)}}, BODY)


def with_tensor(name, **changes):
    return join({**HEADER, name: {**HEADER[name], **changes}}, BODY)


def nan_body():
    body = bytearray(BODY)
    body[:4] = struct.pack("<f", float("nan"))
    return bytes(body)


HOSTILE = {
    "nothing": (b"", "with a header of at most"),
    "no header": (b"\x01\x02", "with a header of at most"),
    "a header longer than the file": (struct.pack("<Q", 10**6) + b"{}", "is said to take 1,000,000"),
    "a header of an exabyte": (struct.pack("<Q", 2**63) + BODY, "with a header of at most 2,097,152 bytes"),
    "no JSON": (join(b"\xff" * 20, BODY), "could not be read"),
    "no description": (join({n: v for n, v in HEADER.items() if n != "__metadata__"}, BODY), "has no description"),
    "a description that is no JSON": (join({**HEADER, "__metadata__": {"jaxmlp": "{"}}, BODY), "cannot be read"),
    "a description without end": (
        join({**HEADER, "__metadata__": {"jaxmlp": "[" * 100_000}}, BODY),
        "must have a description in JSON",
    ),
    "NaN in the description": (described(metadata=float("nan")), "NaN is no JSON"),
    "another format": (described(format=3), "must be of format 1 or 2; got 3; a newer jaxmlp may read it"),
    "a field too many": (described(code="import os"), "format, model and metadata; got code, format"),
    "an unknown option": (described(model={**TOLD["model"], "hook": "os.system"}), "an option of MLP must be one of"),
    "an unknown activation": (described(model={**TOLD["model"], "activation": "os"}), "activation must be one of"),
    "an activation that is no name": (described(model={**TOLD["model"], "activation": []}), "activation must be"),
    "a model that is no dict": (described(model="MLP"), "must describe a model by a dict; got str"),
    "huge sizes": (described(model={**TOLD["model"], "sizes": [10**9] * 3}), "must have shape (1000000000"),
    "sizes beyond any machine": (
        described(model={**TOLD["model"], "sizes": [10**300] * 3}),
        "every size must be at most 2147483647",
    ),
    "sizes that are text": (described(model={**TOLD["model"], "sizes": "345"}), "sizes must list the widths"),
    "a layer more": (described(model={**TOLD["model"], "sizes": [3, 4, 4, 2]}), "must hold the tensors 2/b, 2/w"),
    "a layer less": (described(model={**TOLD["model"], "sizes": [3, 4]}), "must not hold the tensors 1/b, 1/w"),
    "a shape that is larger than its bytes": (with_tensor("0/w", shape=[3, 10**12]), "could not be read"),
    "another shape": (with_tensor("0/w", shape=[4, 3]), "0/w must have shape (3, 4)"),
    "integers": (with_tensor("0/w", dtype="I32"), "0/w must be of float64, float32, float16, bfloat16; got I32"),
    "offsets that overlap": (with_tensor("0/w", data_offsets=[0, 48]), "could not be read"),
    "cut short": (PLAIN.read_bytes()[:-4], "could not be read"),
    "bytes left over": (PLAIN.read_bytes() + b"more", "could not be read"),
    "NaN": (join(HEADER, nan_body()), "must be finite"),
    "more layers than tensors": (
        described(model={**TOLD["model"], "sizes": [1] * 200_000}),
        "must hold a tensor for each of 199,999 layers; got 4",
    ),
    "sizes within sizes": (
        join({**HEADER, "__metadata__": {"jaxmlp": "[" * 90_000 + "]" * 90_000}}, BODY),
        "must have a description in JSON",
    ),
    "a header within a header": (join(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, BODY), "could not be read"),
    "a tensor twice": (
        join(json.dumps(HEADER)[:-1].encode() + b', "0/w": {}}', BODY),
        "'0/w' stands twice in one dict",
    ),
    "a header that is a list": (join(b"[]", BODY), "it is no object of JSON"),
    "metadata of another kind": (join({**HEADER, "__metadata__": {"jaxmlp": 7}}, BODY), "must name texts"),
    "no metadata": (join({**HEADER, "__metadata__": None}, BODY), "must name texts"),
    "a tensor that is a number": (join({**HEADER, "0/w": 7}, BODY), "must have dtype, shape and data_offsets alone"),
    "a shape of another kind": (with_tensor("0/w", shape=[3.0, 4]), "natural numbers for shape and data_offsets"),
    "a shape below zero": (with_tensor("0/w", shape=[-3, -4]), "natural numbers for shape and data_offsets"),
    "a shape of flags": (with_tensor("0/w", shape=[True, 12]), "natural numbers for shape and data_offsets"),
    "a shape beyond all": (with_tensor("0/w", shape=[10**4000, 10**4000]), "as many bytes as numbers"),
    "a dtype that is a list": (with_tensor("0/w", dtype=["F32"]), "must have a name for dtype"),
    "offsets that go back": (with_tensor("0/w", data_offsets=[48, 0]), "could not be read"),
    "three offsets": (with_tensor("0/w", data_offsets=[0, 48, 48]), "could not be read"),
    "a gap": (join(HEADER, BODY + bytes(4)), "bytes, and"),
    "a norm that is a list": (described(model={**TOLD["model"], "norm": [1]}), "must describe an MLP"),
    "a dtype that is a dict": (described(model={**TOLD["model"], "dtype": {"a": 1}}), "must describe an MLP"),
    "an activation without end": (
        described(model={**TOLD["model"], "activation": "a" * 10**6}),
        "must describe an MLP",
    ),
    "an initializer that is a number": (described(model={**TOLD["model"], "initializer": 7}), "must describe an MLP"),
    "a flag that is a word": (described(model={**TOLD["model"], "bias": "no"}), "bias must be True or False"),
    "sizes of fractions": (
        described(model={**TOLD["model"], "sizes": [3, 4.5, 2]}),
        "every size must be a positive int",
    ),
    "sizes that are a dict": (described(model={**TOLD["model"], "sizes": {"3": 4}}), "must describe an MLP"),
    "no sizes": (described(model={}), "must describe an MLP"),
    "a digest of another": (
        join({**HEADER, "__metadata__": {**HEADER["__metadata__"], "sha256": "0" * 64}}, BODY),
        "must hold what was saved",
    ),
    "a digest whose name is damaged": (
        join({**HEADER, "__metadata__": {**HEADER["__metadata__"], "sha257": "0" * 64}}, BODY),
        "must hold what was saved",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_an_error_that_says_what_is_wrong(name, tmp_path):
    data, words = HOSTILE[name]
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(words)):
        jaxmlp.load(path)


def test_whatever_changes_in_a_file_is_seen(tmp_path, key):
    """Each byte of the numbers and of the description, and two tensors that change places."""
    path = tmp_path / "m.safetensors"
    model = MLP((2, 2, 2), "tanh")
    jaxmlp.save(path, model, model.init(key), metadata={"rmse": 0.25})
    whole, (header, body) = path.read_bytes(), parts(path)
    for at in range(len(whole) - len(body), len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="must hold what was saved; numbers or description have changed"):
            jaxmlp.load(path)
    for old, new in ((b"0.25", b"0.26"), (b"tanh", b"relu")):
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(ValueError, match="m.safetensors must"):
            jaxmlp.load(path)
    header["0/w"], header["1/w"] = header["1/w"], header["0/w"]
    path.write_bytes(join(header, body))
    with pytest.raises(ValueError, match="must hold what was saved"):
        jaxmlp.load(path)
    # A change that is meant, and metadata of other tools.
    header["__metadata__"] = {"jaxmlp": header["__metadata__"]["jaxmlp"], "format": "pt"}
    path.write_bytes(join(header, body))
    assert jaxmlp.load(path)[0] == model and files.read_metadata(path) == {"rmse": 0.25}


def test_metadata_that_json_cannot_hold_is_refused(tmp_path, key):
    model, endless = MLP((2, 1)), []
    endless.append(endless)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for metadata in ({1, 2}, float("nan"), endless, deep, {"a": object()}, 10**5000):
        with pytest.raises(ValueError, match="metadata must be what JSON can hold"):
            jaxmlp.save(tmp_path / "m", model, model.init(key), metadata=metadata)
    assert list(tmp_path.iterdir()) == []


def load_or_error(path, data):
    """Load bytes: an error of ours, or a model whose parameters are those of the description."""
    path.write_bytes(data)
    try:
        model, params = jaxmlp.load(path)
    except ValueError as error:
        assert path.name in str(error) or "param_dtype" in str(error)
        return False
    assert [layer.w.shape for layer in params] == model.structure.shapes and model == jaxmlp.MLP((3, 4, 2))
    return True


@given(st.data())
def test_any_byte_may_change(tmp_path_factory, data):
    """Flips, cuts, insertions and repetitions of any part: an error, or a right answer; counted in the long test."""
    path = tmp_path_factory.mktemp("f") / "m.safetensors"
    load_or_error(path, mutated(PLAIN.read_bytes(), data.draw(st.integers(0, 2**32))))


def mutated(data, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        a, b = sorted(rng.integers(0, len(data) + 1, 2))
        b = min(b, a + int(rng.choice([1, 4, 64])))
        kind = rng.integers(5)
        if kind == 0 and a < len(data):
            data[a] ^= 1 << rng.integers(8)
        elif kind == 1:
            del data[a:b]
        elif kind == 2:
            data[a:a] = rng.integers(0, 256, rng.integers(1, 20), "u1").tobytes()
        elif kind == 3:
            data[a:a] = data[a:b]
        else:
            data = data[:a]
        data = data or bytearray(b"\0")
    return bytes(data)


MUTANTS = """
import resource, sys, tempfile
from pathlib import Path
sys.path.insert(0, "tests")
from test_files import HOSTILE, PLAIN, load_or_error, mutated

path = Path(tempfile.mkdtemp()) / "m.safetensors"
load_or_error(path, PLAIN.read_bytes())  # imports and compiles what loading needs
ran = set()
forbidden = ("os.system", "os.exec", "os.posix_spawn", "subprocess", "pickle", "ctypes.dlopen", "marshal", "exec")
sys.addaudithook(lambda event, args: ran.add(event) if event.startswith(forbidden) else None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
right = sum(load_or_error(path, mutated(PLAIN.read_bytes(), seed)) for seed in range(300))
taken = [name for name, (data, _) in HOSTILE.items() if load_or_error(path, data)]
print((right, taken, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, sorted(ran)))
"""


def test_hundreds_of_hostile_files_run_no_code_and_take_no_memory():
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", MUTANTS], capture_output=True, text=True, cwd=root)
    assert run.returncode == 0, run.stderr[-3000:]
    right, taken, mebibytes, ran = eval(run.stdout)
    assert 0 < right < 150 and taken == [] and mebibytes < 200 and ran == []
