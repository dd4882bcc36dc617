"""scikit-learn's interface: `MLPClassifier`, `MLPRegressor` and `SearchCV`, the only objects here that hold a state.

They replace `sklearn.neural_network` by one import, and stand on `jaxmlp.training`: what they learn is a recipe and a
tree of parameters, `estimator.recipe_` and `estimator.params_`. They need the extra `sklearn`.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as _error:
    raise ImportError(f"{_error}; this needs: pip install 'jaxmlp[sklearn]'") from _error

from jaxmlp.estimators._classifier import MLPClassifier as MLPClassifier
from jaxmlp.estimators._files import load as load
from jaxmlp.estimators._regressor import MLPRegressor as MLPRegressor
from jaxmlp.estimators._search import SearchCV as SearchCV
