"""`spikeloom VERB [group=choice] [key=value]`: help at once, then Hydra, and one clear line for every mistake.

Heavy libraries are imported by the verb that needs them, so `spikeloom --help` answers immediately.
"""

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module, resources
from typing import Any

VERBS = {
    "demo": "small experiments from data to what they cost (spoken digits if there, else synthetic data), on one page",
    "train": "train a model; writes a run folder with model, metrics and report",
    "pretrain": "pre-train CET-MAE on EEG and text of readings; writes a run folder that a decoder inherits from",
    "distill": "train from fine to coarse time steps, each stage taught by the one before; writes the table of stages",
    "evaluate": "score a trained model on a split or on another folder; writes JSON",
    "score": "measure a file of decoded sentences, and test whether they show any use of the EEG; writes JSON",
    "listen": "hear a wav file (or the microphone) with a causal model, each keyword as it goes by, with latency; or "
    "replay an EEG recording (eeg=FILE) to a trained decoder",
    "audit": "watch what a trained model's layers see: spikes or more, firing rates, operations and energy; a report",
    "convert": "turn released Spikingformer or QKFormer weights into a run that the other verbs take",
    "export": "turn a trained model into program.pt2 and workload.json with measured densities; NIR, ONNX (onnx=true)",
    "simulate": "cost one training step of a workload on a neuromorphic chip; conformance: against published figures",
    "data": "check a data set, describe it on a page, turn wavs into spikes (cochlea), count sentence leaks (leakage); "
    "of EEG also synthesize, split, cache, features, bids",
    "engines": "train a small network in PyTorch and through the chip's engines (FP16), priced epoch by epoch; report",
    "federate": "let workers with data of their own train one model (FedAvg): accuracy, bytes, time, energy a round",
    "bench": "time ops, step, vision, loader, cochlea, pretrain; measure gate, calibration, pruning, zuco; or tell env",
}
POSITIONAL = {"bench": "what", "data": "what", "simulate": "what"}  # `spikeloom bench env` reads better than what=env
# Other names of keys: no dataclass can have a field called `in`; a chip has keys of its own, and its name is what is
# given most; Hydra takes `model=` and `optimizer=` for a choice of a group, which these verbs do not have.
SHORT = {
    "data": {"in": "root"}, "simulate": {"chip": "chip.name"}, "convert": {"model": "network"},
    "engines": {"model": "network"}, "federate": {"model": "network", "optimizer": "local_optimizer"},
}  # fmt: skip
EXAMPLES = """\
  spikeloom demo
  SPIKELOOM_DATA=data spikeloom train -m experiment=spikescr_fsdd seed=0,1,2
  SPIKELOOM_DATA=data spikeloom distill -m experiment=kdcl_fsdd seed=0,1,2
  spikeloom evaluate run=runs/synthetic/seed0 split=valid out=valid.json
  spikeloom export run=runs/synthetic/seed0 && spikeloom simulate workload=runs/synthetic/seed0/export/workload.json
"""


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script. Exits with 0, or 2 after one line on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    verb, *rest = argv or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(manual())
        return
    if verb == "--version":
        from importlib.metadata import version

        print(f"spikeloom {version('spikeloom')}")
        return
    if verb not in VERBS:
        fail(f"unknown verb {verb!r}{_suggest(verb, VERBS)}; `spikeloom --help` lists them")
    if set(rest) & {"-h", "--help"}:
        print(verb_manual(verb))
        return
    for argument in rest:
        if argument.startswith("-") and argument not in ("-m", "--multirun"):
            fail(f"unknown option {argument}; use -m for a sweep, or key=value (`spikeloom {verb} --help`)")
    for short, key in SHORT.get(verb, {}).items():
        rest = [re.sub(f"^{short}=", f"{key}=", argument) for argument in rest]
    if verb in POSITIONAL and rest and re.fullmatch(r"\w+", rest[0]):
        rest[0] = f"{POSITIONAL[verb]}={rest[0]}"
    for argument in rest:
        if argument.startswith(("+", "~")):
            fail(f"{argument}: keys cannot be added or removed; write key=value (`spikeloom {verb} --help` lists them)")
        if not argument.startswith("-") and "=" not in argument:
            fail(f"{argument!r} is not an override; write key=value (`spikeloom {verb} --help`)")
    dispatch(verb, rest)


