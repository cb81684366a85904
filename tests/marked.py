"""Cases of parametrised tests with marks."""

from typing import Any

import pytest


def slow(*values: Any) -> Any:
    """A case that only `python3 dev.py test --slow` runs."""
    return pytest.param(*values, marks=pytest.mark.slow)
