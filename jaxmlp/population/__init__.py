"""The verbs of training over a leading axis of members: a thousand networks read, and run, like one.

Seeds, hyperparameters, folds and bootstraps are one idea here. A member is what `jaxmlp.fit` would make of it alone.
"""

from jaxmlp._engine.exchange import HostLost as HostLost
from jaxmlp._engine.inputs import each as each
from jaxmlp._engine.inputs import shared as shared
from jaxmlp._engine.plan import Plan as Plan
from jaxmlp._engine.plan import plan as plan
from jaxmlp._engine.stops import Budget as Budget
from jaxmlp._engine.stops import Halving as Halving
from jaxmlp._engine.stops import Patience as Patience
from jaxmlp._engine.stops import Target as Target
from jaxmlp.population._cross_validation import CrossValidation as CrossValidation
from jaxmlp.population._cross_validation import cross_validate as cross_validate
from jaxmlp.population._ensembles import Categorical as Categorical
from jaxmlp.population._ensembles import categorical as categorical
from jaxmlp.population._ensembles import predict as predict
from jaxmlp.population._fit import fit as fit
from jaxmlp.population._fit import halving as halving
from jaxmlp.population._greedy import greedy as greedy
from jaxmlp.population._mixtures import Mixture as Mixture
from jaxmlp.population._mixtures import mixture as mixture
from jaxmlp.population._parts import Part as Part
from jaxmlp.population._parts import gather as gather
from jaxmlp.population._parts import part as part
from jaxmlp.population._selection import best as best
from jaxmlp.population._selection import member as member
from jaxmlp.population._selection import ranking as ranking
from jaxmlp.population._selection import take as take
from jaxmlp.population._sweeps import LogUniform as LogUniform
from jaxmlp.population._sweeps import Settings as Settings
from jaxmlp.population._sweeps import Uniform as Uniform
from jaxmlp.population._sweeps import grid as grid
from jaxmlp.population._sweeps import sample as sample
from jaxmlp.population._sweeps import settings as settings
from jaxmlp.population._temperature import temperature as temperature
