"""Programs of computational science with a perceptron as one of their parts, each beside what is known of its end."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from programs import check_everywhere

import jaxmlp
from jaxmlp import MLP, Recipe, losses, population

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def as_a_user():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def flow():
    diffrax = pytest.importorskip("diffrax")

    class Flow:
        """h(0) = x, dh/dt = field(h), y = h(1) (Chen 2018, arXiv 1806.07366)."""

        field = MLP((2, 16, 2), "tanh")

        def init(self, key):
            return self.field.init(key)

        def apply(self, params, x):
            term = diffrax.ODETerm(lambda t, h, params: self.field.apply(params, h))
            solved = diffrax.diffeqsolve(term, diffrax.Heun(), 0.0, 1.0, 0.25, x, params)
            return solved.ys[0]

    return Flow()


def test_a_neural_differential_equation():
    """1. Neural ODE: a rotation learnt from its ends."""
    x = jax.random.uniform(KEY, (64, 2), minval=-1)
    turn = jnp.array([[jnp.cos(1.0), jnp.sin(1.0)], [-jnp.sin(1.0), jnp.cos(1.0)]])
    recipe = Recipe(flow(), losses.squared_error, optax.adam, epochs=120)
    state, _ = jaxmlp.fit(KEY, (x, x @ turn), recipe, {"learning_rate": 0.03})
    new = jax.random.uniform(jax.random.key(1), (16, 2), minval=-0.7, maxval=0.7)
    np.testing.assert_allclose(recipe.model.apply(state.params, new), new @ turn, atol=0.1)


def heat(outputs, targets, *, params, apply, key, diffusion=0.1, equation=1.0):
    """Begin and end as the data say, and obey u_t = diffusion u_xx at points drawn anew in each step."""

    def residual(point):
        def u(point):
            return apply(params, point[None])[0, 0]

        return jax.grad(u)(point)[1] - diffusion * jax.hessian(u)(point)[0, 0]

    points = jax.random.uniform(key, (len(targets), 2))
    residuals = jnp.square(jax.vmap(residual)(points))
    return losses.squared_error(outputs, targets) + equation * residuals, {"residual": residuals}


@pytest.mark.bits
def test_a_physics_informed_network(tmp_path):
    """2. PINN: the heat equation, its points drawn anew, a population over the weight of the equation."""
    s = np.linspace(0, 1, 17, dtype="f")
    x = np.concatenate([np.stack([s, 0 * s], 1), np.stack([0 * s, s], 1), np.stack([1 + 0 * s, s], 1)])
    y = np.sin(np.pi * x[:, :1]) * (x[:, 1:] == 0)
    recipe = Recipe(MLP((2, 12, 12, 1), "tanh"), heat, optax.adam, epochs=400)
    keys, numbers = population.grid(learning_rate=[0.02], equation=[0.1, 1.0])
    states, history = population.fit(keys, (x, y), recipe, numbers)
    net, _ = population.best(states, history, by="residual", largest=False)
    grid = np.stack(np.meshgrid(s, s), -1).reshape(-1, 2)
    known = np.exp(-0.1 * np.pi**2 * grid[:, 1]) * np.sin(np.pi * grid[:, 0])
    np.testing.assert_allclose(recipe.model.apply(net.params, grid)[:, 0], known, atol=0.07)
    small = dataclasses.replace(recipe, model=MLP((2, 8, 1), "tanh"))
    check_everywhere(KEY, (x, y), small, {"learning_rate": 0.02}, tmp_path)


def line():
    """Return a line with noise, and the mean and covariance of its weights under a normal prior, in NumPy."""
    x = np.linspace(-1, 1, 20, dtype="f")[:, None]
    y = 2 * x + 1 + np.asarray(jax.random.normal(KEY, x.shape))
    design = np.concatenate([x, np.ones_like(x)], 1)  # in the order of ravel_pytree: w, b
    covariance = np.linalg.inv(design.T @ design + np.eye(2))
    return x, y, (covariance @ design.T @ y)[:, 0], covariance


def test_sampling_a_posterior():
    """3. NUTS: the posterior of the weights, which for a line is known."""
    blackjax = pytest.importorskip("blackjax")
    x, y, mean, covariance = line()
    net = MLP((1, 1))

    def log_density(params):
        prior = sum(0.5 * jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))
        return -jnp.sum(losses.unit_gaussian_nll(net.apply(params, x), y)) - prior

    nuts = blackjax.nuts(log_density, step_size=0.3, inverse_mass_matrix=jnp.ones(net.parameter_count))

    def step(state, key):
        state, _ = nuts.step(key, state)
        return state, state.position

    begun = nuts.init(net.init(KEY))
    _, draws = jax.jit(lambda keys: jax.lax.scan(step, begun, keys))(jax.random.split(KEY, 1500))
    flat = jax.vmap(lambda params: ravel_pytree(params)[0])(draws)[100:]
    np.testing.assert_allclose(flat.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(flat.T), covariance, atol=0.05)
    predicted = population.predict(net, draws, x)  # draws are members
    np.testing.assert_allclose(predicted.mean(0)[:, 0], mean[0] * x[:, 0] + mean[1], atol=0.15)


def test_a_probabilistic_program():
    """4. NumPyro: priors on the weights, sampled by its MCMC."""
    numpyro = pytest.importorskip("numpyro")
    from numpyro.distributions import Normal
    from numpyro.infer import MCMC, NUTS

    x, y, mean, covariance = line()
    net = MLP((1, 1))
    _, unravel = ravel_pytree(net.init(KEY))  # glue: one site for all weights

    def program(x, y=None):
        weights = numpyro.sample("weights", Normal(0, 1).expand([net.parameter_count]).to_event(1))
        numpyro.sample("y", Normal(net.apply(unravel(weights), x), 1.0).to_event(2), obs=y)

    mcmc = MCMC(NUTS(program), num_warmup=200, num_samples=1000, progress_bar=False)
    mcmc.run(KEY, x, y)
    weights = mcmc.get_samples()["weights"]
    np.testing.assert_allclose(weights.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(np.cov(weights.T), covariance, atol=0.06)


def test_a_quasi_newton_method():
    """8. L-BFGS with its line search, as any other optimizer of a recipe."""
    x = jax.random.normal(KEY, (40, 3))
    y = jnp.sum(jnp.sin(x), axis=1, keepdims=True)
    recipe = Recipe(MLP((3, 1)), losses.squared_error, optax.lbfgs, epochs=12)
    state, _ = jaxmlp.fit(KEY, (x, y), recipe)
    known, *_ = np.linalg.lstsq(np.concatenate([x, np.ones((40, 1))], 1), y)
    np.testing.assert_allclose(ravel_pytree(state.params)[0], known[:, 0], atol=1e-4)


def test_nonlinear_least_squares():
    """8. Optimistix: Levenberg and Marquardt's method over the parameters as they are."""
    optimistix = pytest.importorskip("optimistix")
    x = jnp.linspace(-1, 1, 32)[:, None]
    net = MLP((1, 6, 1), "tanh")
    params = net.init(KEY)
    target = net.apply(net.init(jax.random.key(1)), x)
    solver = optimistix.LevenbergMarquardt(rtol=1e-5, atol=1e-5)
    found = optimistix.least_squares(lambda params, _: net.apply(params, x) - target, solver, params, throw=False)
    assert jax.tree.structure(found.value) == jax.tree.structure(params)
    assert jnp.mean(losses.squared_error(net.apply(found.value, x), target)) < 1e-5


