"""From a command line to a verb's configuration and its jobs, with Hydra; and one line for every mistake.

Nothing here knows a verb: the command line hands over what runs.
"""

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from spikeloom.pipelines.config.mistakes import explain, refusal
from spikeloom.pipelines.config.register import SWEEP_DIR, check_keys, register, typed
from spikeloom.pipelines.reports import jobs, sweeps

CONF = "pkg://spikeloom.conf"
EXPECTED = (ValueError, OSError, ImportError)  # what a verb raises to refuse; anything else is a fault of ours


class Refused(BaseException):
    """A mistake of the user's, in one line. No Exception: Hydra announces those of a job in a line of its own."""


class OurGroups(SearchPathPlugin):
    """The groups of `conf` stay within reach when --config-path names another folder."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if all(found.path != CONF for found in search_path.get_path()):
            search_path.append("spikeloom", CONF)


def launch(
    verb: str, options: Mapping[str, str], overrides: Sequence[str], run: Callable[[Any], Any],
    collect: Callable[[Sequence[Path]], None] | None,
) -> None:  # fmt: skip
    """Do what the options ask for: run a job or a sweep, or print a configuration.

    Args:
        options: of Hydra, by their long names; a value of "" for those that take none.
        run: a configuration's dataclass -> a number that a sweeper may minimise, or None.
        collect: makes the table of a sweep from the folders its jobs leave; None: the table of any sweep.

    Raises:
        Refused: for a mistake in the command line, or values that the verb refuses.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins

    register()
    Plugins.instance().register(OurGroups)
    GlobalHydra.instance().clear()
    started: list[bool] = []
    before, sys.argv = sys.argv, ["spikeloom", *_flags(options), *overrides]
    full_error = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the handlers below instead of Hydra's own printer
    try:
        with ExitStack() as stack:
            if "--multirun" in options:
                stack.enter_context(_sweep(overrides, collect))
            if not _may_set_mode(options, overrides):
                stack.enter_context(_mode_of_flags())
            if "--package" in options:
                stack.enter_context(redirect_stderr(io.StringIO()))  # where Hydra says that there is no such key
            hydra.main(version_base="1.3", config_path=CONF, config_name=verb)(_Job(verb, overrides, run, started))()
    except SystemExit as end:
        if "--package" in options and end.code:
            raise Refused(
                f"--package={options['--package']}: no such key; `spikeloom {verb} --help` lists them"
            ) from end
        raise
    except Exception as error:
        if started or os.environ.get("SPIKELOOM_TRACEBACK"):
            raise
        raise Refused(explain(error, verb, overrides)) from error
    finally:
        sys.argv = before
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]


def _may_set_mode(options: Mapping[str, str], overrides: Sequence[str]) -> bool:
    """Whether `hydra.mode` may be set, in words or in a file of the user's own; the files of `conf` leave it alone."""
    return any(name.startswith("--config") for name in options) or any("hydra" in word for word in overrides)


@contextmanager
def _mode_of_flags() -> Iterator[None]:
    """A run or a sweep as the flags say, without the search for `hydra.mode`, which composes everything once more."""
    from hydra._internal.hydra import Hydra

    if (search := getattr(Hydra, "get_mode", None)) is None:  # a Hydra without that search
        yield
        return
    setattr(Hydra, "get_mode", lambda self, config_name, overrides: None)  # noqa: B010
    try:
        yield
    finally:
        setattr(Hydra, "get_mode", search)  # noqa: B010


def _flags(options: Mapping[str, str]) -> list[str]:
    """The options as Hydra's parser takes them; folders are those of the working directory."""
    paths = ("--config-path", "--config-dir")
    return [
        f"{name}={os.path.abspath(value) if name in paths and '://' not in value else value}" if value else name
        for name, value in options.items()
    ]


class _Job:
    """What Hydra calls for each job, in this process or in one of a launcher's."""

    def __init__(self, verb: str, overrides: Sequence[str], run: Callable[[Any], Any], started: list[bool]) -> None:
        self.verb, self.overrides, self.run, self.started = verb, list(overrides), run, started
        self.process = os.getpid()
        self.ours = {name: value for name, value in os.environ.items() if name.startswith("SPIKELOOM_")}

    def __call__(self, values: Any) -> Any:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        if os.getpid() != self.process:  # one of a launcher's, which may be older than this sweep
            os.environ.update(self.ours)
            register()  # the resolvers
        begun = time.perf_counter()
        try:
            try:
                values = typed(self.verb, values)
                check_keys(values, self.verb)
                config = OmegaConf.to_object(values)
            except OmegaConfBaseException as error:
                raise Refused(explain(error, self.verb, self.overrides)) from error
            except ValueError as error:  # a dataclass that refuses its values
                raise Refused(refusal(error)) from error
            if getattr(getattr(config, "model", None), "compact", False):
                from spikeloom.pipelines.training import runtime

                runtime.spare_memory()
            try:
                self.started.append(True)
                found = self.run(config)
                self.started.clear()
            except EXPECTED as error:
                self.started.clear()
                if os.environ.get("SPIKELOOM_TRACEBACK"):
                    raise
                raise Refused(refusal(error)) from error
        except Refused as refused:
            if os.getpid() == self.process:
                raise
            jobs.leave(None, None, time.perf_counter() - begun, error=str(refused))
            return None  # the launcher's other jobs go on; the sweep ends with the message
        value = jobs.objective(config, found)
        jobs.leave(config, value, time.perf_counter() - begun)
        return value


@contextmanager
def _sweep(overrides: Sequence[str], collect: Callable[[Sequence[Path]], None] | None) -> Iterator[None]:
    """The folder of a sweep's notes, and its table at the end. Raises Refused where a job in another process failed."""
    with ExitStack() as stack:
        folder = os.environ.get(SWEEP_DIR)
        if folder is None:
            if any(o.startswith("hydra/launcher=submitit") for o in overrides):  # its jobs may run on other machines
                folder = str(Path("runs", "sweeps", datetime.now().strftime("%Y-%m-%d_%H-%M-%S")).absolute())
                Path(folder).mkdir(parents=True, exist_ok=True)
            else:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="spikeloom-"))
            os.environ[SWEEP_DIR] = folder
            stack.callback(os.environ.pop, SWEEP_DIR, None)
        done = stack.enter_context(jobs.collecting(Path(folder)))
        if collect is not None:
            stack.enter_context(sweeps.collecting(collect))
        try:
            yield
        except Exception as error:
            if failed := jobs.failures(done()):
                raise Refused(failed) from error
            raise
        if failed := jobs.failures(done()):
            raise Refused(failed)
        if not done():
            raise Refused(f"the sweep of {' '.join(overrides)} has no jobs; give values as in seed=0,1,2")
        if collect is None:
            jobs.print_table(done())
