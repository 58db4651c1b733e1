"""Write packaging/lock/{build,run,dev,docs}.txt: the tested set with the hashes of every file of each release.

build: what builds packages that have no wheel. run: what spikeloom needs. dev: what its tests need beside that, docs:
what its manual needs beside both.

    python packaging/lock.py           # newest versions that pyproject.toml allows
    python packaging/lock.py keep      # those of this environment, which the tests ran on

What this needs is uv (`pip install uv`). torch, torchaudio and what only they bring are left out:
packaging/lock/torch.txt says why. Markers are universal: one file for every Python and platform.
"""

import re
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "packaging" / "lock"
OF_TORCH = re.compile(r"(torch|torchaudio|triton|nvidia-.*|cuda-.*)==")
HEADER = """\
# Written by `python packaging/lock.py`, read by packaging/install.py: every package with the hashes of all its files.
"""


def compiled(source: list[str], pins: Path, given: str = "") -> str:
    """The lock file of requirements, in uv's words."""
    command = [
        "uv", "pip", "compile", *source, "--universal", "--python-version", "3.11", "--generate-hashes", "--no-header",
        "--no-annotate", "--quiet", "--constraint", str(pins),
    ]  # fmt: skip
    done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"uv could not resolve {' '.join(source)}: {done.stderr.strip()}")
    return done.stdout


def packages(text: str) -> list[str]:
    """The blocks (a package and its indented hashes) of all packages but torch and what only it brings."""
    return [block for block in re.split(r"\n(?=\S)", text.strip()) if not OF_TORCH.match(block)]


def main(keep: bool) -> None:
    exempt = "".join((LOCK / name).read_text("utf-8") for name in ("torch.txt", "torch-dev.txt"))
    installed = [f"{package.metadata['Name']}=={package.version}" for package in distributions()]
    kept = "\n".join(line for line in installed if not OF_TORCH.match(line) and not re.match("(pip|spikeloom)==", line))
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "pins.txt"
        pins.write_text(exempt + (kept if keep else ""), encoding="utf-8")
        both = packages(compiled(["pyproject.toml", "--extra", "dev", "--extra", "docs"], pins))
        pins.write_text(exempt + "\n".join(block.split(" ")[0] for block in both), encoding="utf-8")
        dev = packages(compiled(["pyproject.toml", "--extra", "dev"], pins))
        run = packages(compiled(["pyproject.toml"], pins))
        build = packages(compiled(["-"], pins, "setuptools>=77\nwheel\n"))
    files, before = {"build": build}, set[str]()
    for name, blocks in (("run", run), ("dev", dev), ("docs", both)):
        files[name] = [block for block in blocks if block.split("==")[0] not in before]
        before |= {block.split("==")[0] for block in blocks}
    for name, blocks in files.items():
        (LOCK / f"{name}.txt").write_text(HEADER + "\n".join(blocks) + "\n", encoding="utf-8", newline="\n")
        print(f"packaging/lock/{name}.txt: {len(blocks)} packages")


if __name__ == "__main__":
    main(keep=sys.argv[1:] == ["keep"])
