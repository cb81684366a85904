"""The peers that are our own step with one thing changed: `benchmarks.peers.variants`."""

from benchmarks.peers import Peer
from benchmarks.peers.variants import find
from benchmarks.timing import measure
from benchmarks.timing.synthetic import Training
from benchmarks.timing.workload import Workload, settings
from jaxres import __version__


def build(name: str, work: Workload) -> Peer:
    """Compile the variant's step, on JAX's first device."""
    variant = find(name)
    with variant.tracing():
        training = Training(
            variant.apply(settings(work)),
            classes=work.classes,
            devices=1,
            compiler_options=variant.compiler_options,
        )
    said = {
        "variant": variant.told,
        "peak_memory_mib": measure.peak_memory_mib(training.compiled),
    }
    return Peer(training.run, __version__, said, training.compile_s)
