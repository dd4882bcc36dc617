"""What passes between processes: arrays in pieces, and what goes wrong on the devices of one of them."""

import jax
import processes
import pytest

from jaxmlp._engine.exchange import HostLost, told_by_words

BRINGS = """
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from jaxmlp._engine import hosts
mesh = Mesh(np.array(jax.devices()), ("members",))
table = np.arange(4 * 7 * 3, dtype="f").reshape(28, 3)
given = table, np.asarray(jax.random.key_data(jax.random.split(jax.random.key(0), 28))), table[:, 0] > 5
tree = hosts.spread(given, NamedSharding(mesh, P("members")))
back = {}
for hosts.PIECE in (2**28, 100, 1):
    back[str(hosts.PIECE)] = [
        found.dtype == a.dtype and found.shape == a.shape and bool((found == a).all())
        for found, a in zip(hosts.fetch(tree), given)
    ]
hosts.PIECE = 3
first = hosts.everyone().from_first("what the first has" if WHO == 0 else None)

def full(a):
    if WHO == 1:
        raise OSError("the card is full")
    return a

@jax.jit
def fails(a):
    one = lambda a: jax.pure_callback(full, jax.ShapeDtypeStruct(a.shape, a.dtype), a)
    return jax.shard_map(one, mesh=mesh, in_specs=P("members"), out_specs=P("members"), check_vma=False)(a)

try:
    with hosts.everyone().alike():
        hosts.fetch(fails(tree[0]))
except Exception as error:
    said = f"{type(error).__name__}: {error}"
tell(back=back, first=first, said=said, after=hosts.everyone().texts(str(WHO), "who"))
hosts.everyone().ready()
os._exit(0)  # JAX raises once more at an exit after a callback that raised
"""


@pytest.mark.long
def test_arrays_are_brought_in_pieces_and_what_fails_on_one_process_is_told():
    with processes.Processes(BRINGS) as pair:
        pair.wait(100)
        one, two = pair.told(0), pair.told(1)
    assert one["back"] == two["back"] == {name: [True] * 3 for name in (str(2**28), "100", "1")}
    assert one["first"] == two["first"] == "what the first has" and one["after"] == two["after"] == ["0", "1"]
    assert "the card is full" in two["said"] and "process 1 of 2 could not go on" in one["said"]


def test_what_the_runtime_raises_names_both_causes():
    """A process that is gone, and one that is slow or elsewhere, look the same from here."""
    words = r"process is gone, or did not make this call in time; its .* GetKeyValue\(\) timed out with 29.99s; start"
    with pytest.raises(HostLost, match=words), told_by_words():
        raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: GetKeyValue()\ntimed out with 29.99s")
