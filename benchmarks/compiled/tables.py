"""The tables that `aot` prints: memory, work and traffic by class of kernel."""

from collections.abc import Sequence
from typing import Any

from benchmarks.compiled.kernels import CLASSES
from benchmarks.compiled.topology import is_gpu
from benchmarks.timing import rows

Row = dict[str, Any]

MEMORY_COLUMNS = {
    "case": "label",
    "chip": "device",
    "devices": "device_count",
    "batch each": "batch_per_device",
    "compile s": "compile_s",
    "args MiB": "memory_mib.arguments",
    "outputs": "memory_mib.outputs",
    "temps": "memory_mib.temporaries",
    "code": "memory_mib.code",
    "total": "peak_memory_mib",
    "HBM": "hbm_mib",
    "verdict": "verdict",
}
WORK_COLUMNS = {
    "case": "label",
    "all-reduce": "collectives.all-reduce.count",
    "MB": "collectives.all-reduce.mb",
    "others": "other_collectives",
    "GFLOP": "gflop",
    "an image": "gflop_per_image",
    "GB in HBM": "hbm_gb",
    "MB an image": "hbm_mb_per_image",
    "kernels": "kernels",
    "FLOP ms": "bound_ms.arithmetic",
    "HBM ms": "bound_ms.traffic",
    "bound ms": "bound_ms.step",
    "roof ms": "roof_ms",
    "img/s": "roof_images_per_s",
}


def show(made: Sequence[Row]) -> None:
    """All of them."""
    if not made:
        return
    rows.show("memory of one device", made, MEMORY_COLUMNS)
    for each in made:
        if "refused" in each:
            print(f"{each['topology']}: the compiler refused: {each['refused']}")
    rows.show("one step on one device", made, WORK_COLUMNS)
    for name in dict.fromkeys(each["topology"] for each in made if "by_class" in each):
        show_classes([each for each in made if each["topology"] == name and "by_class" in each])
    for each in made:  # a TPU adds in order
        scatters = each.get("unordered_scatters", ()) if is_gpu(each["topology"]) else ()
        for scatter in scatters:
            print(f"{each['label']}: adds in no fixed order: {scatter}")
    print(
        "FLOP ms and HBM ms are the compiled step's arithmetic and memory traffic at the chip's\n"
        "specified speeds; the bound is the longer one. The roof takes, kernel by kernel, the\n"
        "longest of arithmetic, traffic and launch, of GPUs at the shares of the specification\n"
        "that an H200 was seen to reach. All are least times, not measurements."
    )


def show_classes(made: Sequence[Row]) -> None:
    """The traffic of one topology by class, variants side by side."""
    kinds = [kind for kind in CLASSES if any(kind in each["by_class"] for each in made)]
    columns = {"case": "class"}
    lines: list[Row] = [{"class": kind} for kind in [*kinds, "all"]]
    for place, each in enumerate(made):
        label = each["variant"] or "the recipe"
        names = {"kernels": "kernels", "MB an image": "mb", "roof ms": "roof_ms"}
        columns |= {f"{label}: {shown}": f"{place}.{key}" for shown, key in names.items()}
        whole = {
            "kernels": each["kernels"],
            "bytes_per_image": each["bytes_per_image"],
            "roof_ms": each["roof_ms"],
        }
        for line in lines:
            found = whole if line["class"] == "all" else each["by_class"].get(line["class"])
            if found:
                line[str(place)] = found | {"mb": found["bytes_per_image"] / 1e6}
    rows.show(f"{made[0]['topology']}: memory traffic by class", lines, columns)
