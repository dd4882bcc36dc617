"""scikit-learn's interface: `MLPClassifier`, `MLPRegressor` and `SearchCV`, the only rooms that hold a state."""

from jaxmlp.estimators._classifier import MLPClassifier as MLPClassifier
from jaxmlp.estimators._files import load as load
from jaxmlp.estimators._regressor import MLPRegressor as MLPRegressor
