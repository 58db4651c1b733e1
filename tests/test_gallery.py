"""The gallery of examples: all are on its page, their commands compose, and (slow) each runs in an empty folder."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spikeloom.pipelines.cli import arguments
from spikeloom.pipelines.config.composition import launch

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples/gallery").glob("[!_]*.py"))
NEEDS = {"nir_and_onnx_out": ("onnx", "onnxruntime", "onnxscript", "nir")}


def commands(program: ast.Module) -> list[list[str]]:
    """The argument lists of every `main([...])`; names of lists are filled in, f-strings with 1."""
    lists = {
        target.id: node.value
        for node in program.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
        for target in node.targets if isinstance(target, ast.Name)
    }  # fmt: skip

    def words(node: ast.expr) -> list[str]:
        if isinstance(node, ast.List):
            return [word for part in node.elts for word in words(part)]
        if isinstance(node, ast.Starred):
            return words(lists[node.value.id] if isinstance(node.value, ast.Name) else node.value)
        if isinstance(node, ast.JoinedStr):
            return ["".join(part.value if isinstance(part, ast.Constant) else "1" for part in node.values)]
        assert isinstance(node, ast.Constant), ast.dump(node)
        return [node.value]

    return [
        words(node.args[0])
        for node in ast.walk(program)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "main"
    ]


def test_the_page_of_the_gallery_shows_every_example_and_no_other() -> None:
    shown = re.findall(r"^@example (\w+)$", (ROOT / "docs/gallery.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(shown) == [file.stem for file in EXAMPLES] and len(shown) >= 10


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_compiles_says_what_it_shows_and_its_commands_compose(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = ast.parse(file.read_text("utf-8"))
    compile(program, file.name, "exec")
    assert ast.get_docstring(program)
    for verb, *rest in commands(program):
        options, overrides = arguments(verb, rest)
        composed: list[Any] = []
        launch(verb, options, overrides, composed.append, None)
        assert len(composed) == 1, (verb, rest)


@pytest.mark.slow
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_runs_in_an_empty_folder(file: Path, tmp_path: Path) -> None:
    for name in NEEDS.get(file.stem, ()):
        pytest.importorskip(name)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPIKELOOM_DATA": str(tmp_path / "none")}
    run = subprocess.run(
        [sys.executable, file], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.strip()
