"""The manual of a verb: every key with its default and what it means, for the choices that the command line makes.

Hydra composes it from the outlines of the dataclasses, so that it is what a run would have, in a fraction of a second.
"""

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from spikeloom.pipelines.config import declared
from spikeloom.pipelines.config.files import describe, groups
from spikeloom.pipelines.config.groups import GROUPS, UNNAMED, kind_key
from spikeloom.pipelines.config.register import VERBS, register

WIDTH = 118
KEY_WIDTH = 44


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One key of a verb, dotted, with its default in the grammar of the command line."""

    key: str
    default: str
    description: str


def composed(verb: str, overrides: Sequence[str], directory: str | None = None) -> tuple[DictConfig, dict[str, Any]]:
    """The configuration of a verb from outlines, not resolved, and the choices of its groups; change neither."""
    if directory is None:  # the files of `conf` do not change
        return _composed(verb, tuple(overrides))
    return _composed.__wrapped__(verb, tuple(overrides), directory)


@cache
def _composed(
    verb: str, overrides: tuple[str, ...], directory: str | None = None
) -> tuple[DictConfig, dict[str, Any]]:  # fmt: skip
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    register(outline=True)
    try:
        with initialize_config_module("spikeloom.conf", version_base="1.3"):
            more = [] if directory is None else [f"hydra.searchpath=['file://{directory}']"]
            config = compose(verb, overrides=[*overrides, *more], return_hydra_config=True)
            choices = {str(group): choice for group, choice in config.hydra.runtime.choices.items()}
        plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        return plain, choices
    finally:
        register()


def entries(verb: str, overrides: Sequence[str] = (), directory: str | None = None) -> list[Entry]:
    """Every key of a verb in the order of its dataclasses, groups last."""
    config, _ = composed(verb, overrides, directory)
    shape = declared.shape(f"pipelines.config.{VERBS[verb]}")
    return list(_entries(config, shape, ""))


def known_keys(verb: str, overrides: Sequence[str] = ()) -> list[str]:
    """Every key of a verb, dotted, nodes among them, with the choices of groups that `overrides` make."""
    known = groups()
    chosen = [o for o in overrides if (parts := o.partition("="))[0] in known and parts[2] in known[parts[0]]]
    config, _ = composed(verb, chosen)

    def walk(node: DictConfig, prefix: str) -> Iterator[str]:
        for name in map(str, node):
            yield f"{prefix}{name}"
            if not OmegaConf.is_missing(node, name) and isinstance(child := node._get_node(name), DictConfig):
                yield from walk(child, f"{prefix}{name}.")

    return list(walk(config, ""))


def text(verb: str, summary: str, overrides: Sequence[str] = (), directory: str | None = None) -> str:
    """The manual as it is printed."""
    config, choices = composed(verb, overrides, directory)
    found = list(_entries(config, declared.shape(f"pipelines.config.{VERBS[verb]}"), ""))
    known = {name: offered for name, offered in groups().items() if name in choices}
    parts = [
        f"spikeloom {verb}: {summary}",
        f"usage: spikeloom {verb} {'[group=choice …] ' if known else ''}[key=value …] [-m]",
    ]
    if known:
        lines = [wrapped(f"{name}={choices[name] or 'null'}", _offered(name, choices[name])) for name in known]
        parts.append(
            "\n".join([f"groups; `spikeloom {verb} group=choice --help` shows the keys of another choice", *lines])
        )
    lines = [wrapped(f"{entry.key}={entry.default}", entry.description) for entry in found]
    parts.append("\n".join(["keys, default values and what they mean", *lines]))
    if verb == "simulate":
        parts.append(_chips())
    return "\n\n".join(parts) + "\n"


def _offered(group: str, choice: Any) -> str:
    """What a choice is, and the others."""
    offered = groups()[group]
    others = ", ".join(name for name in offered if name != choice)
    return f"{describe(group, choice)} Others: {others}" if choice in offered else f"One of {others}"


def wrapped(left: str, right: str) -> str:
    """One key in a column, its description beside it, broken at the width of the page."""
    head = f"  {left:{KEY_WIDTH}s}" if len(left) < KEY_WIDTH else f"  {left}\n  {'':{KEY_WIDTH}s}"
    lines = textwrap.wrap(right, WIDTH - KEY_WIDTH - 4, break_on_hyphens=False) or [""]
    return f"\n  {'':{KEY_WIDTH}s}  ".join([f"{head}  {lines[0]}".rstrip(), *lines[1:]])


def _entries(node: DictConfig, shape: declared.Shape, prefix: str, group: str | None = None) -> Iterator[Entry]:
    for name in map(str, node):
        key = shape.keys.get(name)
        child = None if OmegaConf.is_missing(node, name) else node._get_node(name)
        inner = key.default if key is not None else None
        if not isinstance(inner, declared.Shape) and not prefix:
            inner = _shape_of(name, child)
        if isinstance(child, DictConfig) and isinstance(inner, declared.Shape):
            yield from _entries(child, inner, f"{prefix}{name}.", name if not prefix else None)
            continue
        description = "" if key is None else key.description
        if not description and group is not None and name == kind_key(group):
            description = f"which shape the keys of {group} have; choose another {group}=NAME instead"
        yield Entry(key=f"{prefix}{name}", default=_value(node, name), description=description)


def _shape_of(group: str, child: Any) -> declared.Shape | None:
    """The class of a group's choice, which its kind names."""
    if group not in GROUPS or not isinstance(child, DictConfig):
        return None
    kind = child.get(kind_key(group), UNNAMED.get(group))
    return declared.shape(GROUPS[group][kind]) if kind in GROUPS[group] else None


def _value(node: DictConfig, name: str) -> str:
    """A value as the command line would take it."""
    if OmegaConf.is_missing(node, name):
        return "(needed)"
    if OmegaConf.is_interpolation(node, name):
        return str(node._get_node(name)._value())  # type: ignore[union-attr]
    value = OmegaConf.to_container(child) if OmegaConf.is_config(child := node[name]) else child
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False).replace('"', "").replace(", ", ",").replace(": ", ":")
    return f"'{value}'" if isinstance(value, str) and " " in value else str(value)


def _chips() -> str:
    """The preset chips with one line each."""
    from spikeloom.pipelines.config.chips import presets

    listed = "\n".join(f"  {name:10s} {summary}" for name, summary in presets().items())
    return f"""chips (chip=NAME, or chip=FILE.yaml; chip.KEY=value changes a number, and -m sweeps over several)
{listed}

`spikeloom simulate conformance` compares the model with published figures."""
