"""The arrows between packages, read from the source with `ast`: who may import whom, and that none lie in a circle."""

import ast
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from spikeloom.pipelines.config.groups import GROUPS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("accel", "bci", "speech", "vision", "pipelines", "conf", "spikeloom")
DOMAINS = ("bci", "speech", "vision")
FILES = sorted(f for package in (*PACKAGES, "benchmarks", "examples", "tests") for f in (ROOT / package).rglob("*.py"))
PRODUCT = [f for f in FILES if f.relative_to(ROOT).parts[0] in PACKAGES]
OWNERS = {"hydra": "pipelines", "omegaconf": "pipelines", "mne": "bci", "transformers": "bci"}  # library -> its package
TRITON = "accel/spiking/kernels/triton_lif.py"  # the one file that knows Triton
PICKLES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "torch.load")
LEARNS = ("datamodule.py", "lightning_module.py")  # files of a domain that may know Lightning


@cache
def _statements(source: str) -> list[ast.AST]:
    """The imports and calls of a file."""
    return [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom | ast.Call)]


@cache
def _imports(path: str, source: str) -> list[str]:
    """Dotted names a file imports, relative ones resolved and `from a import b` given as a.b, wherever they stand."""
    found: list[str] = []
    package = _package(path)
    for node in _statements(source):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found += [".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names]
        elif isinstance(node, ast.Call) and _last(node.func).endswith(("import_module", "__import__")):
            found += [a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return found


def _last(function: ast.expr) -> str:
    """The name behind the last dot of what is called, if it has one."""
    return getattr(function, "attr", getattr(function, "id", ""))


def _package(path: str) -> list[str]:
    """The dotted name of the package that the file at `path` lies in: accel/x.py -> spikeloom, accel."""
    parts = path.split("/")[:-1]
    return parts if parts[:1] in (["spikeloom"], ["tests"]) else ["spikeloom", *parts]


def _forbidden(path: str, name: str) -> bool:
    """Whether the file at `path` may not import `name`."""
    package, within = path.split("/")[0], lambda *roots: any(f"{name}.".startswith(f"{root}.") for root in roots)
    ours = lambda *names: within(*(f"spikeloom.{n}" for n in names))  # noqa: E731, as short as `within`
    others = [domain for domain in DOMAINS if domain != package]
    return any((
        package in ("accel", *DOMAINS, "pipelines") and ours("benchmarks", "examples"),
        package == "accel" and ours(*DOMAINS, "pipelines", "conf"),
        package in DOMAINS and ours(*others, "pipelines", "conf"),
        package in DOMAINS and ours("accel") and not ours("accel.spiking", "accel.common", "accel.analysis"),
        path.startswith("pipelines/") and not path.startswith(("pipelines/cli.py", "pipelines/commands/demo.py"))
        and ours("pipelines.commands", "pipelines.cli"),
        within("accel", *DOMAINS, "pipelines", "conf"),  # the names of before: other people's packages
        any(within(library) and package != owner for library, owner in OWNERS.items()),
        within("lightning", "pytorch_lightning") and package != "pipelines" and Path(path).name not in LEARNS,
        path.startswith("accel/spiking/")
        and not within("torch", "numpy", "spikeloom.accel.spiking", *sys.stdlib_module_names)
        and not (path == TRITON and within("triton")),
        path.startswith("accel/trainer/") and not path.startswith("accel/trainer/engines/") and within("torch"),
        within(*PICKLES),
    ))  # fmt: skip


def violations(path: str, source: str) -> list[str]:
    """What the file at `path`, given relative to the repository, does against the design."""
    found = _statements(source)
    bad = [f"{path} imports {n}" for n in _imports(path, source) if _forbidden(path, n)]
    modules = [alias for node in found if isinstance(node, ast.Import) for alias in node.names]
    torches = {alias.asname or alias.name for alias in modules if alias.name == "torch"}
    for call in (n for n in found if isinstance(n, ast.Call)):
        given = {k.arg for k in call.keywords if isinstance(k.value, ast.Constant) and k.value.value is True}
        loads = _last(call.func) == "load" and ast.unparse(call.func) in {f"{t}.load" for t in torches}
        if loads and "weights_only" not in given:
            bad.append(f"{path}:{call.lineno} torch.load without weights_only=True")
        if "allow_pickle" in given:
            bad.append(f"{path}:{call.lineno} allow_pickle=True")
    return bad


def graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Module -> modules of ours it imports, wherever in the file; `sources` has paths relative to the repository.

    Importing a name of a package imports the package; importing a module counts as that module alone.
    """
    names = {path: ".".join([*_package(path), *([] if path.endswith("__init__.py") else [Path(path).stem])])
             for path in sources}  # fmt: skip
    modules = set(names.values())
    found: dict[str, set[str]] = {}
    for path, source in sources.items():
        imported = set()
        for name in _imports(path, source):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            imported |= {name} - {"", names[path]}
        found[names[path]] = imported
    return found


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """The modules of one circle of imports, or nothing."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_arrows_between_packages_hold() -> None:
    assert len(PRODUCT) > 20, "the packages were not found"
    assert [v for f in PRODUCT for v in violations(f.relative_to(ROOT).as_posix(), f.read_text("utf-8"))] == []


def test_no_two_modules_import_each_other_however_indirectly() -> None:
    arrows = graph({f.relative_to(ROOT).as_posix(): f.read_text("utf-8") for f in PRODUCT})
    assert sum(map(len, arrows.values())) > 500, "the arrows were not found"
    assert circle(arrows) == []


def test_planted_circle_is_found() -> None:
    sources = {
        "accel/a.py": "from spikeloom.accel import b",
        "accel/b.py": "def f():\n    from spikeloom.accel.c import g",
        "accel/c.py": "from importlib import import_module\nimport_module('spikeloom.accel.a')",
    }
    assert set(circle(graph(sources))) == {f"spikeloom.accel.{name}" for name in "abc"}


def floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    """Module -> its floor: 0 where it imports none of `arrows`, else one above the highest that it imports."""
    found: dict[str, int] = {}
    for module in TopologicalSorter(arrows).static_order():
        found[module] = 1 + max((found[below] for below in arrows.get(module, ())), default=-1)
    return found


def reached(arrows: dict[str, set[str]], *starts: str) -> set[str]:
    """`starts` and every module that they import, however indirectly."""
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        if (module := waiting.pop()) not in found:
            found.add(module)
            waiting += arrows[module]
    return found


def test_imports_of_train_point_to_lower_floors_only() -> None:
    arrows = graph({f.relative_to(ROOT).as_posix(): f.read_text("utf-8") for f in PRODUCT})
    # Adapters are imported by the name of a domain, which no import statement shows.
    adapters = [f"spikeloom.pipelines.domains.{f.stem}" for f in (ROOT / "pipelines/domains").glob("[!_]*.py")]
    house = {m: arrows[m] for m in reached(arrows, "spikeloom.pipelines.commands.train", *adapters)}
    assert len(house) > 50 and "spikeloom.accel.spiking.functional" in house, "the imports of train were not found"
    floor = floors(house)
    assert [(m, below) for m, imported in house.items() for below in imported if floor[below] >= floor[m]] == []


def test_pipelines_has_at_most_eight_floors() -> None:
    arrows = graph({f.relative_to(ROOT).as_posix(): f.read_text("utf-8") for f in PRODUCT})
    within = {m for m in arrows if m.startswith("spikeloom.pipelines")}
    floor = floors({m: arrows[m] & within for m in within})
    assert 1 + max(floor.values()) <= 8, [m for m, level in floor.items() if level > 7]


def test_floor_is_the_longest_way_down() -> None:
    assert floors({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": 2, "b": 1, "c": 0}
    with pytest.raises(CycleError):
        floors({"a": {"b"}, "b": {"a"}})


def model_questions(source: str) -> list[str]:
    """Where a command asks for the class of a model: isinstance, or match, with a configuration of conf/model."""
    classes = {path.split(":")[1] for path in GROUPS["model"].values()}
    asked = []  # str
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            asked += [n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name) and n.id in classes]
        elif isinstance(node, ast.MatchClass) and ast.unparse(node.cls) in classes:
            asked.append(ast.unparse(node.cls))
    return asked


def test_no_command_asks_for_the_class_of_a_model() -> None:
    commands = sorted((ROOT / "pipelines/commands").glob("*.py"))
    assert len(commands) > 10, "the commands were not found"
    assert {f.name: asked for f in commands if (asked := model_questions(f.read_text("utf-8")))} == {}
    assert model_questions("if isinstance(config.model, E2TPTRRecipe | CETMAERecipe): f()")
    assert not model_questions("isinstance(config.features, LogMelConfig)")


def test_no_file_has_more_than_400_lines() -> None:
    sizes = {f.relative_to(ROOT).as_posix(): len(f.read_text("utf-8").splitlines()) for f in FILES}
    assert {path: lines for path, lines in sizes.items() if lines > 400} == {}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("accel/report.py", "from spikeloom.speech.charts import x"),
        ("accel/export.py", "import spikeloom.conf"),
        ("accel/export.py", "def f():\n    from spikeloom.pipelines import runs"),
        ("speech/datasets/fsdd.py", "from spikeloom.bci import zuco"),
        ("vision/images.py", "import spikeloom.speech.features as f"),
        ("speech/digits.py", "from spikeloom.accel.trainer import chip"),
        ("speech/digits.py", "from ..bci import zuco"),
        ("speech/features.py", "from omegaconf import OmegaConf"),
        ("speech/features.py", "from accel.spiking.neuron import LIF"),
        ("accel/export.py", "import hydra.core"),
        ("speech/models/spikescr.py", "import lightning"),
        ("bci/models/cet_mae.py", "from lightning.pytorch import Trainer"),
        ("speech/features.py", "import mne"),
        ("pipelines/commands/train.py", "from transformers import BartModel"),
        ("pipelines/commands/train.py", "from spikeloom.pipelines.commands import evaluate"),
        ("pipelines/training/fit.py", "from spikeloom.pipelines.commands.train import run"),
        ("pipelines/training/fit.py", "from spikeloom.benchmarks import measure"),
        ("accel/spiking/ops.py", "import scipy"),
        ("accel/spiking/ops.py", "from spikeloom.accel.common import report"),
        ("accel/spiking/ops.py", "from importlib import import_module\nimport_module('triton')"),
        ("accel/trainer/cost/closed_forms.py", "from torch import Tensor"),
        ("pipelines/training/run_dir.py", "import pickle\npickle.load(f)"),
        ("pipelines/training/run_dir.py", "import torch\ntorch.load(f)"),
        ("pipelines/training/run_dir.py", "import torch as t\nt.load(f, weights_only=False)"),
        ("pipelines/training/run_dir.py", "from torch import load\nload(f)"),
        ("speech/datasets/audio.py", "import numpy as np\nnp.load(f, allow_pickle=True)"),
    ],
)
def test_planted_violation_is_found(path: str, source: str) -> None:
    assert violations(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("speech/models/spikescr.py", "from spikeloom.accel.spiking.neuron import LIF\nfrom . import audio"),
        ("accel/spiking/ops.py", "import ctypes\nfrom torch import nn\nfrom .functional import LIFState"),
        ("accel/trainer/cost/noc.py", "from spikeloom.accel.trainer.chip.chip import Chip"),
        ("accel/trainer/engines/units.py", "import torch"),
        (TRITON, "import triton.language as tl"),
        ("speech/datamodule.py", "import lightning"),
        (
            "pipelines/training/run_dir.py",
            "import hydra, torch\nfrom spikeloom.speech import x\ntorch.load(f, weights_only=True)",
        ),
    ],
)
def test_permitted_import_passes(path: str, source: str) -> None:
    assert violations(path, source) == []
