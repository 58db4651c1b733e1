"""`spikeloom VERB [group=choice] [key=value]`: help at once, then Hydra, and one clear line for every mistake.

Heavy libraries are imported by the verb that needs them, so `spikeloom --help` answers immediately.
"""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from spikeloom.pipelines.config.files import groups
from spikeloom.pipelines.config.words import suggest

VERBS = {
    "demo": "run small experiments from data to chip cost, on spoken digits or else synthetic data; writes one report",
    "train": "train a model; writes a run directory (model, metrics, report)",
    "pretrain": "pre-train CET-MAE on EEG and text; writes a run directory that a decoder starts from",
    "distill": "train from fine to coarse time steps, each stage distilled from the previous one; prints a table",
    "evaluate": "score a trained model on a split or on another folder; writes JSON",
    "score": "score decoded sentences of any decoder (EEG-To-Text and NeuSpeech dumps, CSV, TSV, JSON) and test "
    "whether they depend on the EEG; writes JSON",
    "listen": "stream a wav file or the microphone through a causal model; prints keywords with latency; "
    "with eeg=FILE, replay an EEG recording to a trained decoder; with lsl=NAME, decode a live stream",
    "serve": "open a page on this machine: keywords of a recording, tests of decoded sentences, cost of a network "
    "(needs spikeloom[demo])",
    "audit": "check whether a trained model is spike-driven: firing rates, operations, energy; writes a report",
    "report": "draw the page of a run again from what it holds; nothing is trained",
    "compare": "several runs on one page: results, curves, accuracy against energy, settings that differ",
    "convert": "import released weights (Spikingformer, QKFormer, SEW-ResNet, CET-MAE, …) into a run directory",
    "push": "upload a trained model with its card to the Hugging Face Hub",
    "export": "export a trained model to program.pt2 and workload.json with measured densities; optionally NIR, ONNX",
    "simulate": "price one training step of a workload on a chip; conformance: compare with published figures",
    "data": "check or describe a data set, fetch a public one (list: which are there), convert wavs to spikes "
    "(cochlea), count leaked sentences (leakage); for EEG also synthesize, split, cache, features, bids, epochs",
    "engines": "train a small network in PyTorch and on the FP16 engines of the chip, priced by epoch; writes a report",
    "federate": "train one model on workers with separate data (FedAvg): accuracy, bytes, time, energy of each round",
    "bench": "time ops, kernels, step, vision, loader, cochlea, pretrain; measure gate, decoders, calibration, "
    "pruning, zuco; plan trainings on many devices; compare ranks and processes with one; print env",
}
POSITIONAL = {"bench": "what", "data": "what", "simulate": "what"}  # `spikeloom bench env` reads better than what=env
# Other names of keys: no dataclass can have a field called `in`; a chip has keys of its own, and its name is what is
# given most; Hydra takes `model=` and `optimizer=` for a choice of a group, which these verbs do not have.
SHORT = {
    "data": {"in": "root"}, "simulate": {"chip": "chip.name", "model": "module"}, "export": {"model": "module"},
    "convert": {"model": "network"},
    "engines": {"model": "network"}, "federate": {"model": "network", "optimizer": "local_optimizer"},
}  # fmt: skip
# verb -> module and function that make the table of its sweeps, from the folders that the jobs leave
COLLECTORS = {"simulate": ("reports.sweeps", "compare_designs"), "engines": ("commands.engines", "collect")}
# Hydra's options -> the values they take ("": any, None: none).
OPTIONS = {
    "--help": None, "--hydra-help": None, "--multirun": None, "--run": None, "--resolve": None,
    "--cfg": "job|hydra|all", "--info": "all|config|defaults|defaults-tree|plugins|searchpath",
    "--package": "", "--config-dir": "", "--config-path": "", "--config-name": "",
}  # fmt: skip
SHORT_OPTIONS = {
    "-h": "--help", "-m": "--multirun", "-r": "--run", "-c": "--cfg", "-i": "--info", "-p": "--package",
    "-cd": "--config-dir", "-cp": "--config-path", "-cn": "--config-name",
}  # fmt: skip
GOES_ON = dict.fromkeys(("train", "pretrain", "distill"), "; the run goes on with resume=true")
EXAMPLES = """\
  spikeloom demo
  SPIKELOOM_DATA=data spikeloom train -m experiment=spikescr_fsdd seed=0,1,2
  SPIKELOOM_DATA=data spikeloom distill -m experiment=kdcl_fsdd seed=0,1,2
  spikeloom evaluate run=runs/synthetic/seed0 split=valid out=valid.json
  spikeloom export run=runs/synthetic/seed0 && spikeloom simulate workload=runs/synthetic/seed0/export/workload.json
"""


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script. Exits with 0, or after one line on stderr with 2; stopped by SIGINT or SIGTERM
    with 130 or 143, as shells count them."""
    argv = sys.argv[1:] if argv is None else argv
    verb, *rest = argv or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(manual())
        return
    if verb == "--version":
        from importlib.metadata import version

        print(f"spikeloom {version('spikeloom')}")
        return
    if verb in ("-sc", "--shell-completion"):
        from spikeloom.pipelines.config.completion import complete

        complete(rest, VERBS)
        return
    if verb not in VERBS:
        fail(f"unknown verb {verb!r}{suggest(verb, VERBS)}; `spikeloom --help` lists them")
    options, overrides = arguments(verb, rest)
    if "--help" in options:
        print_manual(verb, options, overrides)
    else:
        dispatch(verb, options, overrides)


def arguments(verb: str, given: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The options of Hydra, by their long names and wherever they stand, and the overrides, in order."""
    options: dict[str, str] = {}
    overrides: list[str] = []
    rest = list(given)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-") or re.match(r"-[\d.]", argument):
            overrides.append(argument)
            continue
        name, equals, value = argument.partition("=")
        name = SHORT_OPTIONS.get(name, name)
        if name not in OPTIONS:
            fail(f"unknown option {argument}{suggest(name, OPTIONS)}; `spikeloom {verb} --hydra-help` lists them")
        takes = OPTIONS[name]
        if takes is None:
            if equals:
                fail(f"{argument}: {name} takes no value; leave it out")
        elif not equals and rest and (takes == "" or rest[0] in takes.split("|")):
            value = rest.pop(0)
        elif name == "--info" and not equals:
            value = "all"
        if takes is not None and (not value or (takes and value not in takes.split("|"))):
            fail(f"{argument}: {name} needs {'one of ' + takes.replace('|', ', ') if takes else 'a value'}")
        options[name] = value
    if "--resolve" in options and "--cfg" not in options:
        fail("--resolve needs --cfg; use --cfg job --resolve")
    if len(modes := [name for name in ("--cfg", "--info", "--multirun") if name in options]) > 1:
        fail(f"{' and '.join(modes)} cannot be combined; choose one")
    for short, key in SHORT.get(verb, {}).items():
        overrides = [re.sub(rf"^([+~]*){short}(?==[^{{])", rf"\g<1>{key}", override) for override in overrides]
    if verb == "compare" and (runs := [given for given in overrides if "=" not in given]):
        quoted = ",".join("'" + run.replace("'", "\\'") + "'" for run in runs)
        overrides = [f"runs=[{quoted}]", *(given for given in overrides if given not in runs)]
    if verb == "data" and (settings := [given for given in overrides if re.match(r"data\.|features[.=]", given)]):
        quoted = ",".join("'" + given.replace("'", "\\'") + "'" for given in settings)
        overrides = [*(given for given in overrides if given not in settings), f"settings=[{quoted}]"]
    if verb in POSITIONAL and overrides and re.fullmatch(r"\w+", overrides[0]):
        overrides[0] = f"{POSITIONAL[verb]}={overrides[0]}"
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            fail(f"{override!r} is not an override; write key=value (`spikeloom {verb} --help`)")
    return options, overrides


