"""What libraries beside spikeloom find in the environment: no telemetry, and caches that can be written.

Values that a user has set stay. A leaf that imports nothing large: it runs at `import spikeloom`.
"""

import os

# Nothing is sent anywhere; onnxruntime, which torchmetrics imports, Flower and the hub client ask by these names.
SILENT = {"ORT_DISABLE_TELEMETRY": "1", "FLWR_TELEMETRY_ENABLED": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
# librosa and MNE keep what numba compiles, and do not import where it cannot be kept; matplotlib warns.
CACHES = ("NUMBA_CACHE_DIR", "MPLCONFIGDIR")


def prepare() -> None:
    """Switch telemetry off; where the home cannot be written, give caches a folder that this process removes."""
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    missing = [name for name in CACHES if name not in os.environ]
    if missing and not writable(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")):
        import atexit
        import shutil
        import tempfile

        try:
            folder = tempfile.mkdtemp(prefix="spikeloom-")
        except OSError:
            return  # nowhere to write: who needs a cache will say so
        owner = os.getpid()
        atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
        os.environ.update(dict.fromkeys(missing, folder))


def writable(folder: str) -> bool:
    """Whether a folder can be written, or made where it is missing; leaves nothing."""
    while not os.path.isdir(folder):
        above = os.path.dirname(folder)
        if above == folder:
            return False
        folder = above
    probe = os.path.join(folder, f".spikeloom-{os.getpid()}")
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(probe)
    except OSError:
        return False
    return True
