"""Makes the shapes of a verb's configuration known to Hydra, each imported when a configuration names it."""

from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module, resources
from typing import Any

from hydra.conf import HydraConf, JobConf, RunDir, SweepDir
from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import DictConfig, OmegaConf

from spikeloom.pipelines.config import declared
from spikeloom.pipelines.config.groups import GROUPS, UNNAMED, kind_key, shape
from spikeloom.pipelines.config.words import suggest

# verb -> module below `spikeloom.pipelines.config` and what makes its shape
VERBS = {
    "train": "train:open_train_config", "pretrain": "train:open_train_config",
    "distill": "distill:open_distill_config", "evaluate": "evaluate:EvaluateConfig", "export": "export:ExportConfig",
    "simulate": "simulate:SimulateConfig", "demo": "demo:DemoConfig", "bench": "bench:BenchConfig",
    "data": "data:DataConfig", "engines": "engines:EnginesConfig", "federate": "federate:FederateConfig",
    "listen": "listen:ListenConfig", "score": "score:ScoreConfig", "audit": "audit:AuditConfig",
    "convert": "convert:ConvertConfig", "push": "push:PushConfig", "report": "report:ReportConfig",
    "compare": "compare:CompareConfig", "serve": "serve:ServeConfig",
}  # fmt: skip
OTHERS = {
    ("optimizer", "adamw_cosine"): "pipelines.training.optim:OptimizerConfig",
    ("trainer", "lightning"): "pipelines.config.train:TrainerConfig",
}
SWEEP_DIR = "SPIKELOOM_SWEEP_DIR"  # environment variable: where Hydra notes what a sweep was


class LazyNode(ConfigNode):
    """A node of Hydra's store that is made when it is first read.

    From the class itself, which gives it types; or, with `outline`, from the source of the class, without types and
    without importing it (`spikeloom.pipelines.config.declared`).
    """

    def __init__(self, name: str, target: str, group: str | None, outline: bool) -> None:
        self.target, self.outline = target, outline
        self.made: DictConfig | None = None
        super().__init__(name=name, node=None, group=group, package=None, provider="spikeloom")  # type: ignore[arg-type]

    @property
    def node(self) -> DictConfig:
        return _make(self.target, self.outline) if self.made is None else self.made

    @node.setter
    def node(self, value: Any) -> None:
        self.made = value


@cache  # Hydra asks a copy of a node, and copies what it gets
def _make(target: str, outline: bool) -> DictConfig:
    if outline:
        return OmegaConf.create(declared.shape(target).values())
    module, _, name = target.partition(":")
    found = getattr(import_module(f"spikeloom.{module}"), name)
    return OmegaConf.structured(found if isinstance(found, type) else found())


def register(*, outline: bool = False) -> None:
    """Put every shape where the YAML files look for it. Imports no domain.

    `outline`: the keys and default values alone, for a manual or shell completion in a fraction of a second.
    """
    OmegaConf.register_new_resolver("pruned", pruned_folder, replace=True)
    store = ConfigStore.instance()
    for node in _nodes(outline):
        folder = store.repo if node.group is None else store.repo.setdefault(node.group, {})
        folder[node.name] = node
    store.store(group="hydra", name="config", node=our_hydra(), provider="hydra")


@cache
def _nodes(outline: bool) -> list[LazyNode]:
    """Every shape under the name that the YAML files have for it; Hydra composes from copies of what a node makes."""
    conf = resources.files("spikeloom.conf")
    files = {file.name for file in conf.iterdir()}
    nodes = []
    for verb, target in VERBS.items():  # a verb whose values differ from those of its dataclass has a file in conf
        name = f"{verb}_schema.yaml" if f"{verb}.yaml" in files else f"{verb}.yaml"
        nodes.append(LazyNode(name, f"pipelines.config.{target}", None, outline))
    for group, kinds in GROUPS.items():
        for kind, target in kinds.items():
            named_alike = group in ("data", "pruning") or (conf / group / f"{kind}.yaml").is_file()
            name = f"{kind}_schema.yaml" if named_alike else f"{kind}.yaml"
            nodes.append(LazyNode(name, target, group, outline))
    nodes += [LazyNode(f"{name}.yaml", target, group, outline) for (group, name), target in OTHERS.items()]
    return nodes


def our_hydra() -> HydraConf:
    """Hydra composes and sweeps; run directories and messages are ours."""
    settings = HydraConf(
        run=RunDir("."),
        sweep=SweepDir(dir=f"${{oc.env:{SWEEP_DIR},.}}", subdir="."),
        output_subdir=None,
        job=JobConf(chdir=False),
    )
    for entry in settings.defaults:
        entry.update({name: "disabled" for name in ("hydra_logging", "job_logging") if name in entry})
    return settings


def typed(verb: str, values: DictConfig) -> DictConfig:
    """Values of a file of the user's own (`--config-name`) under the shape of `verb`, and of the kinds they name."""
    if OmegaConf.get_type(values) is not dict:
        return values
    module, _, name = VERBS[verb].partition(":")
    found = getattr(import_module(f"spikeloom.pipelines.config.{module}"), name)
    typed_values = OmegaConf.structured(found if isinstance(found, type) else found())
    for group in set(GROUPS) & set(typed_values) & set(values):
        kind = OmegaConf.select(values, f"{group}.{kind_key(group)}") or UNNAMED.get(group)
        if kind is None:
            raise ValueError(
                f"{group}.{kind_key(group)} is needed; print a whole file with `spikeloom {verb} --cfg job`"
            )
        typed_values[group] = OmegaConf.structured(shape(group, kind))
    merged = OmegaConf.merge(typed_values, values)
    assert isinstance(merged, DictConfig)
    return merged


def check_keys(values: DictConfig, verb: str, prefix: str = "") -> None:
    """Raise ValueError for a key that no dataclass has: `+key=value` adds any, and nothing would read it."""
    cls = OmegaConf.get_type(values)
    known = {f.name for f in fields(cls)} if is_dataclass(cls) else {str(name) for name in values}
    for key in values:  # a number where the key is a mapping of numbers
        name = str(key)
        if name not in known:
            near = suggest(f"{prefix}{name}", [f"{prefix}{one}" for one in known])
            raise ValueError(f"unknown key {prefix}{name}{near}; `spikeloom {verb} --help` lists the keys")
        if not OmegaConf.is_missing(values, key) and isinstance(child := values._get_node(key), DictConfig):
            check_keys(child, verb, f"{prefix}{name}.")


def pruned_folder(pruning: Any) -> str:
    """`lats-sparsity0.9/` and the like, so that runs pruned alike lie together; nothing without pruning."""
    if pruning.kind == "none":
        return ""
    targets = [f"-{t}{pruning.get(t)}" for t in ("sparsity", "threshold", "l1") if pruning.get(t) is not None]
    return f"{pruning.kind}{''.join(targets)}/"