def print_manual(verb: str, options: Mapping[str, str], overrides: Sequence[str]) -> None:
    """The keys of a verb with the choices that the command line makes; one line for a choice there is not."""
    from spikeloom.pipelines.config.manual import text
    from spikeloom.pipelines.config.mistakes import explain

    directory = options.get("--config-dir") or options.get("--config-path")
    try:
        print(text(verb, VERBS[verb], overrides, directory and os.path.abspath(directory)))
    except BrokenPipeError:
        sys.stderr.close()  # `| head`: nobody reads on
    except Exception as error:
        if os.environ.get("SPIKELOOM_TRACEBACK"):
            raise
        fail(explain(error, verb, overrides))


def dispatch(verb: str, options: Mapping[str, str], overrides: Sequence[str]) -> None:
    """Compose the configuration of `verb` and run it; every expected error becomes one line."""
    try:
        with stopped_by_signals():
            _dispatch(verb, options, overrides)
    except Stopped as stopped:
        fail(f"stopped by {stopped}{GOES_ON.get(verb, '')}", 128 + stopped.number)


def _dispatch(verb: str, options: Mapping[str, str], overrides: Sequence[str]) -> None:
    from spikeloom.pipelines.config.composition import Refused, launch

    def job(config: Any) -> Any:
        from spikeloom.pipelines.training.run_names import name_runs

        name_runs(verb, config)
        trainer = getattr(config, "trainer", None)
        if trainer is not None and trainer.devices * trainer.num_nodes > 1:
            from hydra.core.hydra_config import HydraConfig

            from spikeloom.pipelines.training.launch import start_processes, started_already

            if not started_already():  # again, once for each device
                own = [f"{name}={options[name]}" for name in ("--config-dir", "--config-path") if name in options]
                return start_processes(trainer, verb, [*own, *HydraConfig.get().overrides.task])
        return import_module(f"spikeloom.pipelines.commands.{verb}").run(config)

    try:
        launch(verb, options, overrides, job, collector(verb))
    except Refused as refused:
        fail(str(refused))


class Stopped(KeyboardInterrupt):
    """A signal that asks this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Stopped` inside, the first of them; what is half done is then removed undisturbed.

    Where a library takes that for its own end, what it raises then is `Stopped`, too: an exception inside a clean-up is
    lost, and Lightning, which keeps count of signals, exits as if all were well; a half-written checkpoint makes torch
    raise an error of its own.
    """
    stopped: list[int] = []

    def stop(number: int, frame: object) -> None:
        if not stopped:
            stopped.append(number)
            raise Stopped(number)

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, which alone is told of signals
        yield
        return
    try:
        yield
    except (SystemExit, Exception) as end:
        if stopped:
            raise Stopped(stopped[0]) from end
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def collector(verb: str) -> Callable[[Sequence[Path]], None] | None:
    """What makes the table of a sweep of `simulate` or `engines`; None: the table of any sweep."""

    def collect(folders: Sequence[Path]) -> None:
        module, name = COLLECTORS[verb]
        getattr(import_module(f"spikeloom.pipelines.{module}"), name)(folders)

    return collect if verb in COLLECTORS else None


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


def fail(message: str, status: int = 2) -> None:
    """One line on stderr, and the end."""
    print(f"spikeloom: {message}", file=sys.stderr)
    sys.exit(status)
