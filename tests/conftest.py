"""Where the shared test data lie, and how a test asks for them."""

import gc
import logging
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from absl import logging as absl_logging

# absl, which rouge-score brings, closes the stream it met at its import when logging is set up anew: here, pytest's.
absl_logging.PythonHandler.close = logging.StreamHandler.close


def pytest_collection_finish() -> None:
    """What was imported to find the tests stays to the end: the collector need not walk through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test draws the same numbers, whichever ran before it in its process; its fixtures do, too."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def data_folder(name: str) -> Path:
    """$SPIKELOOM_DATA/name, or a skip that says what is missing."""
    root = os.environ.get("SPIKELOOM_DATA")
    if not root:
        pytest.skip("SPIKELOOM_DATA is not set")
    folder = Path(root) / name
    if not folder.is_dir():
        pytest.skip(f"no folder {name} in SPIKELOOM_DATA")
    return folder


@pytest.fixture(autouse=True)
def loggers_speak() -> None:
    """Hydra disables every logger there is before the second job of a sweep, for the rest of the process; other
    libraries raise levels, or switch messages off below one."""
    logging.disable(logging.NOTSET)
    logging.root.setLevel(logging.WARNING)
    ours = logging.getLogger("spikeloom")
    ours.setLevel(logging.NOTSET)
    ours.propagate = True
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False
