"""Completion in bash, zsh and fish: the verb, then what Hydra completes for it, from outlines and so without torch."""

import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from typing import Any

from spikeloom.pipelines.config.files import groups
from spikeloom.pipelines.config.register import register


def complete(arguments: Sequence[str], verbs: Iterable[str]) -> None:
    """`spikeloom -sc install=bash` prints what a shell evaluates; `-sc query=bash` answers the line in $COMP_LINE."""
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.plugins.completion_plugin import CompletionPlugin

    what, _, shell = (arguments[0] if arguments else "").partition("=")
    register(outline=True)
    with initialize_config_module("spikeloom.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        found: Any = Plugins.instance().discover(CompletionPlugin)
        plugins = {plugin.provides(): plugin(loader) for plugin in found}
        if what not in ("install", "uninstall", "query") or shell not in plugins:
            print(
                "spikeloom: --shell-completion needs install=SHELL or uninstall=SHELL with one of "
                f"{', '.join(sorted(plugins))}", file=sys.stderr,
            )  # fmt: skip
            sys.exit(2)
        if what != "query":
            getattr(plugins[shell], what)()
            return
        program, verb, rest = words(os.environ.get("COMP_LINE", ""))
        if rest is None:
            print(" ".join(name for name in verbs if name.startswith(verb)))
        elif verb in verbs:
            os.environ["COMP_LINE"] = f"{program} {rest}"
            with redirect_stdout(io.StringIO()) as answer:
                plugins[shell].query(verb)
            print(re.sub(r"\S+", _offered, answer.getvalue()), end="")


def _offered(word: re.Match[str]) -> str:
    """The word, or nothing for one of the shapes that our files build on."""
    group, _, choice = word[0].lstrip("+").partition("=")
    return "" if choice and group in groups() and choice not in groups()[group] else word[0]


def words(line: str) -> tuple[str, str, str | None]:
    """The program, the verb (perhaps its beginning) and what follows it; None while the verb is being typed."""
    found = re.match(r"\s*(\S+)\s*(\S*)(\s.*)?$", line)
    if found is None:
        return "spikeloom", "", None
    rest = found[3]
    return found[1], found[2], None if rest is None else rest[1:]
