"""Reading one wav file into a float32 mono array at a wished rate, and refusing the files that would train in silence.

A truncated download, an empty file or a NaN does not stop a training run by itself: the decoder returns what it finds
and the model learns from it. Here each of these is an error that names the file, the problem and the remedy. What this
module does not do: decode compressed formats, keep channels apart, or normalise levels.
"""

import logging
import struct
from math import gcd
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

_said: set[tuple[int, int, int]] = set()  # (rate found, rate wanted, channels): each kind of conversion is said once


class AudioError(ValueError):
    """A wav file that cannot be used; the message names the file, the problem and the remedy in one line."""


def read_wav(path: str | Path, sample_rate_hz: int) -> np.ndarray:
    """Read a wav file as float32 `[samples]` in [-1, 1] at `sample_rate_hz`.

    Several channels are averaged and other rates are resampled (polyphase FIR); the first file of each kind is logged.
    Raises `AudioError` for a file that is missing, unreadable, truncated, without samples, or holds NaN or infinity.
    """
    import soundfile

    path = Path(path)
    if not path.is_file():
        raise AudioError(f"{path}: no such file; check the path or the dataset's file list")
    _require_whole_riff(path)
    try:
        samples, found_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"{path}: not a readable wav file ({error}); copy or download it again") from error
    if len(samples) == 0:
        raise AudioError(f"{path}: holds no samples; remove it or download it again")
    if not np.isfinite(samples).all():
        bad = int(np.count_nonzero(~np.isfinite(samples)))
        raise AudioError(f"{path}: {bad} samples are NaN or infinite; repair the file or remove it")
    n_channels = samples.shape[1]
    mono = samples.mean(axis=1, dtype=np.float32) if n_channels > 1 else samples[:, 0]
    _say_once(path, found_hz, sample_rate_hz, n_channels)
    return np.ascontiguousarray(np.clip(resample(mono, found_hz, sample_rate_hz), -1.0, 1.0), dtype=np.float32)


def resample(waveform: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample `[samples]` by the reduced ratio to_hz / from_hz with a polyphase FIR; the length is ceil(n * ratio)."""
    if from_hz == to_hz:
        return waveform
    from scipy.signal import resample_poly

    common = gcd(from_hz, to_hz)
    return resample_poly(waveform, to_hz // common, from_hz // common).astype(np.float32)


def _say_once(path: Path, found_hz: int, wanted_hz: int, n_channels: int) -> None:
    kind = (found_hz, wanted_hz, n_channels)
    if kind in _said:
        return
    changes = []
    if found_hz != wanted_hz:
        changes.append(f"resampled {found_hz} -> {wanted_hz} Hz")
    if n_channels > 1:
        changes.append(f"{n_channels} channels averaged")
    if changes:
        _said.add(kind)
        log.warning("%s: %s (said once for files of this kind)", ", ".join(changes), path)


def _require_whole_riff(path: Path) -> None:
    """Compare the size the `data` chunk promises with the bytes there are: decoders return fewer frames silently."""
    size = path.stat().st_size
    if size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes); remove it or download it again")
    with path.open("rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
            raise AudioError(f"{path}: not a RIFF/WAVE file (starts with {head[:4]!r}); convert it to PCM wav")
        while len(header := file.read(8)) == 8:
            name, n_bytes = struct.unpack("<4sI", header)
            if name == b"data":
                present = size - file.tell()
                # Writers to a pipe leave 0 or 0xFFFFFFFF; such a file promises nothing, so nothing can be missing.
                if n_bytes not in (0, 0xFFFFFFFF) and present < n_bytes:
                    raise AudioError(
                        f"{path}: truncated, the header promises {n_bytes} bytes of samples and {present} are there; "
                        "copy or download it again"
                    )
                return
            file.seek(n_bytes + n_bytes % 2, 1)  # chunks are padded to an even size
    raise AudioError(f"{path}: has no data chunk (truncated header); copy or download it again")
