"""The arrows between rooms, read from the source with `ast`: who may import whom, and what is never called or grown."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("accel", "bci", "speech", "vision", "pipelines", "conf")
DOMAINS = ("bci", "speech", "vision")
FILES = sorted(f for room in (*ROOMS, "tests") for f in (ROOT / room).rglob("*.py"))
OWNERS = {"hydra": "pipelines", "omegaconf": "pipelines", "mne": "bci", "transformers": "bci"}  # library -> its room
PICKLES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "torch.load")


def _imports(tree: ast.AST, package: list[str]) -> list[str]:
    """Dotted names a file imports, relative ones resolved and `from a import b` given as a.b, wherever they stand."""
    found = []  # str
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found += [".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found += [a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return found


def _forbidden(path: str, name: str) -> bool:
    """Whether the file at `path` may not import `name`."""
    room, within = path.split("/")[0], lambda *roots: any(f"{name}.".startswith(f"{root}.") for root in roots)
    others = [domain for domain in DOMAINS if domain != room]
    return any((
        room == "accel" and within(*DOMAINS, "pipelines", "conf"),
        room in DOMAINS and within(*others, "pipelines", "conf"),
        room in DOMAINS and within("accel") and not within("accel.spiking", "accel.report", "accel.files"),
        any(within(library) and room != owner for library, owner in OWNERS.items()),
        within("lightning", "pytorch_lightning") and room != "pipelines"
        and Path(path).name not in ("datamodule.py", "training.py"),
        path.startswith("accel/spiking/")
        and not within("torch", "numpy", "accel.spiking", *sys.stdlib_module_names),
        path.startswith("accel/trainer/") and not path.startswith("accel/trainer/engines/") and within("torch"),
        within(*PICKLES),
    ))  # fmt: skip


def violations(path: str, source: str) -> list[str]:
    """What the file at `path`, given relative to the repository, does against the design."""
    tree = ast.parse(source)
    bad = [f"{path} imports {n}" for n in _imports(tree, path.split("/")[:-1]) if _forbidden(path, n)]
    modules = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    torches = {alias.asname or alias.name for alias in modules if alias.name == "torch"}
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        given = {k.arg: ast.unparse(k.value) for k in call.keywords}
        if ast.unparse(call.func) in {f"{t}.load" for t in torches} and given.get("weights_only") != "True":
            bad.append(f"{path}:{call.lineno} torch.load without weights_only=True")
        if given.get("allow_pickle") == "True":
            bad.append(f"{path}:{call.lineno} allow_pickle=True")
    return bad


def test_arrows_between_rooms_hold() -> None:
    paths = [f for f in FILES if f.relative_to(ROOT).parts[0] != "tests"]
    assert len(paths) > 20, "the rooms were not found"
    assert [v for f in paths for v in violations(f.relative_to(ROOT).as_posix(), f.read_text("utf-8"))] == []


def test_no_file_has_more_than_400_lines() -> None:
    sizes = {f.relative_to(ROOT).as_posix(): len(f.read_text("utf-8").splitlines()) for f in FILES}
    assert {path: lines for path, lines in sizes.items() if lines > 400} == {}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("accel/report.py", "from speech.figures import x"),
        ("accel/export.py", "import conf"),
        ("accel/export.py", "def f():\n    from pipelines import runs"),
        ("speech/digits.py", "from bci import zuco"),
        ("vision/images.py", "import speech.features as f"),
        ("speech/digits.py", "from accel.trainer import chip"),
        ("speech/digits.py", "from ..bci import zuco"),
        ("speech/features.py", "from omegaconf import OmegaConf"),
        ("accel/export.py", "import hydra.core"),
        ("speech/spikescr.py", "import lightning"),
        ("bci/cet_mae.py", "from lightning.pytorch import Trainer"),
        ("speech/features.py", "import mne"),
        ("pipelines/train.py", "from transformers import BartModel"),
        ("accel/spiking/ops.py", "import scipy"),
        ("accel/spiking/ops.py", "from accel import report"),
        ("accel/spiking/ops.py", "from importlib import import_module\nimport_module('triton')"),
        ("accel/trainer/cost.py", "from torch import Tensor"),
        ("pipelines/runs.py", "import pickle\npickle.load(f)"),
        ("pipelines/runs.py", "import torch\ntorch.load(f)"),
        ("pipelines/runs.py", "import torch as t\nt.load(f, weights_only=False)"),
        ("pipelines/runs.py", "from torch import load\nload(f)"),
        ("speech/audio.py", "import numpy as np\nnp.load(f, allow_pickle=True)"),
    ],
)
def test_planted_violation_is_found(path: str, source: str) -> None:
    assert violations(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("speech/spikescr.py", "from accel.spiking.neuron import LIF\nfrom . import audio"),
        ("accel/spiking/ops.py", "import ctypes\nfrom torch import nn\nfrom .functional import LIFState"),
        ("accel/trainer/cost.py", "from accel.trainer.chip import Chip"),
        ("accel/trainer/engines/units.py", "import torch"),
        ("speech/datamodule.py", "import lightning"),
        ("pipelines/runs.py", "import hydra, torch\nfrom speech import digits\ntorch.load(f, weights_only=True)"),
    ],
)
def test_permitted_import_passes(path: str, source: str) -> None:
    assert violations(path, source) == []
