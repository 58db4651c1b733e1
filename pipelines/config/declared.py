"""The keys of a configuration's dataclasses, read from their source: name, type, default and description.

`spikeloom VERB --help` and shell completion need the keys of models and data sets, and importing those brings torch
along, which takes seconds. A dataclass says everything in its source: this module parses it and evaluates the default
values with the names they use, which may stand in other modules of ours or in Python's library. NotDeclared
is raised for a value that needs anything else.

A key is described by the comment that ends its line, by the comment lines above it, or by `key: text` in the
docstring of its class.
"""

import ast
import builtins
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spikeloom.pipelines.config.groups import GROUPS

MISSING = "???"  # the mandatory value of OmegaConf


class NotDeclared(ValueError):
    """A value or class whose source does not say what it is."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """One field of a dataclass. `default` is a plain value, or a `Shape` where the field holds a dataclass."""

    name: str
    annotation: str
    default: Any
    description: str


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A dataclass with the default values of one place where it is used."""

    path: str  # module:Class
    keys: dict[str, Key] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """The defaults as plain values, nested."""
        return {
            name: key.default.values() if isinstance(key.default, Shape) else key.default
            for name, key in self.keys.items()
        }

    def __call__(self, *positional: Any, **named: Any) -> "Shape":
        """The same class with other default values, as its constructor takes them."""
        given = dict(zip(self.keys, positional, strict=False)) | named
        return replace(self, keys={n: replace(k, default=given.get(n, k.default)) for n, k in self.keys.items()})


def shape(path: str) -> Shape:
    """The keys of the dataclass `module:Class`, `module` below `spikeloom`; or of what a function there returns."""
    module, _, name = path.partition(":")
    found = _module(f"spikeloom.{module}").value(name)
    made = found() if isinstance(found, _Function) else found
    if not isinstance(made, Shape):
        raise NotDeclared(f"{path} is no dataclass, and no function that returns one")
    return made


class _Function:
    """A function without arguments that does nothing but return a value."""

    def __init__(self, module: "_Module", node: ast.FunctionDef) -> None:
        self.module, self.node = module, node

    def __call__(self) -> Any:
        returned = [s.value for s in self.node.body if isinstance(s, ast.Return) and s.value is not None]
        if len(returned) != 1:
            raise NotDeclared(f"{self.node.name} has {len(returned)} return statements")
        return self.module.evaluate(returned[0])


