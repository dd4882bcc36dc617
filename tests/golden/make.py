"""Write the golden files of the current format: once for each format, and never over a file that is there."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp

import jaxmlp
from jaxmlp import MLP, files

FOLDER = Path(__file__).parent


def main() -> None:
    """Write a plain model and a population, and their outputs."""
    x = jnp.linspace(-1, 1, 6, dtype=jnp.float32).reshape(2, 3)
    plain, grown = MLP((3, 4, 2)), MLP((3, 4, 4, 2), "gelu", norm="layer", residual=True, dropout=True)
    params = plain.init(jax.random.key(0))
    members = jax.vmap(grown.init)(jax.random.split(jax.random.key(1), 2))
    outputs = {"plain": plain.apply(params, x), "population": jax.vmap(grown.apply, (0, None))(members, x)}
    for name, model, values, told in (
        ("plain", plain, params, {"made": "by hand"}),
        ("population", grown, members, None),
    ):
        path = FOLDER / f"{name}_{files.FORMAT}.safetensors"
        if path.exists():
            raise SystemExit(f"{path} is there already: what was written once stays")
        jaxmlp.save(path, model, values, metadata=told)
    known = {f"{name}_{files.FORMAT}": values.tolist() for name, values in outputs.items()}
    file = FOLDER / "outputs.json"
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | known) + "\n")


if __name__ == "__main__":
    main()
