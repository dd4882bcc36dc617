"""What a run is made of, as JSON: written down when it begins, compared and rebuilt when it is resumed."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp._choice import Figure
from jaxmlp._engine.plan import Layout
from jaxmlp._engine.portion import Portion
from jaxmlp._engine.stops import Halving, Patience, Stops, Target
from jaxmlp.loop import _fields as fields
from jaxmlp.loop._changes import changes, check
from jaxmlp.loop._description import describe, rebuild, upgrade
from jaxmlp.loop._digest import of_array, of_data
from jaxmlp.loop._lying import of_placement
from jaxmlp.loop._rules import as_json, figure_of, rule_of, rules_of
from jaxmlp.loop._start import Start, read
from jaxmlp.recipe import Recipe
from jaxmlp.types import Data, Json, StrPath

NEWER = ("options", "each", "program", "part")


class Seen(NamedTuple):
    """What a run sees.

    Args:
      data: the digests of its table, `of_data(data)`, or what a stream says of itself.
      options: the arrays given for validation, weights, rows and validation_rows, where they are.
      steps: of a stream without an end, how many batches make an epoch.
      each: which of data and validation are each member's own.
    """

    data: Any
    options: Mapping[str, Data]
    steps: int | None = None
    each: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a run is made of. All fields are JSON: arrays by their digests, functions by name or by a digest of code.

    Args:
      recipe: the recipe's fields.
      key: the implementation and digest of the key or keys, and whether it is one.
      hyperparams: a plain number as itself, else dtype and value or digest; of a tree its form and digests.
      data: digests of the data's arrays, or what a stream says of itself.
      options: digests of validation, weights, rows and validation_rows; None where not given.
      stop: the rules by name, but for a budget of time, which is a call's own.
      steps: of a stream without an end, how many batches make an epoch.
      layout: the width of a block of members, the number of devices and their kind: bits depend on these.
      each: which of data and validation are each member's own; None in checkpoints of versions that did not tell.
      program: the digests of what the recipe's parts compute, by `of_program`; None where there were none yet.
      part: which part of a whole population it is, where it is one; see `Portion`.
    """

    recipe: Json
    key: Json
    hyperparams: Json
    data: Any
    options: Json
    stop: Json
    steps: int | None
    layout: Json
    each: list[str] | None = None
    program: Json | None = None
    part: Json | None = None

    @classmethod
    def of(
        cls, recipe: Recipe, start: Start, seen: Seen, stops: Stops, layout: Layout, program: Json | None = None
    ) -> "Manifest":
        """Write down what a run is made of."""
        return cls(
            recipe=describe(recipe),
            key={"impl": str(jax.random.key_impl(start.key)), "single": start.single, **of_array(start.key)},
            hyperparams=start.told(),
            data=seen.data,
            options={name: of_data(seen.options.get(name)) for name in fields.OPTIONS},
            stop=rules_of(stops),
            steps=seen.steps,
            each=list(seen.each),
            layout={
                "width": layout.width,
                "devices": len(layout.devices),
                "kind": layout.devices[0].device_kind,
                **of_placement(layout.placement),
            },
            program=program,
            part=None if start.part is None else start.part.to_json(),
        )

    def to_json(self) -> Json:
        """Return the fields as one dict; the options stand beside the others, as they do in a call."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        options = fields.pop("options")
        return {**fields, **options}

    @classmethod
    def from_json(cls, values: Json) -> "Manifest":
        """Return what `to_json` wrote, in this version or an earlier one.

        Raises:
          ValueError: for words that no version wrote; it names the field.
        """
        values = fields.RUN("run", values)
        found = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name not in NEWER}
        rules = {name: rule_of(name, told) for name, told in found["stop"].items()}
        found["recipe"] = upgrade(found["recipe"])
        # A rule as this version has it: what an earlier one did not know has its default.
        found["stop"] = {name: as_json(rule) for name, rule in rules.items()}
        return cls(
            **found,
            options={name: values.get(name) for name in fields.OPTIONS},
            each=values.get("each"),
            program=values.get("program"),
            part=values.get("part"),
        )

    def with_epochs(self, epochs: int) -> "Manifest":
        """Return the manifest of the same run with more epochs.

        Raises:
          ValueError: for fewer than it has.
        """
        begun = self.recipe["epochs"]
        if epochs < begun:
            raise ValueError(f"epochs must be at least the {begun} of the run; got {epochs}; leave it out for {begun}")
        return dataclasses.replace(self, recipe={**self.recipe, "epochs": epochs})

    def judged(self) -> str:
        """Return a digest of what the best checkpoint is judged by, and on which data: others compare with none."""
        by = self.data if self.options.get("validation") is None else self.options["validation"]
        parts, figure = (self.program or {}).get("parts", {}), figure_of(self.stop)
        told: Any = self.recipe["loss"], parts.get("loss"), by
        if figure is not None and figure != Figure("validation_loss"):
            told = *told, figure.name, figure.largest, self.recipe.get("metrics"), parts.get("metrics")
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def diff(self, given: "Manifest") -> list[str]:
        """Return a line for each place where another manifest, of what is given now, is of another run than this one.

        Rules that stop a run may be others. Parts of the recipe are compared by what they compute, where both say it.
        """
        return [change.line for change in changes(self, given)]

    def check_same(self, given: "Manifest", directory: StrPath, accept: frozenset[str] = frozenset()) -> list[str]:
        """Raise unless what is given now is what the run in the directory is made of, but for what `accept` names.

        Returns:
          The differences after which the run goes on with other bits: of the devices.

        Raises:
          ValueError: with a line for each difference, and the ways out.
        """
        return check(changes(self, given), accept, None if self.key.get("single") else self.layout, directory)

    def rebuild_recipe(self) -> Recipe:
        """Return the recipe.

        Raises:
          ValueError: for a part that only the caller's code has, and for words that make no recipe.
        """
        recipe = rebuild("recipe", self.recipe)
        if not isinstance(recipe, Recipe):
            raise fields.wrong("recipe", "a Recipe", self.recipe)
        if recipe.epochs > fields.EPOCHS:
            raise ValueError(f"recipe.epochs must be at most {fields.EPOCHS:,} here; got {recipe.epochs}; pass recipe=")
        return recipe

    def rebuild_stop(self) -> list[Patience | Target | Halving]:
        """Return the rules that the run began with, but for a budget of time, which is a call's own."""
        return [rule_of(name, told) for name, told in self.stop.items()]

    def rebuild_start(self, arrays: Mapping[str, np.ndarray]) -> Start:
        """Return the key or keys and the numbers that the run began with, from the arrays of a checkpoint.

        Raises:
          ValueError: for arrays that are not there, or not as the manifest says.
        """
        single, data = self.key["single"], arrays.get("members.key")
        if data is None or data.ndim != 2 or len(data) == 0 or single and len(data) != 1:
            raise ValueError("members.key of the checkpoint must hold the key of each member; it does not")
        try:
            key = jax.random.wrap_key_data(jnp.asarray(data), impl=self.key["impl"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"key.impl and members.key of the checkpoint must make a key; {error}") from error
        if key.ndim != 1:
            raise ValueError("members.key of the checkpoint must hold the key of each member; it does not")
        part = None if self.part is None else Portion.from_json(self.part)
        if part is not None and len(part.first) != data[0].size:
            raise fields.wrong("run.part.first", f"a key, {data[0].size} integers", list(part.first))
        return read(key, self.hyperparams, arrays, single=single)._replace(part=part)

    def plan_options(self) -> Json:
        """Return width and devices for `population.plan`; all devices where the run had more than are here."""
        devices = self.layout["devices"]
        here = devices <= len(jax.devices()) and devices % jax.process_count() == 0
        return {name: self.layout[name] for name in ("width", "devices") if here or name == "width"}
