"""How chips are joined, by published figures, and the least time in which they add up an array."""

import math
from typing import NamedTuple


class Links(NamedTuple):
    """The fast links among neighbours and the network between groups of them.

    GB/s are of one device in one direction; microseconds are the latency of one step from device to
    device. `axes` is 0 for a switch that joins all of a group, or the number of axes of a torus.
    """

    group: int  # devices that are joined without the network
    axes: int
    gbs: float
    hop_us: float
    network_gbs: float
    network_us: float
    ring: int = 0  # the length of an axis from which on (or in multiples) its ends are joined
    source: str = ""


# Latencies: NCCL's own model (baseLatencies and hwLatencies of its tuner: tree, simple protocol),
# 1 us per hop of a TPU's links (Austin et al., How to Scale Your Model); the data centre's network
# between TPU slices is taken to be five times that of NCCL.
START_US = 8.4
NVLINK_US, NETWORK_US, HOP_US = 4.0, 14.0, 1.0
LINKS = {
    "h100": Links(8, 0, 450, NVLINK_US, 50, NETWORK_US, source="NVIDIA DGX H100 data sheet"),
    "h200": Links(8, 0, 450, NVLINK_US, 50, NETWORK_US, source="NVIDIA DGX H200 data sheet"),
    "a100": Links(8, 0, 300, NVLINK_US, 25, NETWORK_US, source="NVIDIA DGX A100 data sheet"),
    "v4": Links(4096, 3, 300, HOP_US, 3.1, 70, ring=4, source="Jouppi et al. 2023, table 4"),
    "v5e": Links(
        256, 2, 200, HOP_US, 3.1, 70, ring=16, source="Google Cloud documentation, TPU v5e"
    ),
    "v5p": Links(
        6144, 3, 600, HOP_US, 6.2, 70, ring=4, source="Google Cloud documentation, TPU v5p"
    ),
    "v6e": Links(
        256, 2, 400, HOP_US, 12.5, 70, ring=16, source="Google Cloud documentation, TPU v6e"
    ),
}


class Exchange(NamedTuple):
    """Milliseconds of an all-reduce: over the fast links, the network, and waiting for messages."""

    links: float
    network: float
    latency: float

    @property
    def total(self) -> float:
        """All, one after the other."""
        return self.links + self.network + self.latency


def all_reduce(links: Links, devices: int, size: float) -> Exchange:
    """The least time to add up `size` bytes of each device and give all the sum.

    Inside of a group the array is added up in pieces, one for each device, the pieces go over the
    network, and are gathered again: each device sends 2 (n - 1) / n of its bytes.
    """
    group = min(devices, links.group)
    groups = math.ceil(devices / group)
    joined, hops = _torus(links, group) if links.axes else (1.0, group - 1)
    inside = 2 * (group - 1) / group * size / (links.gbs * joined)
    across = 2 * (groups - 1) / groups * (size / group) / links.network_gbs
    latency = 0.0 if devices == 1 else START_US
    latency += 2 * (hops * links.hop_us + math.log2(groups) * links.network_us)
    return Exchange(inside / 1e6, across / 1e6, latency / 1e3)


def shape(links: Links, devices: int) -> tuple[int, ...]:
    """The sides of a slice of a torus, as equal as they can be, the longest last."""
    sides, left = [], devices
    for axis in range(links.axes, 0, -1):
        wanted = left ** (1 / axis)
        side = min((n for n in range(1, left + 1) if left % n == 0), key=lambda n: abs(n - wanted))
        sides.append(side)
        left //= side
    return tuple(sorted(sides))


def _torus(links: Links, devices: int) -> tuple[float, int]:
    """Which share of its links a slice can use, and how many hops it is to the farthest chip.

    An axis whose ends are not joined is a line: half of the traffic of a ring, twice the way.
    """
    sides = shape(links, devices)
    rings = [side % links.ring == 0 for side in sides]
    share = sum(
        (1.0 if ring else 0.5) * (side > 1) for side, ring in zip(sides, rings, strict=True)
    )
    hops = sum(side // 2 if ring else side - 1 for side, ring in zip(sides, rings, strict=True))
    return (share or links.axes) / links.axes, hops
