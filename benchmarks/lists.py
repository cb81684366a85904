"""Which benchmarks make the committed rows of each kind of device, in the order they are run."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Entry:
    """A benchmark: its name, the program with its arguments, and when it is run.

    `{out}` in the arguments stands for the folder of results, `{name}` for the entry's name,
    `{data}` for flags that take the embedded data in place of MNIST over photographs where those
    are not prepared, `{counts}` for numbers of devices up to those here.
    """

    name: str
    words: str
    quick: str | None = None  # the words with --quick; "" leaves it out
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    devices: int = 1  # only with so many
    seconds: int = 300  # that it takes at most, by estimate: with --minutes, none begins that late


S1 = "configs/scaled_mnist/resnet50_200pct.yaml {data}"
MINI = "configs/scaled_mnist/mini_200pct.yaml {data}"
SPEED = "configs/mnist_speed.yaml"


def step(model: str, batch: str = "256", more: str = "") -> str:
    """The training step of a model at 224 px in bfloat16."""
    return f"step --model {model} --image-size 224 --batch-size {batch} --dtype bfloat16 {more}"


def conv(model: str, image_size: int = 224, more: str = "") -> str:
    """The convolutions of a model, with a plot named as the entry."""
    return f"conv --model {model} --image-size {image_size} --plot {{out}}/{{name}}.png {more}"


def xla(flag: str) -> dict[str, str]:
    """The environment with one flag of XLA."""
    return {"XLA_FLAGS": flag}


NO_GRAPHS = "--xla_gpu_enable_command_buffer="
ALL_GRAPHS = "--xla_gpu_enable_command_buffer=+CONVOLUTION"  # which end a CUDA graph otherwise
BATCHES, HALF = "64,128,256,512,1024", "128,512"
LARGE = "--batch-size 256 --dtype bfloat16"
V5E = "--topology v5e:2x2"
TPUS = "v5e:2x2,v5e:4x4,v5p:2x2x1"
GPUS = "--topology h100,h200,a100,l4 --data.batch-size 256"
RESNET50 = step("resnet50")  # what the variants after it differ from
SCALING = "scaling --model resnet50 --image-size 224 --batch-size 256 --dtype bfloat16"

FAMILIES = (
    "resnet18:128:32,wide_resnet50_2:64:16,vgg16:64:32,vgg16_bn:64:32,mobilenet_v2:96:32,"
    "shufflenet_v2_x1_0:96:64"
)
CNNS = (
    "all_cnn_small:64:128,two_conv_cnn:64:128,simple_cnn:64:64,de_novo_cnn:64:64,"
    "handbook_cnn:64:64,handbook_mlp:64:256"
)
PODS = "16,50,256,400"
WEAK_STRONG = "--batch 256 --global-batch 32768"

LISTS = {
    "cpu": [
        Entry("step_resnet18_64", "step --case resnet18:64:64 --peer torch,flax"),
        Entry("step_resnet50_64", "step --case resnet50:64:32 --peer torch,flax"),
        Entry("step_resnet18_224", "step --case resnet18:224:16 --peer torch,flax"),
        Entry("step_resnet50_224", "step --case resnet50:224:16 --peer torch,flax"),
        Entry("step_mobilenet_v2_128", "step --case mobilenet_v2:128:32 --peer torch", quick=""),
        Entry(
            "step_resnet18_64_peers",
            "step --case resnet18:64:64 --peer torch_compiled,keras",
            quick="",
        ),
        Entry("step_fold", "step --case resnet50:224:16,resnet50:64:32 --peer folded --repeats 5"),
        Entry("step_families", f"step --case {FAMILIES} --peer torch", quick=""),
        Entry("step_cnns", f"step --case {CNNS} --classes 10 --peer torch", quick=""),
        Entry("step_norm", "step --case resnet50:64:32,resnet18:224:16 --peer derived_norm"),
        Entry("conv_resnet18", conv("resnet18"), quick=""),
        Entry("conv_resnet50", conv("resnet50")),
        Entry("conv_resnet50_64", conv("resnet50", 64, "--batch-size 32 --lowering all"), quick=""),
        Entry("input", f"input --recipe {S1} --peer torch --batch-size 128"),
        Entry("train_mini", f"train {MINI}", quick=f"train {MINI} --seconds 30"),
        Entry("mnist_speed", f"train {SPEED} --to-accuracy 0.99 --seeds 5"),
        Entry("checkpoint", "checkpoint"),
        Entry("scaling", "scaling --batch-size 16 --repeats 5", env={"JAX_NUM_CPU_DEVICES": "8"}),
        Entry("compile", "compile", quick=""),
        Entry("aot", f"aot {S1} --topology {TPUS} --per-device-batch 64", quick=f"aot {S1} {V5E}"),
        # libtpu 0.0.42.1, of jax 0.10.2, overflows its stack on v6e; 0.0.52 takes half an hour.
        Entry("aot_v6e", f"aot {S1} --topology v6e:2x2 --per-device-batch 64", quick=""),
        Entry("aot_sync_batch_norm", f"aot {S1} --model.sync-batch-norm true {V5E}", quick=""),
        Entry("aot_gpu", f"aot {S1} {GPUS} --against unfolded", quick=f"aot {S1} --topology h100"),
        Entry("aot_pods", f"aot {S1} --topology h100:8 --per-device-batch {PODS}", quick=""),
        Entry("aot_pod_h100", f"aot {S1} --topology h100:32x8 --per-device-batch 256", quick=""),
        Entry("aot_pod_v5e", f"aot {S1} --topology v5e:16x16 --per-device-batch 64", quick=""),
        Entry("aot_pod_v5p", f"aot {S1} --topology v5p:8x8x4 --per-device-batch 64", quick=""),
        Entry("aot_pods_v5e", f"aot {S1} --topology v5e:2x4 --per-device-batch 16,256", quick=""),
        Entry("pods", f"pods --steps {{out}}/aot_pods.json {WEAK_STRONG} --published", quick=""),
        Entry("pods_v5e", f"pods --steps {{out}}/aot_pods_v5e.json {WEAK_STRONG}", quick=""),
        Entry("goodput", "goodput"),
    ],
    # In order of value. The seconds of ab_norm to train_s1 are an H200's; no GPU has run the others
    # yet, so theirs are estimates.
    "gpu": [
        Entry("ab_norm", f"{RESNET50} --peer unfolded,derived_norm", seconds=100),
        # Inside of a CUDA graph kernels have no names of the program's.
        Entry(
            "step_resnet50_profile",
            step("resnet50", more="--profile {out}/profile_resnet50"),
            env=xla(NO_GRAPHS),
            seconds=70,
        ),
        Entry("step_resnet50_torch", step("resnet50", more="--peer torch"), seconds=100),
        Entry("train_s1", f"train {S1} --data.batch-size 256 --seconds 30", seconds=140),
        Entry("ab_first_layer", f"{RESNET50} --peer space_to_depth,four_channels", seconds=120),
        Entry("ab_xla", f"{RESNET50} --peer no_excess_precision,deterministic", seconds=120),
        # S1's own batch, where the host's launches are the limit.
        Entry("step_resnet50_batch70", step("resnet50", "70"), seconds=50),
        Entry("ab_graphs_batch70", step("resnet50", "70"), env=xla(ALL_GRAPHS), seconds=60),
        Entry("step_resnet50_batches", step("resnet50", BATCHES), quick=step("resnet50", HALF)),
        Entry("step_resnet50_torch_compiled", step("resnet50", more="--peer torch_compiled")),
        Entry("step_vgg16", step("vgg16", "128", "--peer torch"), seconds=200),
        Entry("step_resnet18", step("resnet18", "512", "--peer torch"), seconds=150),
        Entry("step_wide_resnet50_2", step("wide_resnet50_2", more="--peer torch"), seconds=200),
        Entry("step_resnet101", step("resnet101", more="--peer torch"), seconds=240),
        Entry("conv_resnet50", conv("resnet50", more=LARGE), seconds=240),
        Entry("ab_steps_per_call_8", f"{RESNET50} --steps-per-call 8", seconds=120),
        Entry("ab_no_command_buffers", RESNET50, env=xla(NO_GRAPHS), seconds=100),
        Entry(
            "ab_no_triton_gemm",
            RESNET50,
            env=xla("--xla_gpu_enable_triton_gemm=false"),
            seconds=100,
        ),
        Entry("ab_optimization_o1", RESNET50, env={"JAX_OPTIMIZATION_LEVEL": "O1"}, seconds=120),
        Entry("checkpoint", "checkpoint", seconds=120),
        Entry("input", f"input --recipe {S1} --workers 0,4 --peer torch", seconds=200),
        Entry("scaling", f"{SCALING} --devices {{counts}}", devices=2, seconds=400),
        Entry("compile", "compile --model resnet50 --image-size 224 --batch-size 256", quick=""),
    ],
    "tpu": [
        Entry("step_resnet50_batches", step("resnet50", BATCHES), quick=step("resnet50", HALF)),
        Entry("step_resnet18", step("resnet18")),
        Entry("step_vgg16", step("vgg16")),
        Entry("step_resnet50_profile", step("resnet50", more="--profile {out}/profile_resnet50")),
        Entry("conv_resnet50", conv("resnet50", more=LARGE)),
        Entry("train_s1", f"train {S1} --data.batch-size 256"),
        Entry("ab_baseline", RESNET50),
        Entry("ab_steps_per_call_8", f"{RESNET50} --steps-per-call 8"),
        Entry("ab_space_to_depth", f"{RESNET50} --lowering space_to_depth"),
        Entry("ab_four_channels", f"{RESNET50} --lowering four_channels"),
        Entry("checkpoint", "checkpoint"),
        Entry("input", f"input --recipe {S1} --peer torch"),
        Entry("scaling", f"{SCALING} --devices {{counts}}", devices=2),
    ],
}
