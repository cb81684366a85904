"""What TPU chips hold and can do at most, by their makers' word: context, not measurement."""

from typing import NamedTuple


class Chip(NamedTuple):
    """A chip as the public specification gives it."""

    hbm_gib: int
    bf16_tflops: float
    hbm_gbs: float
    source: str  # title of the page
    config: str | None = None  # how libtpu is told to make one device of a chip's two cores

    def bound_ms(self, flop: float, bytes_moved: float) -> dict[str, float]:
        """The least time of so much arithmetic, of so much traffic, and of a step with both."""
        arithmetic, traffic = flop / self.bf16_tflops / 1e9, bytes_moved / self.hbm_gbs / 1e6
        return {"arithmetic": arithmetic, "traffic": traffic, "step": max(arithmetic, traffic)}


CHIPS = {
    "v4": Chip(32, 275, 1200, "Google Cloud documentation, TPU v4", config="megacore"),
    "v5e": Chip(16, 197, 819, "Google Cloud documentation, TPU v5e"),
    "v5p": Chip(95, 459, 2765, "Google Cloud documentation, TPU v5p"),
    "v6e": Chip(32, 918, 1640, "Google Cloud documentation, TPU v6e"),
}