def test_curvature():
    """9. Jacobian, Hessian-vector product, Gauss-Newton matrix and tangent kernel, beside NumPy's."""
    x = jax.random.normal(KEY, (5, 2))
    net = MLP((2, 4, 1), "tanh", bias=False)
    params = net.init(KEY)
    flat, unravel = ravel_pytree(params)

    def predict(flat):
        return net.apply(unravel(flat), x)[:, 0]

    def objective(params):
        return jnp.mean(losses.unit_gaussian_nll(net.apply(params, x), jnp.zeros((5, 1))))

    jacobian = jax.jit(jax.jacobian(predict))(flat)  # (rows, parameters)
    _, product = jax.jvp(jax.grad(objective), (params,), (params,))  # forward over reverse
    slopes = jax.vmap(jax.jacfwd(lambda point: net.apply(params, point)))(x)  # in the inputs, (rows, 1, 2)
    kernel = jacobian @ jacobian.T

    w, v = (np.asarray(layer.w) for layer in params)
    h = np.tanh(x @ w)
    of_w = np.asarray(x)[:, :, None] * ((1 - h**2) * v[:, 0])[:, None, :]
    known = np.concatenate([of_w.reshape(5, -1), h], 1)
    np.testing.assert_allclose(jacobian, known, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kernel, known @ known.T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(slopes[:, 0], ((1 - h**2) * v[:, 0]) @ w.T, rtol=1e-4, atol=1e-6)
    hessian = jax.hessian(lambda flat: objective(unravel(flat)))(flat)
    np.testing.assert_allclose(ravel_pytree(product)[0], hessian @ flat, rtol=1e-3, atol=1e-5)
    second = jnp.einsum("r,rij->ij", predict(flat), jax.hessian(predict)(flat))
    np.testing.assert_allclose(hessian, (known.T @ known + second) / 5, rtol=1e-3, atol=1e-5)


def test_laplace():
    """9. Laplace's approximation about what `fit` finds, which for a line is the posterior."""
    x, y, mean, covariance = line()
    net = MLP((1, 1))

    def posterior(outputs, targets, *, params):
        prior = sum(0.5 * jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))
        return losses.unit_gaussian_nll(outputs, targets) + prior / len(targets)

    state, _ = jaxmlp.fit(KEY, (x, y), Recipe(net, posterior, optax.lbfgs, epochs=10))
    flat, unravel = ravel_pytree(state.params)

    def whole(flat):
        return jnp.sum(posterior(net.apply(unravel(flat), x), y, params=unravel(flat)))

    np.testing.assert_allclose(flat, mean, atol=1e-4)
    np.testing.assert_allclose(jnp.linalg.inv(jax.hessian(whole)(flat)), covariance, atol=1e-5)


