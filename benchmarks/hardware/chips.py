"""What TPUs and GPUs hold and can do at most, by their makers' word: context, not measurement."""

from typing import NamedTuple


class Chip(NamedTuple):
    """A chip as the public specification gives it, bfloat16 products dense."""

    hbm_gib: float
    bf16_tflops: float
    hbm_gbs: float
    source: str  # title of the page
    # Shares of both that a product and a copy reach, and the time between two kernels. Of GPUs as
    # measured on an H200 (790 TFLOP/s, 4.3 TB/s); TPUs are taken at their word.
    product_share: float = 1.0
    copy_share: float = 1.0
    launch_us: float = 0.0
    config: str | None = None  # how libtpu is told to make one device of a chip's two cores

    def bound_ms(self, flop: float, bytes_moved: float) -> dict[str, float]:
        """The least time of so much arithmetic, of so much traffic, and of a step with both."""
        arithmetic, traffic = flop / self.bf16_tflops / 1e9, bytes_moved / self.hbm_gbs / 1e6
        return {"arithmetic": arithmetic, "traffic": traffic, "step": max(arithmetic, traffic)}

    @property
    def reach(self) -> dict[str, float]:
        """What a kernel can attain: the arguments of `Kernel.seconds`."""
        return {
            "flop_per_s": 1e12 * self.bf16_tflops * self.product_share,
            "bytes_per_s": 1e9 * self.hbm_gbs * self.copy_share,
            "launch_s": 1e-6 * self.launch_us,
        }


class Gpu(NamedTuple):
    """What XLA must know of a GPU to compile for it: NVIDIA's data sheets and CUDA's tables."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    clock_ghz: float  # boost
    memory_bytes: int  # as the driver reports it
    l2_bytes: int
    shared_memory_kib: int  # of a multiprocessor; a block may have all but one
    threads: int = 2048  # of a multiprocessor
    fpus: int = 128  # of a multiprocessor


def _gpu(hbm_gib: float, tflops: float, gbs: float, source: str) -> Chip:
    return Chip(hbm_gib, tflops, gbs, source, product_share=0.8, copy_share=0.9, launch_us=2.0)


CHIPS = {
    "v4": Chip(32, 275, 1200, "Google Cloud documentation, TPU v4", config="megacore"),
    "v5e": Chip(16, 197, 819, "Google Cloud documentation, TPU v5e"),
    "v5p": Chip(95, 459, 2765, "Google Cloud documentation, TPU v5p"),
    "v6e": Chip(32, 918, 1640, "Google Cloud documentation, TPU v6e"),
    "a100": _gpu(79.3, 312, 2039, "NVIDIA A100 Tensor Core GPU data sheet, 80 GB SXM"),
    "h100": _gpu(79.1, 989, 3350, "NVIDIA H100 Tensor Core GPU data sheet, SXM5"),
    "h200": _gpu(139.8, 989, 4800, "NVIDIA H200 Tensor Core GPU data sheet, SXM"),
    "l4": _gpu(22.0, 121, 300, "NVIDIA L4 Tensor Core GPU data sheet"),
}
GPUS = {
    "a100": Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41, 85_094_825_984, 40 << 20, 164),
    "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.98, 84_942_979_072, 50 << 20, 228),
    "h200": Gpu("NVIDIA H200", (9, 0), 132, 1.98, 150_110_011_392, 50 << 20, 228),
    "l4": Gpu("NVIDIA L4", (8, 9), 58, 2.04, 23_580_639_232, 48 << 20, 100, threads=1536),
}
TPUS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}


NAMES = {gpu.name: name for name, gpu in GPUS.items()} | TPUS  # of chips by JAX's `device_kind`


def of_device(kind: str) -> Chip | None:
    """The chip that JAX calls so, if it is one of these."""
    return CHIPS[NAMES[kind]] if kind in NAMES else None


def target_config(gpu: Gpu, *, bytes_per_s: float) -> str:
    """XLA's `GpuTargetConfigProto` of a GPU, as text: what it needs to compile without one."""
    major, minor = gpu.compute_capability
    feature = "\n    feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
    return f"""\
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared_memory_kib << 10}
  shared_memory_per_block_optin: {(gpu.shared_memory_kib - 1) << 10}
  threads_per_core_limit: {gpu.threads}
  core_count: {gpu.multiprocessors}
  fpus_per_core: {gpu.fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {round(bytes_per_s)}
  l2_cache_size: {gpu.l2_bytes}
  clock_rate_ghz: {gpu.clock_ghz}
  device_memory_size: {gpu.memory_bytes}
  cuda_compute_capability {{
    major: {major}
    minor: {minor}{feature}
  }}
  device_vendor: "NVIDIA Corporation"
  name: "{gpu.name}"
  device_address_bits: 64
  ecc_enabled: true
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{gpu.name}"
"""
