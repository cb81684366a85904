"""torchvision, also where its compiled operators do not fit the torch that is installed."""

import sys
import types

REGISTRATIONS = "torchvision._meta_registrations"


def load() -> types.ModuleType:
    """The package torchvision, with its networks and transforms.

    A wheel built for another torch fails in registering its detection operators, which no
    classifier needs.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    sys.modules.setdefault(REGISTRATIONS, types.ModuleType(REGISTRATIONS))
    import torchvision  # pyright: ignore[reportMissingImports]

    return torchvision
