"""Every reader of foreign files is fuzzed: whole files are read, mutated ones refused in a line, in bounded time."""

import ast
import contextlib
import functools
import io
import lzma
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.fuzz.batch import GOOD, lay, mutants, run, whole_cases
from tests.fuzz.parser import SPECIAL, Case, judge
from tests.fuzz.table import EXEMPT, PARSERS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("accel", "bci", "speech", "vision", "pipelines", "spikeloom")
CORPUS = Path(__file__).with_name("corpus")
INPUTS, SECONDS = 200, 0.05  # of each parser here; `make fuzz` has minutes
# Calls by which content of a file enters a program.
OPENS = re.compile(
    r"(?:^|\.)(?:read_(?:text|bytes|json|object|yaml|csv|numbers|gzip|bpe)|parse_yaml|open|fromfile|safe_open|load_file"
    r"|File|SoundFile|ZipFile|genops|from_file|from_pretrained|DictReader|loadmat)$"
    r"|^(?:np|torch|json|yaml|nir|onnx|OmegaConf|torch\.export)\.(?:load|loads|safe_load|scan|read)$"
)
ENDS = re.compile("read|Read|open|file|File|load|genops|from_|parse_yaml|scan")  # of their names: most calls have none
WRITES = re.compile(r"""['"](?:[wax]b?|r\+b)['"]""")


tree = functools.cache(ast.parse)


def sites(source: str) -> set[str]:
    """Names of the functions that hold a call by which a file may be read."""
    found = set[str]()

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        called = node.func if isinstance(node, ast.Call) else None
        end = getattr(called, "attr", getattr(called, "id", ""))
        if isinstance(node, ast.Call) and ENDS.search(end) and OPENS.search(name := ast.unparse(node.func)):
            arguments = [ast.unparse(a) for a in (*node.args, *(k.value for k in node.keywords))]
            writes = name.endswith(("open", "File", "ZipFile")) and any(WRITES.fullmatch(a) for a in arguments)
            if not writes and not name.startswith(("os.", "Image.new")):
                found.add(function)
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(tree(source), "")
    return found


def all_sites() -> set[str]:
    files = [f for package in PACKAGES for f in (ROOT / package).rglob("*.py")]
    return {f"{f.relative_to(ROOT).as_posix()}:{name}" for f in files for name in sites(f.read_text("utf-8"))}


def test_every_function_that_reads_a_file_is_fuzzed_or_says_why_not() -> None:
    found, covered = all_sites(), {site for parser in PARSERS.values() for site in parser.covers}
    assert len(found) > 60, "the readers were not found"
    assert sorted(found - covered - set(EXEMPT)) == []


def test_no_entry_is_out_of_date() -> None:
    defined = {
        f"{f.relative_to(ROOT).as_posix()}:{node.name}"
        for package in PACKAGES
        for f in (ROOT / package).rglob("*.py")
        for node in ast.walk(tree(f.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    named = {site for parser in PARSERS.values() for site in parser.covers} | set(EXEMPT)
    assert sorted(named - defined - {s for s in EXEMPT if s.endswith(":")}) == []


def test_a_reader_that_nobody_registered_is_found() -> None:
    planted = "def f(p):\n  return p.read_text()\ndef g(p):\n  with p.open('wb') as file: file.write(b'')\n"
    assert sites(planted) == {"f"} and f"{'x.py'}:f" not in EXEMPT


@contextlib.contextmanager
def called() -> Iterator[set[str]]:
    """The functions of the product that run inside the block."""
    seen = set[str]()
    codes = set[Any]()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code not in codes:
            codes.add(frame.f_code)
            with contextlib.suppress(ValueError):
                path = Path(frame.f_code.co_filename).resolve().relative_to(ROOT).as_posix()
                seen.add(f"{path}:{frame.f_code.co_name}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("name", PARSERS)
def test_whole_files_are_right_and_mutated_ones_right_or_one_line(name: str, tmp_path: Path) -> None:
    parser, found = PARSERS[name], tmp_path / "found"
    cases = whole_cases(parser, tmp_path / "whole")
    with called() as seen, contextlib.redirect_stdout(io.StringIO()):
        for number, case in enumerate(cases):
            lay(case, tmp_path / str(number))
            assert judge(parser, tmp_path / str(number)).outcome == "right"
    assert set(parser.covers) <= seen, "the whole files do not reach all that the parser says it covers"
    found.mkdir()
    counts = run(parser, mutants(parser, cases), INPUTS, SECONDS, found)
    told = [f.read_text("utf-8") for f in sorted(found.rglob("*.txt"))]
    assert counts.inputs > 0 and counts.kinds == {} and told == [], told


def corpus(folder: Path) -> Case:
    """A case of the corpus; what ends in .xz is unpacked."""
    files = {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
    return {n.removesuffix(".xz"): lzma.decompress(c) if n.endswith(".xz") else c for n, c in files.items()}


@pytest.mark.parametrize("name", sorted(folder.name for folder in CORPUS.iterdir()))
def test_inputs_that_once_did_harm_do_none(name: str, tmp_path: Path) -> None:
    cases = [corpus(folder) for folder in sorted((CORPUS / name).iterdir())]
    counts = run(PARSERS[name], cases.__getitem__, len(cases), 300, tmp_path)
    told = [f.read_text("utf-8") for f in sorted(tmp_path.rglob("*.txt"))]
    assert counts.inputs == len(cases) == sum(counts.outcomes[o] for o in GOOD), told


@pytest.mark.parametrize("name", ["split_folder", "eyelink", "zuco_matlab5", "nir", "workload_json", "idx", "wav"])
def test_what_is_no_file_is_one_line(name: str, tmp_path: Path) -> None:
    """A folder, pipe, device or link in a file's place; the mutations put them there for every parser."""
    parser = PARSERS[name]
    case = whole_cases(parser, tmp_path / "whole")[0]
    file = next(iter(case))
    cases = [{**case, file: special} for special in SPECIAL]
    counts = run(parser, cases.__getitem__, len(cases), 300, tmp_path)
    assert counts.outcomes == {"refused": len(cases)}, counts
