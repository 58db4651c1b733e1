"""What is installed is what was tested: a locked set with hashes, an installer that refuses other files, a bill."""

import importlib.util
import json
import os
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "packaging" / "lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def script(name: str) -> ModuleType:
    """packaging/NAME.py, which is no module of the package."""
    spec = importlib.util.spec_from_file_location(f"supply_{name}", ROOT / "packaging" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(*files: str) -> dict[str, str]:
    """Canonical names and versions of lock files."""
    lines = [line for file in files for line in (LOCK / f"{file}.txt").read_text("utf-8").splitlines()]
    found = [re.match(r"([\w.-]+)==([^\s;]+)", line) for line in lines]
    return {canonical(m[1]): m[2] for m in found if m}


@pytest.mark.parametrize(
    ("files", "extra"),
    [(("run", "torch"), None), (("run", "dev", "torch"), "dev"), (("run", "dev", "docs", "torch"), "docs")],
)
def test_every_dependency_is_locked_within_its_bounds(files: tuple[str, ...], extra: str | None) -> None:
    wanted = [*PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] if extra else ())]
    versions, of_torch = pinned(*files), (LOCK / "torch-dev.txt").read_text("utf-8")
    needed = [Requirement(line) for line in wanted if line.split(";")[0] not in of_torch]
    outside = [str(need) for need in needed if Version(versions.get(canonical(need.name), "0")) not in need.specifier]
    assert outside == []


@pytest.mark.parametrize("file", ["build", "run", "dev", "docs"])
def test_every_locked_package_has_hashes(file: str) -> None:
    blocks = re.split(r"\n(?=\S)", (LOCK / f"{file}.txt").read_text("utf-8").strip())
    bare = [b.split()[0] for b in blocks if not b.startswith("#") and not re.search(r"--hash=sha256:[0-9a-f]{64}", b)]
    assert bare == [] and len(blocks) > 3


def test_the_lock_files_name_no_package_twice_for_one_python() -> None:
    text = "".join((LOCK / f"{file}.txt").read_text("utf-8") for file in ("run", "dev", "docs"))
    named = re.findall(r"^([\w.-]+)==[^\s;]+ *(; [^\\\n]+)?", text, re.MULTILINE)  # with the marker, if there is one
    assert len(named) > 200 and len({(canonical(name), marker) for name, marker in named}) == len(named)
    names = {canonical(name) for name, _ in named}
    assert not {name for name in names if name in ("torch", "torchaudio") or name.startswith(("nvidia-", "cuda-"))}


@pytest.mark.parametrize(
    ("failing", "said", "status", "asked", "printed"),
    [
        ("", "", 0, 4, ""),
        (
            "run.txt",
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE",
            1,
            2,
            "not the file that",
        ),
        (
            "run.txt",
            "ERROR: No matching distribution found for numpy",
            0,
            2,
            "No matching distribution found for numpy",
        ),
    ],
)
def test_another_file_stops_the_installation_and_another_platform_falls_back(
    failing: str, said: str, status: int, asked: int, printed: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    install, steps, fallback = script("install"), [], []

    def pip(*arguments: str) -> tuple[int, str]:
        steps.append(arguments)
        return (1, said) if failing and any(failing in a for a in arguments) else (0, "")

    monkeypatch.setattr(install, "pip", pip)
    monkeypatch.setattr(install, "pip_cache", lambda: tmp_path)
    monkeypatch.setattr(install.subprocess, "call", lambda command, **options: fallback.append(command) or 0)
    assert (install.main(["dev"]), len(steps)) == (status, asked)
    assert printed in capsys.readouterr().out and len(fallback) == (1 if failing and not status else 0)
    assert all("--require-hashes" in step for step in steps[:2])
    assert all(str(Path("packaging/lock/torch.txt")) in command for command in fallback), "torch stays the tested one"


def test_a_home_that_cannot_be_written_costs_only_the_cache_of_pip(tmp_path: Path, monkeypatch) -> None:
    install, file = script("install"), tmp_path / "file"
    file.touch()
    monkeypatch.setattr(install, "pip", lambda *arguments: (0, ""))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "")  # as it is again afterwards
    for name in ("PIP_CACHE_DIR", "XDG_CACHE_HOME", "PIP_NO_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(file))
    assert install.main([]) == 0 and os.environ["PIP_NO_CACHE_DIR"] == "1"
    monkeypatch.delenv("PIP_NO_CACHE_DIR")
    monkeypatch.setattr(install, "pip_cache", lambda: tmp_path / "cache")
    assert install.main([]) == 0 and "PIP_NO_CACHE_DIR" not in os.environ


def test_the_bill_of_materials_lists_everything_that_is_needed_with_its_licence(tmp_path: Path) -> None:
    script("sbom").main(tmp_path)
    bill = json.loads((tmp_path / "sbom.json").read_text("utf-8"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    named = {canonical(part["name"]): part for part in bill["components"]}
    assert {canonical(Requirement(line).name) for line in PROJECT["dependencies"]} <= set(named)
    known = {part["purl"] for part in (*named.values(), bill["metadata"]["component"])}
    assert {ref for edge in bill["dependencies"] for ref in (edge["ref"], *edge["dependsOn"])} == known
    licences = {name: json.dumps(part["licenses"]) for name, part in named.items()}
    assert [name for name, stated in licences.items() if "not stated" in stated] == []
    assert [name for name, stated in licences.items() if re.search(r"(?<!L)A?GPL", stated)] == []
    lines = (tmp_path / "licences.txt").read_text("utf-8").splitlines()
    assert len(lines) == len(named) + 1


def test_the_public_workflow_audits_the_locked_set() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert "pip-audit" in workflow and "packaging/lock/run.txt" in workflow