class _Module:
    """A source file: its names, each evaluated when it is asked for."""

    def __init__(self, name: str) -> None:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise NotDeclared(f"no source of {name}")
        self.name = name
        text = Path(spec.origin).read_text("utf-8")
        self.nodes: dict[str, ast.stmt] = {}
        self.imports: dict[str, tuple[str, str | None]] = {}  # name -> module, name in it
        for node in ast.parse(text).body:
            self._note(node)
        self.comments = dict(_comments(text))  # line -> text, whether it is alone on the line

    def _note(self, node: ast.stmt) -> None:
        if isinstance(node, ast.ImportFrom) and node.module:
            self.imports |= {a.asname or a.name: (node.module, a.name) for a in node.names}
        elif isinstance(node, ast.Import):
            self.imports |= {a.asname or a.name.split(".")[0]: (a.name, None) for a in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            self.nodes[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            self.nodes[node.target.id] = node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                    if isinstance(name, ast.Name):
                        self.nodes[name.id] = node

    def value(self, name: str) -> Any:
        """What `name` stands for: a plain value, a `Shape`, or a function."""
        if name in self.nodes:
            node = self.nodes[name]
            if isinstance(node, ast.ClassDef):
                return _class(self.name, name)
            if isinstance(node, ast.FunctionDef):
                return _Function(self, node)
            assert isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                names = [n.id for n in node.targets[0].elts if isinstance(n, ast.Name)]
                return self.evaluate(node.value)[names.index(name)]
            return self.evaluate(node.value)
        if name in self.imports:
            module, inner = self.imports[name]
            if (module, inner) == ("omegaconf", "MISSING"):
                return MISSING
            if module.startswith("spikeloom"):
                return _module(module).value(inner) if inner else _module(module)
            if module.split(".")[0] in sys.stdlib_module_names:
                found = import_module(module)
                return getattr(found, inner) if inner else found
        raise NotDeclared(f"{self.name}: {name}")

    def evaluate(self, node: ast.expr) -> Any:
        """The value of an expression of this file, with the names that it uses."""
        return eval(compile(ast.Expression(node), self.name, "eval"), _Names(self))


class _Names(dict[str, Any]):
    """The names of a module, for `eval`, which looks up in it what Python's own names do not answer."""

    def __init__(self, module: _Module) -> None:
        super().__init__()
        self.module = module

    def __missing__(self, name: str) -> Any:
        imported = self.module.imports.get(name)
        if imported == ("dataclasses", "field"):
            return _field
        if imported == ("spikeloom.pipelines.config.groups", "default"):
            return lambda group, kind: lambda: shape(GROUPS[group][kind])
        if name not in self.module.nodes and imported is None and hasattr(builtins, name):
            return getattr(builtins, name)
        return self.module.value(name)


def _field(*, default: Any = MISSING, default_factory: Any = None, init: bool = True) -> Any:
    """`dataclasses.field`, evaluated."""
    return default if default_factory is None else default_factory()


@cache
def _module(name: str) -> _Module:
    return _Module(name)


@cache
def _class(module: str, name: str) -> Shape:
    """A dataclass of a module, with the fields of its bases first, as dataclasses order them."""
    of = _module(module)
    node = of.nodes[name]
    assert isinstance(node, ast.ClassDef)
    keys: dict[str, Key] = {}
    for base in reversed(node.bases):
        if isinstance(base, ast.Name) and (inherited := _base(of, base.id)) is not None:
            keys |= inherited.keys
    documented = " ".join((ast.get_docstring(node) or "").split())
    fields = [s for s in node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
    fields = [s for s in fields if "ClassVar" not in ast.unparse(s.annotation) and _initialised(s)]
    names = {s.target.id for s in fields if isinstance(s.target, ast.Name)} | set(keys)
    for inherited_name, key in keys.items():
        if text := _documented(documented, inherited_name, names):
            keys[inherited_name] = replace(key, description=text)
    for statement in fields:
        assert isinstance(statement.target, ast.Name)
        key_name = statement.target.id
        keys[key_name] = Key(
            name=key_name,
            annotation=ast.unparse(statement.annotation),
            default=MISSING if statement.value is None else _plain(of.evaluate(statement.value)),
            description=_comment(of.comments, statement) or _documented(documented, key_name, names)
            or (keys[key_name].description if key_name in keys else ""),
        )  # fmt: skip
    return Shape(path=f"{module.removeprefix('spikeloom.')}:{name}", keys=keys)


def _plain(value: Any) -> Any:
    """A default as YAML has it."""
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _base(of: _Module, name: str) -> Shape | None:
    """The dataclass a class inherits from, if that is one of ours."""
    module = of.imports.get(name, (of.name, name))[0]
    return of.value(name) if name in of.nodes or module.startswith("spikeloom") else None


def _initialised(statement: ast.AnnAssign) -> bool:
    """Whether a field is an argument of the constructor."""
    return not (isinstance(statement.value, ast.Call) and "init=False" in ast.unparse(statement.value))


def _comments(text: str) -> Iterator[tuple[int, tuple[str, bool]]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(("# fmt:", "# type:", "# noqa")):
            yield token.start[0], (token.string.lstrip("# "), not token.line[: token.start[1]].strip())


def _comment(comments: dict[int, tuple[str, bool]], statement: ast.AnnAssign) -> str:
    """The comment that ends a field's lines, else the comment lines right above it."""
    ending = [comments[n][0] for n in range(statement.lineno, (statement.end_lineno or 0) + 1) if n in comments]
    if ending:
        return " ".join(ending)
    above: list[str] = []
    line = statement.lineno - 1
    while line in comments and comments[line][1]:
        above.insert(0, comments[line][0])
        line -= 1
    return " ".join(above)


def _documented(text: str, name: str, names: set[str]) -> str:
    """What a docstring says after `name:`, up to the next key that it describes."""
    found = re.search(rf"(?:^|[\s`(]){name}`?(?:, \w+)*: (.*)", text)
    if found is None:
        return ""
    others = "|".join(sorted(names, key=len, reverse=True))
    return re.split(rf"\s+(?:(?:{others})(?:, \w+)*:|Raises) ", found[1])[0].rstrip(" .,;")
