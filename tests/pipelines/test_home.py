"""A home that is not there, or cannot be written, stops no verb: caches lie elsewhere, and go with the process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spikeloom._environment import CACHES, writable

NOWHERE = "/proc/nowhere"  # not even root makes a folder there
VERBS = """
from spikeloom.pipelines.cli import main
small = ["data.n_words=2", "data.n_speakers=3", "data.takes=1", "data.n_test_speakers=1", "data.n_valid_speakers=1"]
small += ["model.width=16", "model.heads=1", "trainer.epochs=1"]
main(["train", "experiment=spikescr_synthetic", *small, "run=run"])
main(["export", "run=run", "batches=1", "batch_size=2"])
main(["simulate", "workload=run/export/workload.json"])
main(["listen", "run=builtin:fsdd", "wav=words.wav"])
"""
pytestmark = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write")


def homeless(program: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in (*CACHES, "SPIKELOOM_CACHE")}
    without = {"HOME": NOWHERE, "XDG_CACHE_HOME": "", "TMPDIR": str(folder / "tmp"), **environment}
    (folder / "tmp").mkdir()
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env={**kept, **without}, capture_output=True, text=True
    )


def test_without_a_home_caches_lie_in_a_folder_that_goes_with_the_process(tmp_path: Path) -> None:
    program = (
        "import os\nfrom spikeloom._environment import CACHES, prepare\nprepare()\n"
        "(folder,) = {os.environ[name] for name in CACHES}\nassert os.access(folder, os.W_OK)\nprint(folder)"
    )
    ended = homeless(program, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert Path(ended.stdout.strip()).parent == tmp_path / "tmp" and not Path(ended.stdout.strip()).exists()


def test_a_home_that_can_be_written_stays_the_place_of_caches(tmp_path: Path) -> None:
    program = "import os\nimport spikeloom\nprint([name for name in ('NUMBA_CACHE_DIR',) if name in os.environ])"
    assert homeless(program, tmp_path, HOME=str(tmp_path)).stdout == "[]\n"
    assert (
        writable(str(tmp_path / "not" / "made"))
        and not writable(f"{NOWHERE}/cache")
        and not any(path.name.startswith(".spikeloom") for path in tmp_path.iterdir())
    )


@pytest.mark.slow
def test_verbs_run_without_a_home(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "words.wav", 0.1 * np.random.default_rng(0).standard_normal(8000), 8000)
    ended = homeless(VERBS, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run/report.html").exists() and (tmp_path / "run/sim/report.json").exists()
