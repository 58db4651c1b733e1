"""liblsl without its chatter: it prints its network interfaces and versions unless a file tells it not to."""

import atexit
import os
import tempfile
from pathlib import Path

FATAL_ONLY = "[log]\nlevel = -3\n"  # streams that break off are reported by the caller


def quiet_lsl() -> None:
    """Ask liblsl and mne-lsl for fatal errors only; before the library is loaded. A user's own LSLAPICFG stays."""
    if "LSLAPICFG" not in os.environ:
        try:
            with tempfile.NamedTemporaryFile(
                "w", prefix="spikeloom-lsl-", suffix=".cfg", delete=False, encoding="utf-8"
            ) as file:
                file.write(FATAL_ONLY)
        except OSError:  # nowhere to write: it talks, and works
            pass
        else:
            os.environ["LSLAPICFG"] = file.name
            atexit.register(Path(file.name).unlink, missing_ok=True)
    try:
        from mne_lsl import set_log_level
    except (ImportError, OSError, RuntimeError):
        return
    set_log_level("ERROR")
