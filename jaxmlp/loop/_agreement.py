"""What a call trains, written down: to be saved with a run, and compared between the processes that run it together."""

import hashlib
import json
from typing import Any

from jaxmlp._engine.executor import Job
from jaxmlp._engine.hosts import Hosts
from jaxmlp._engine.inputs import Each, Request, plain
from jaxmlp._engine.plan import Plan
from jaxmlp._engine.portion import portion_of
from jaxmlp._trees import with_trees
from jaxmlp.loop._digest import of_data
from jaxmlp.loop._manifest import Manifest, Seen
from jaxmlp.loop._program import of_job
from jaxmlp.loop._saved import versions
from jaxmlp.loop._start import Start

FIX = (
    "each process must be given the same arguments, files and versions; what is drawn must come of one key or seed, "
    "and file names must be sorted; what a process is to train by itself has a plan of devices=jax.local_devices(), or "
    "is one network for jaxmlp.fit"
)


def written(
    request: Request, job: Job, plan: Plan, *, steps: int | None = None, told: Any = None
) -> tuple[Manifest, Start]:
    """Return what a call trains, and what it begins with.

    Args:
      request: as it was given.
      job: as it was sorted, with its program.
      plan: how it runs.
      steps: of a stream without an end.
      told: what a stream says of itself; of a table its digests are made here.
    """
    inputs = request.inputs
    given = {name: plain(value) for name, value in inputs._asdict().items() if name != "data"}
    own = [name for name in ("data", "validation") if isinstance(getattr(inputs, name), Each)]
    numbers = with_trees(request.hyperparams) if request.single else job.members.numbers.by_name
    start = Start(request.key, numbers, job.tables.numbers.by_name, part=portion_of(request.hyperparams))
    seen = Seen(of_data(plain(inputs.data)) if told is None else told, given, steps, own)
    return Manifest.of(request.recipe, start, seen, job.stops, plan.layout, job.program), start


def check_hosts(hosts: Hosts, manifest: Manifest, plan: Plan, **others: Any) -> None:
    """Raise on all processes of a run unless all of them train the same.

    Raises:
      ValueError: which names what differs, and the processes where it does.
    """
    if hosts.many:
        told = {**manifest.to_json(), "versions": versions(), **others}
        devices = [device.id for device in plan.devices if len(plan.devices) > 1]  # one network has each its own
        told["plan"] = [plan.members, plan.wave, plan.results, devices]
        hosts.check_same({name: _digest(value) for name, value in told.items()}, FIX)


def check_request(hosts: Hosts, request: Request, job: Job, plan: Plan) -> None:
    """Raise on all processes unless a call that is not saved trains the same on all of them."""
    if hosts.many:
        with hosts.alike():
            manifest, _ = written(request, job._replace(program=of_job(job)), plan)
        check_hosts(hosts, manifest, plan=plan)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
