"""liblsl without its chatter: it prints its network interfaces and versions unless a file tells it not to."""

import os
import tempfile
from pathlib import Path

FATAL_ONLY = "[log]\nlevel = -3\n"  # streams that break off are reported by the caller


def quiet_lsl() -> None:
    """Ask liblsl and mne-lsl for fatal errors only; before the library is loaded. A user's own LSLAPICFG stays."""
    if "LSLAPICFG" not in os.environ:
        path = Path(tempfile.gettempdir()) / f"spikeloom-lsl-{os.getpid()}.cfg"
        path.write_text(FATAL_ONLY, encoding="utf-8")
        os.environ["LSLAPICFG"] = str(path)
        import atexit

        atexit.register(path.unlink, missing_ok=True)
    try:
        from mne_lsl import set_log_level
    except (ImportError, OSError, RuntimeError):
        return
    set_log_level("ERROR")
