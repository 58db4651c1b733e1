"""Install spikeloom editable into the environment of this Python, from the locked set where it fits: `make` calls this.

    python packaging/install.py [dev [docs]]

Every file is compared with packaging/lock; torch and torchaudio come last, without hashes (packaging/lock/torch.txt).
Where the locked set does not fit (another platform, Python or index), one line says so and pip resolves within the
bounds of pyproject.toml, torch staying the tested release: a newer one may be a build of gigabytes. A file whose hash
differs is never installed: that stops. A home that cannot be written is no obstacle: pip's cache is then left out.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = Path("packaging") / "lock"
DIFFERS = "DO NOT MATCH THE HASHES"  # in pip's words


def pip(*arguments: str) -> tuple[int, str]:
    """Exit status and messages of a quiet `pip install`."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, (done.stderr + done.stdout).strip()


def can_be_written(folder: Path) -> bool:
    """Whether files can be made in `folder`, which is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def pip_cache() -> Path:
    """Where pip keeps what it downloads and builds, from what it says itself; it fails where it may not write there."""
    command = [sys.executable, "-m", "pip", "cache", "dir"]
    return Path(subprocess.run(command, capture_output=True, text=True).stdout.strip() or os.devnull)


def steps(extras: Sequence[str]) -> list[tuple[str, ...]]:
    """What pip is asked for, in order. Packages without a wheel are built by the setuptools of the locked set."""
    checked = ("--require-hashes", "--no-deps", "--no-build-isolation")
    return [
        (*checked, "-r", str(LOCK / "build.txt")),
        (*checked, *requirements(*extras, "run")),
        requirements("torch", *(["torch-dev"] if "dev" in extras else [])),
        ("--no-deps", "--no-build-isolation", "-e", "."),
    ]


def requirements(*names: str) -> tuple[str, ...]:
    """Options of pip for files of packaging/lock."""
    return tuple(word for name in names for word in ("-r", str(LOCK / f"{name}.txt")))


def main(extras: Sequence[str]) -> int:
    if list(extras) not in ([], ["dev"], ["dev", "docs"]):
        print(f"spikeloom: got {' '.join(extras)}; use `python packaging/install.py [dev [docs]]`")
        return 2
    if not can_be_written(pip_cache()):
        os.environ["PIP_NO_CACHE_DIR"] = "1"
    for arguments in steps(extras):
        status, said = pip(*arguments)
        if DIFFERS in said:
            print(f"{said}\nspikeloom: a download is not the file that was tested; nothing of it was installed")
            return 1
        if status:
            reason = (said.splitlines() or ["no reason given"])[-1]
            print(f"spikeloom: {' '.join(arguments[-2:])} does not fit here ({reason}); installing by pyproject.toml")
            return subprocess.call(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--no-compile",
                    "-c",
                    str(LOCK / "torch.txt"),
                    "-e",
                    f".[{','.join(extras)}]" if extras else ".",
                ],
                cwd=ROOT,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
