"""What a run that is resumed has that the saved one had not: which of it is refused, and which word accepts it."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from jaxmlp import _check
from jaxmlp.loop._description import differences
from jaxmlp.loop._lying import shown
from jaxmlp.types import Json, StrPath

MOST = 12  # lines of a comparison that are shown
PARTS = ("model", "loss", "optimizer", "metrics", "after", "frozen")
# By which word of accept= a field of a manifest goes on changed. The rules that stop a run are free, and have none; a
# key is drawn from at the start, and what a stream's epoch is was counted with: there is no going on with others.
WORDS = {
    **{f"recipe.{name}": name for name in (*PARTS, "epochs", "batch_size")},
    **dict.fromkeys(("data", "each", "weights", "rows"), "data"),
    **dict.fromkeys(("validation", "validation_rows"), "validation"),
    **{name: name for name in ("hyperparams", "schedule", "layout", "options")},
    "part.hyperparams": "hyperparams",  # of all parts; whose part it is has no word, as a key has none
}
LOADER = (
    "a loader is told by its first batch, which must be the same each time that it is made: give its generator a seed, "
    "or the loader set_epoch(number)"
)
RECIPE = {*PARTS, "batch_size"}  # what "recipe" accepts
ACCEPT = ("recipe", *dict.fromkeys(WORDS.values()))


FREE = ("layout.kind:", "layout.mesh:")  # after which a run goes on with other bits, and says so


class Change(NamedTuple):
    """A difference between the saved run and the given one: the word that accepts it, if one does, and a line."""

    word: str | None
    line: str


def accepted(accept: str | Iterable[str] | None) -> frozenset[str]:
    """Return the words of `accept`, with what "recipe" stands for; None is no word.

    Raises:
      ValueError: for a word that is none.

    >>> sorted(accepted(("optimizer", "hyperparams")))
    ['hyperparams', 'optimizer']
    """
    if accept is None:
        return frozenset()
    if not isinstance(accept, Iterable):
        raise ValueError(f"accept must be a word or several, of {', '.join(ACCEPT)}; got {_check.describe(accept)}")
    words = [accept] if isinstance(accept, str) else list(accept)
    for word in words:
        _check.one_of("accept", word, ACCEPT)
    return frozenset(words) | (RECIPE if "recipe" in words else frozenset())


def changes(saved: Any, given: Any) -> list[Change]:
    """Return each difference between two manifests for which a run is refused, or goes on with a warning."""
    one, other = saved.to_json(), given.to_json()
    found = _of_recipes(saved, given)
    for name in other:
        # A checkpoint of an earlier version does not tell everything: what it does not is not compared.
        if name in ("recipe", "stop", "program") or name == "each" and saved.each is None:
            continue
        if name == "layout" and "mesh" in {**one[name], **other[name]}:
            one, other = (
                {**told, name: {**told[name], "mesh": shown(told[name].get("mesh"))}} for told in (one, other)
            )
        lines = differences(one.get(name), other[name], name)
        if name == "layout" and ("mesh" in {**one[name], **other[name]} or _same_bits(one.get(name, {}), other[name])):
            lines = [line for line in lines if not line.startswith("layout.devices:")]
        if name == "data" and isinstance(other[name], list):
            lines = [f"{line}; {LOADER}" for line in lines]
        found += [Change(WORDS.get(line.split(":")[0], WORDS.get(name)), line) for line in lines]
    return found + _of_options(saved.program, given.program)


def _same_bits(one: Json, other: Json) -> bool:
    """Tell whether members have the same bits on both numbers of devices: one device alone compiles otherwise."""
    same = one.get("width") == other.get("width")
    return same and (one.get("width") == 1 or min(told.get("devices", 1) for told in (one, other)) > 1)


def _of_recipes(saved: Any, given: Any) -> list[Change]:
    """Compare what the parts compute where that can be compared, and else what they are called and their code."""
    found: list[Change] = []
    programs = _programs(saved.program, given.program)
    # On tables of other shapes and behind another model a part may only see other shapes: its words and code must do.
    other_forms = bool(programs) and saved.program["forms"] != given.program["forms"]
    # Of an option that differs one line says enough: the programs differ by it.
    other_options = bool(_of_options(saved.program, given.program))
    other_model = bool(programs) and programs["model"][0] != programs["model"][1]
    other_frozen = bool(programs) and programs["frozen"][0] != programs["frozen"][1]  # steps of other programs then
    stretched = _length(saved) != _length(given)
    for name in dict.fromkeys([*saved.recipe, *given.recipe]):
        lines = differences(saved.recipe.get(name), given.recipe.get(name), f"recipe.{name}")
        word = WORDS.get(f"recipe.{name}")
        if name == "epochs" and given.recipe[name] < saved.recipe[name]:
            word = None
        if name in programs:
            one, other = programs[name]
            if one == other:
                continue
            if not lines and name == "optimizer" and stretched and not other_frozen:
                word = "schedule"
                lines = ["recipe.optimizer: its schedule follows the length of the run, which is another now"]
            behind = other_model and name != "model" or other_frozen and name != "frozen"
            if not lines and (other_forms or other_options or behind):
                continue
            same = f"recipe.{name}: by the same name and code it computes something else than it did: program saved"
            lines = lines or [f"{same} {one[:8]}, given {other[:8]}"]
        found += [Change(word, line) for line in lines]
    return found


def _length(manifest: Any) -> list[Any]:
    """Return on what the number of steps of a run depends."""
    return [manifest.recipe.get("epochs"), manifest.recipe.get("batch_size"), manifest.data, manifest.steps]


def _programs(saved: Any, given: Any) -> dict[str, tuple[str, str]]:
    """Return the digests of each part, saved and given; none where other versions traced them."""
    if not saved or not given or saved["versions"] != given["versions"]:
        return {}
    one, other = ({"frozen": "nothing", **program["parts"]} for program in (saved, given))
    return {name: (one[name], other[name]) for name in PARTS if name in one and name in other}


def _of_options(saved: Any, given: Any) -> list[Change]:
    if not saved or not given:
        return []
    lines = differences(saved["options"], given["options"], "options")
    return [Change("options", f"{line}; jax.config.update sets it") for line in lines]


def check(found: list[Change], accept: frozenset[str], layout: Any, directory: StrPath) -> list[str]:
    """Return the lines of which a warning speaks.

    Args:
      found: what differs.
      accept: the words of what may.
      layout: that of a saved population, which the way out names; None for one network.
      directory: where the run is.

    Raises:
      ValueError: with a line for each difference that is not accepted, and the ways out.
    """
    bits = [change for change in found if change.line.startswith(FREE) or change.word in accept & {"layout"}]
    refused = [change for change in found if change not in bits and change.word not in accept]
    if not refused:
        return [change.line for change in bits]
    lines = [change.line for change in refused]
    shown = lines[:MOST] + [f"and {len(lines) - MOST} more"] * (len(lines) > MOST)
    way = "pass what was saved, or another directory"
    of_layout = all(line.startswith("layout.") for line in lines)
    if of_layout and layout is not None:
        way = f"the bits depend on the layout: {_way_to(layout)}; or pass another directory"
    words = list(dict.fromkeys(change.word for change in refused))
    if None not in words:
        words = [*sorted(accept - RECIPE if "recipe" in accept else accept), *words]
        way += f"; to go on with what is given now, pass accept={tuple(words)!r}"
        way += ", after which the numbers are equal up to rounding" if of_layout else ""
    raise ValueError(
        f"a run must be resumed with what it began with; {directory} holds another:\n  "
        + "\n  ".join(shown)
        + f"\n{way}"
    )


def _way_to(layout: Json) -> str:
    """Return what to do to have the bits of a saved population's layout: one device, or any number of two or more."""
    width = f"population.plan(..., width={layout['width']}"
    if layout["devices"] == 1:
        return f"go on in one process on one device, by loop.resume, or by loop.train with plan={width}, devices=1)"
    return (
        f"go on with two devices or more, any number of which gives the same bits (on a CPU, call "
        f"jaxmlp.use_all_cores() first), by loop.resume, or by loop.train with plan={width})"
    )
