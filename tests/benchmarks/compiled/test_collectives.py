import jax
import pytest

from benchmarks.compiled.collectives import KINDS, Collective, summarise
from jaxres.data.composed import open_split
from jaxres.data.pipeline import train_batches
from jaxres.distributed import strategy
from jaxres.distributed.mesh import make_mesh, replicate
from jaxres.evaluation.evaluator import resident_of
from jaxres.models.build import network
from jaxres.training import optim
from jaxres.training.state import new_state
from jaxres.training.step import make_train_step

ONE = "  %all-reduce.3 = f32[8,4]{1,0:T(8,128)} all-reduce(%x), channel_id=1, to_apply=%add"
FUSED = (
    "  ROOT %all-reduce = (f32[64]{0:T(256)S(1)}, bf16[3,3,64,64]{3,2,1,0}, f32[], "
    "/*index=3*/pred[5]{0}) all-reduce(f32[64]{0} %a, %b, %c, %d), replica_groups={{0,1,2,3}}"
)
START = "  %all-reduce-start.1 = (f32[10]{0}, f32[6]{0}) all-reduce-start(%a, %b), channel_id=2"
PAIRS = "  %ar.2 = ((f32[10], f32[6]), (f32[10], f32[6])) all-reduce-start(%a, %b), channel_id=3"
DONE = "  %all-reduce-done.1 = (f32[10]{0}, f32[6]{0}) all-reduce-done(%all-reduce-start.1)"
GATHER = "  %ag = (f32[8]{0}, f32[32]{0}) all-gather-start(f32[8]{0} %x), dimensions={0}"
GATHERS = "  %ag = ((f32[8]{0}, u8[2]{0}), (f32[32]{0}, u8[8]{0})) all-gather-start(%x, %y)"
PERMUTE = (
    "  %cp = (bf16[4,2]{1,0:T(2,128)}, bf16[4,2]{1,0}, u32[], u32[]) collective-permute-start(%x)"
)
SCATTER = "  %rs = ((f32[8]{0}), f32[2]{0}, u32[]) reduce-scatter-start(%x), dimensions={0}"
SWAP = "  %a2a.1 = (f8e4m3fn[4]{0}, f8e4m3fn[4]{0}) all-to-all(%x, %y), replica_groups={{0,1}}"
NONE = (
    "  %fusion = f32[8]{0} fusion(%all-reduce.3), kind=kLoop, calls=%all-reduce(1), "
    'metadata={op_name="an all-reduce(x)"}'
)


@pytest.mark.parametrize(
    ("line", "kind", "size"),
    [
        (ONE, "all-reduce", 4 * 32),
        (FUSED, "all-reduce", 4 * 64 + 2 * 9 * 64 * 64 + 4 + 5),
        (START, "all-reduce", 4 * 16),
        (PAIRS, "all-reduce", 4 * 16),
        (GATHER, "all-gather", 4 * 32),
        (GATHERS, "all-gather", 4 * 32 + 8),
        (PERMUTE, "collective-permute", 2 * 8),
        (SCATTER, "reduce-scatter", 4 * 2),
        (SWAP, "all-to-all", 8),
    ],
)
def test_a_collective_is_counted_with_the_bytes_of_its_result(line, kind, size):
    none = dict.fromkeys(KINDS, Collective(0, 0))
    assert summarise(line) == none | {kind: Collective(1, size)}


@pytest.mark.parametrize("line", [DONE, NONE, ""])
def test_what_only_names_a_collective_is_not_one(line):
    assert summarise(line) == dict.fromkeys(KINDS, Collective(0, 0))


def test_kinds_are_added_up():
    counted = summarise("\n".join([ONE, START, DONE, GATHER, ONE]))
    assert counted["all-reduce"] == Collective(3, 2 * 128 + 64)
    assert counted["all-gather"] == Collective(1, 128)


def test_a_step_on_four_devices_sends_gradients_statistics_and_metrics_once(tiny_config):
    config = tiny_config()
    dataset = open_split(config, "train")
    batches = train_batches(dataset, config)
    net = network(config, classes=10)
    optimizer = optim.create(config.optim, 10)
    parallel = strategy.Jit(make_mesh(4))
    step = make_train_step(net, optimizer, optim.learning_rate(config.optim, 10), config)
    state = replicate(parallel.mesh, new_state(net.params, net.stats, optimizer, ema=False))
    resident = parallel.put_resident(resident_of(dataset))
    batch = parallel.put_batch(next(batches), 1)
    compiled = parallel.compile(step, 1).lower(state, resident, batch).compile()
    counted = summarise(compiled.as_text())
    values = sum(leaf.size for leaf in jax.tree.leaves((net.params, net.stats))) + 2
    assert counted["all-reduce"] == Collective(1, 4 * values)
    assert sum(each.count for each in counted.values()) == 1