def dispatch(verb: str, overrides: list[str]) -> None:
    """Compose the configuration of `verb` and run it; every expected error becomes one line."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from pipelines.process import spare_memory
    from pipelines.schema import register

    register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors reach the handlers below instead of Hydra's own printer

    def job(values: Any) -> Any:
        try:
            config = OmegaConf.to_object(values)
        except OmegaConfBaseException as error:
            fail(explain(error, verb, overrides))
        except ValueError as error:  # a dataclass that refuses its values
            fail(" ".join(str(error).split()))
        if getattr(getattr(config, "model", None), "compact", False):
            spare_memory()
        run: Callable[[Any], None] = import_module(f"pipelines.{verb}").run
        try:
            return run(config)  # a number where a sweeper can search for the smallest
        except (ValueError, OSError, ImportError) as error:  # inside the job: Hydra would print a line of its own first
            if os.environ.get("SPIKELOOM_TRACEBACK"):
                raise
            fail(" ".join(str(error).split()))

    sys.argv = ["spikeloom", *overrides]
    try:
        with collected(verb, overrides):
            hydra.main(version_base="1.3", config_path="pkg://conf", config_name=verb)(job)()
    except (HydraException, OmegaConfBaseException) as error:
        fail(explain(error, verb, overrides))
    except KeyboardInterrupt:
        fail("interrupted; a training run goes on with resume=true")


@contextmanager
def collected(verb: str, overrides: Sequence[str]) -> Iterator[None]:
    """A sweep of `simulate` or `engines` ends in one table over its jobs, whatever process they ran in."""
    if verb not in ("simulate", "engines") or not {"-m", "--multirun"}.intersection(overrides):
        yield
        return
    from pipelines import sweeps

    if verb == "simulate":
        collect = sweeps.compare_designs
    else:
        from pipelines.engines import collect
    with sweeps.collecting(collect):
        yield


def explain(error: Exception, verb: str, overrides: list[str]) -> str:
    """Hydra's and OmegaConf's errors in one line that names the key and the fix."""
    text = str(error)
    cause: BaseException | None = error
    while cause is not None:  # the innermost message says what is wrong, the outer ones where
        text += f"\n{cause}"
        cause = cause.__cause__
    key = next((m[1] for m in re.finditer(r"full_key: ([\w.]+)", text)), "")
    if match := re.search(r"Key '([\w]+)' (?:not in|is not in struct)|Could not override '([^']+)'", text):
        full = match[2] or key or match[1]
        meant = _suggest(full, known_keys(verb, overrides))
        return f"unknown key {full}{meant}; `spikeloom {verb} --help` lists the keys"
    if match := re.search(r"Value '(.*?)' of type '(\w+)' could not be converted to (\w+)", text):
        given = next((o for o in overrides if o.lstrip("+~").startswith(f"{key}=")), f"{key}={match[1]}")
        kind = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}.get(match[3], match[3])
        return f"{given}: {key} must be {kind}, got {match[1]!r}"
    if match := re.search(r"Could not find 'hydra/(launcher|sweeper)/(\w+)'", text):
        return (
            f"hydra/{match[1]}={match[2]} is not installed; pip install hydra-{match[2]}-{match[1]} "
            "('spikeloom[sweep]' has the launcher joblib and the sweeper optuna)"
        )
    if match := re.search(r"Could not find '([\w-]+)/([\w.-]+)'", text) or re.search(
        r"Could not (?:load|find) '([\w]+)/([\w.-]+)'", text
    ):
        choices = groups().get(match[1], [])
        return f"no {match[1]} called {match[2]!r}{_suggest(match[2], choices)}; choose from {', '.join(choices)}"
    if match := re.search(r"[Mm]issing mandatory value: ([\w.]+)", text):
        return f"{match[1]} is needed; add {match[1]}=VALUE (`spikeloom {verb} --help`)"
    if match := re.search(r"LexerNoViableAltException: (.*)|mismatched input (.*)|no viable alternative (.*)", text):
        return (
            f"cannot read an override near {next(g for g in match.groups() if g)}; quote values with special characters"
        )
    return " ".join(str(error).split())


def known_keys(verb: str, overrides: Sequence[str] = ()) -> list[str]:
    """Every key of a verb's configuration, dotted, with the choices of groups that `overrides` make."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import DictConfig, OmegaConf

    def walk(node: Any, prefix: str) -> list[str]:
        keys: list[str] = []
        for name in node:
            keys.append(f"{prefix}{name}")
            if not OmegaConf.is_missing(node, name) and isinstance(child := node._get_node(name), DictConfig):
                keys += walk(child, f"{prefix}{name}.")
        return keys

    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        choices = [o for o in overrides if o.partition("=")[0] in groups() and "," not in o]
        return walk(compose(config_name=verb, overrides=choices), "")


def groups() -> dict[str, list[str]]:
    """Configuration groups and their choices, read from the package."""
    found = {}
    for folder in sorted(resources.files("conf").iterdir(), key=lambda f: f.name):
        if folder.is_dir() and folder.name not in ("__pycache__", "hydra"):
            found[folder.name] = sorted(
                f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
            )
    return found


def manual() -> str:
    verbs = "\n".join(f"  {verb:9s} {what}" for verb, what in VERBS.items())
    listed = "\n".join(f"  {group:13s} {', '.join(choices)}" for group, choices in groups().items())
    return f"""\
spikeloom: brain signals, speech and vision as models that train on neuromorphic hardware, and what that costs.

usage: spikeloom VERB [group=choice …] [key=value …] [-m]

verbs
{verbs}

examples
{EXAMPLES}
groups and their choices
{listed}

`spikeloom VERB --help` lists the keys of a verb. -m sweeps over comma-separated values.
Data lie under $SPIKELOOM_DATA, or ./data when it is not set; without data everything runs on synthetic keywords.
"""


def verb_manual(verb: str) -> str:
    """The keys of a verb with their default values, as YAML."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    from pipelines.schema import register

    register()
    with initialize_config_module("conf", version_base="1.3"):
        config = compose(config_name=verb, return_hydra_config=True)
    config.hydra.runtime.choices = config.hydra.runtime.choices or {}
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().set_config(config)
    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    yaml = OmegaConf.to_yaml(plain).replace("???", "(needed)")
    lines = "\n".join(f"  {line}" for line in yaml.rstrip().splitlines())
    how = "keys and defaults; change one with key=value, nested ones with a.b=value"
    return f"spikeloom {verb}: {VERBS[verb]}\n\n{how}\n{lines}\n{_chips() if verb == 'simulate' else ''}"


def _chips() -> str:
    """The preset chips with one line each."""
    from pipelines.chips import presets

    listed = "\n".join(f"  {name:10s} {summary}" for name, summary in presets().items())
    return f"""
chips (chip=NAME, or chip=FILE.yaml; chip.KEY=value changes a number, and -m sweeps over several)
{listed}

`spikeloom simulate conformance` compares the model with published figures.
"""


def _suggest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def fail(message: str) -> None:
    """One line on stderr, exit status 2."""
    print(f"spikeloom: {message}", file=sys.stderr)
    sys.exit(2)
