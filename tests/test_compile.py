"""How programs are compiled: the quick way when outermost on a CPU, the plain way inside a trace; and kept on disk."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache

import jaxmlp
from jaxmlp import MLP, Recipe, _compile, losses


def program():
    @_compile.jit(quick=True, static_argnames="power")
    def moment(x, *, power=2):
        return (x**power).mean()

    return moment


def test_works_under_every_transformation():
    moment, x = program(), jnp.arange(4.0)
    want = np.mean(np.arange(4.0) ** 2)
    assert moment(x) == jax.jit(moment)(x) == want
    np.testing.assert_allclose(jax.grad(moment)(x), 2 * x / 4)
    np.testing.assert_allclose(jax.jit(jax.grad(moment))(x), 2 * x / 4)
    np.testing.assert_allclose(jax.vmap(moment)(jnp.stack([x, x])), [want, want])
    np.testing.assert_allclose(jax.vmap(jax.grad(moment))(jnp.stack([x, x])), [2 * x / 4] * 2)
    np.testing.assert_allclose(jax.jvp(moment, (x,), (x,))[1], 2 * want)
    assert jax.eval_shape(moment, x).shape == moment.eval_shape(x).shape == ()
    assert jax.lax.map(moment, jnp.stack([x, x])).shape == (2,)
    assert jax.export.export(jax.jit(moment))(x).call(x) == want
    assert moment.lower(x, power=3).compile()(x) == np.mean(np.arange(4.0) ** 3)
    assert moment.__name__ == "moment" and moment.__wrapped__(x) == want


@pytest.mark.bits
def test_the_outermost_program_on_a_cpu_takes_the_options_and_a_traced_one_does_not():
    moment, x = program(), jnp.arange(4.0)
    moment(x), moment(x)
    assert (moment._quick._cache_size(), moment._inner._cache_size()) == (int(jax.default_backend() == "cpu"), 0)
    moment.clear_cache()
    jax.jit(lambda x: moment(x))(x)
    assert (moment._quick._cache_size(), moment._outer._cache_size()) == (0, 0)


@pytest.mark.bits
def test_what_the_user_chose_stays(monkeypatch):
    moment, x = program(), jnp.arange(4.0)
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3")
    moment(x)
    monkeypatch.setenv("XLA_FLAGS", "")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        moment(x)
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
    assert (moment._quick._cache_size(), moment._outer._cache_size()) == (0, 1)


def test_a_donated_argument_is_donated_by_the_outermost_call_alone():
    @_compile.jit(donate_argnums=0)
    def twice(x):
        return 2 * x

    x = jnp.arange(4.0)
    assert jax.vmap(twice)(x).tolist() == jax.jit(twice)(x).tolist() == [0, 2, 4, 6] and not x.is_deleted()
    twice(x)
    assert x.is_deleted()


def test_a_fit_compiles_two_programs_and_a_second_none(key, compiled):
    recipe = Recipe(MLP((2, 3, 1)), losses.squared_error, optax.sgd, epochs=2, batch_size=4)
    x = np.zeros((8, 2), np.float32)
    fit = jax.tree_util.Partial(jaxmlp.fit, key, (x, x[:, :1]), recipe)
    fit({"learning_rate": 0.1})
    assert compiled == ["start", "_run"]
    compiled.clear()
    fit({"learning_rate": 0.2})
    assert compiled == []


def test_a_cache_on_disk_is_where_it_says(tmp_path, monkeypatch):
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_enable_compilation_cache"
    before = {name: getattr(jax.config, name) for name in names}
    try:
        assert jaxmlp.use_compilation_cache(tmp_path / "own") == tmp_path / "own"
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr("sys.platform", "linux")
        assert jaxmlp.use_compilation_cache() == tmp_path / "jaxmlp" / f"jax-{jax.__version__}"
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match="directory must be a path on this machine; got the URL"):
            jaxmlp.use_compilation_cache("gs://programs")
        with pytest.raises(ValueError, match="directory must be one that can be created"):
            jaxmlp.use_compilation_cache(tmp_path / "file" / "inside")
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
