"""What a call may change in its process and must give back: JAX's cache, the libraries' talk."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

from jaxres.runtime import compilation
from jaxres.runtime.screen import TALKATIVE


@contextlib.contextmanager
def left_as_it_was() -> Iterator[None]:
    """Restore JAX's compilation cache, and keep libraries from warning meanwhile."""
    loggers = [logging.getLogger(name) for name in ("absl", *TALKATIVE)]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(max(logger.getEffectiveLevel(), logging.ERROR))
        with compilation.kept_settings(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
