"""The rules that stop a run as JSON, and back."""

from typing import Any

from jaxmlp._choice import Figure
from jaxmlp._engine.stops import Halving, Patience, Stops, Target
from jaxmlp.types import Json


def rules_of(stops: Stops) -> Json:
    """Return the rules of a run as JSON: patience and halving by these names, a target by that of its metric."""
    targets = [Target(name, *limit) for name, limit in stops.targets.items()]
    named = {"patience": stops.patience, "halving": stops.halving} | {rule.metric: rule for rule in targets}
    return {name: as_json(rule) for name, rule in named.items() if rule is not None}


def figure_of(told: Json) -> Figure | None:
    """Return by what a run of these rules is judged; None where they do not say."""
    return Stops.of([rule_of(*rule) for rule in told.items()], validation=True, members=True).figure


def as_json(rule: Patience | Target | Halving) -> Json:
    """Return the numbers of a rule by name."""
    return {name: value for name, value in rule._asdict().items() if name != "metric"}


def rule_of(name: str, told: Json) -> Patience | Target | Halving:
    """Return the rule that was told by this name.

    Raises:
      ValueError: for what is none, with its name.
    """
    kind: Any = {"patience": Patience, "halving": Halving}.get(name, Target)
    known = [field for field in kind._fields if field != "metric"]
    for field, value in told.items():
        if field not in known or isinstance(value, str) != (field == "by"):
            raise ValueError(
                f"run.stop.{name:.80} of the checkpoint must be a {kind.__name__}; got {field!r:.80}: {value!r:.80}"
            )
    try:
        return kind(name, **told) if kind is Target else kind(**told)
    except TypeError as error:
        raise ValueError(f"run.stop.{name:.80} of the checkpoint must be a {kind.__name__}; {error}") from None
