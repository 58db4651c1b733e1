"""Archives, virtual environments and wheels made for tests, without downloading packages that are installed."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("SPIKELOOM", "PYTHON"))}

OFFLINE = ("No matching distribution found", "Could not find a version", "Failed to establish a new connection")


def copy_of_checkout(folder: Path) -> Path:
    """The checkout in `folder`, so that no build leaves anything in the checkout or finds what another left there."""
    left_out = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "*.egg-info", "build", "dist", "runs")
    return Path(shutil.copytree(ROOT, folder / "checkout", ignore=left_out))


def wheel_of(source: Path, folder: Path) -> Path:
    """The wheel of a checkout or an unpacked source archive, built into `folder`."""
    isolation = ["--no-build-isolation"] if find_spec("setuptools") else []
    return built(folder, "pip", "wheel", "--no-deps", *isolation, "-w", ".", str(source))


def built(folder: Path, *command: str) -> Path:
    """The archive that `python -m COMMAND` leaves in `folder`; a skip where its build backend cannot be had."""
    command = (sys.executable, "-m", *command)
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    if done.returncode and any(reason in done.stdout + done.stderr for reason in OFFLINE):
        pytest.skip("setuptools is neither installed nor to be had from the package index")
    assert done.returncode == 0, done.stderr
    return next(folder.glob("spikeloom-*"))


def site_folders() -> list[str]:
    """The folders that the packages of this environment are imported from."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


def fresh_venv(folder: Path) -> Path:
    """The interpreter of a new environment that sees the packages of this one behind its own."""
    venv.create(folder, with_pip=False, symlinks=True)
    own = next(folder.glob("lib/python*/site-packages"))
    # Folders named in a .pth are searched, their own .pth files are not read: an editable install stays out of sight.
    (own / "zz_shared.pth").write_text("\n".join(site_folders()) + "\n", encoding="utf-8")
    return folder / "bin" / "python"


def pip(python: Path, *arguments: str) -> None:
    """Run this environment's pip on that of `python`; nothing is fetched."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def write_wheel(folder: Path, name: str, source: str) -> Path:
    """A pure wheel of one package `name` whose __init__.py is `source`, with an empty module `cli` and a train.yaml."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}/__init__.py": source,
        f"{name}/cli.py": "",
        f"{name}/train.yaml": "stranger: true\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},sha256={_digest(text)},{len(text)}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_in_wheel, text in files.items():
            archive.writestr(name_in_wheel, text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