def test_an_evolution_strategy_by_hand():
    """10. Evolution of the flat parameters, its offspring a population."""
    x = jnp.linspace(-1, 1, 16)[:, None]
    net = MLP((1, 1))
    mean, unravel = ravel_pytree(net.init(KEY))
    for key in jax.random.split(KEY, 60):
        noise = jax.random.normal(key, (32, len(mean)))
        outputs = population.predict(net, jax.vmap(unravel)(mean + 0.1 * noise), x)
        fitness = jnp.mean(jnp.square(outputs - (3 * x - 1)), axis=(1, 2))
        mean -= 0.1 * (fitness - fitness.mean()) / (fitness.std() + 1e-6) @ noise / 32 * 3
    np.testing.assert_allclose(mean, [3, -1], atol=0.15)


def test_evosax():
    """10. Evosax: its strategies take the parameters as they are."""
    strategies = pytest.importorskip("evosax.algorithms")
    x = jnp.linspace(-1, 1, 16)[:, None]
    net = MLP((1, 1))
    strategy = strategies.CMA_ES(population_size=16, solution=net.init(KEY))
    state = strategy.init(KEY, net.init(KEY), strategy.default_params)

    @jax.jit
    def generation(state, key):
        members, state = strategy.ask(key, state, strategy.default_params)
        fitness = jnp.mean(jnp.square(jax.vmap(net.apply, (0, None))(members, x) - (3 * x - 1)), axis=(1, 2))
        state, _ = strategy.tell(key, members, fitness, state, strategy.default_params)
        return state, fitness.min()

    state, best = jax.lax.scan(generation, state, jax.random.split(KEY, 60))
    assert best[-1] < 1e-4
    np.testing.assert_allclose(ravel_pytree(strategy.get_mean(state))[0], [3, -1], atol=0.02)
