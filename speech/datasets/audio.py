"""One recording as a float32 mono array at a given rate; files that would mislead in silence are refused.

Every format of libsndfile is read: wav (RIFF, RIFX, RF64), FLAC, Ogg Vorbis, Opus, MP3, AIFF, AU, CAF and more. A
truncated download, an empty file or a NaN does not stop a training run by itself: the decoder returns what it finds and
the model learns from it. Here each of these is an error that names the file, the problem and the remedy. What is no
error but changes the samples is counted in `changes`:

    another rate          resampled: polyphase FIR, or soxr for ratios of large numbers
    several channels      averaged, the silent ones left out; where the average cancels, the loudest channel alone
    beyond full scale     floats of integer range are divided by 2^15 or 2^31, smaller ones kept: nothing is clipped
    32-bit integers       that hold 16-bit values are multiplied by 2^16
    length not written    by an encoder that could not go back: read to the end
    nothing to hear       all samples equal, or less than 10 ms

`stream_audio` reads recordings of any length in blocks, in bounded memory.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.accel.common.changes import changes
from spikeloom.speech.datasets.riff import PLACEHOLDER_FROM, AudioError, open_wav

ENDINGS = frozenset(
    f".{name}"
    for name in (
        "wav",
        "wave",
        "flac",
        "ogg",
        "oga",
        "opus",
        "mp3",
        "aif",
        "aiff",
        "aifc",
        "au",
        "snd",
        "caf",
        "w64",
        "rf64",
    )
)
RATES_HZ = (1_000, 384_000)
LARGEST_CLIP = 100_000_000  # samples of all channels of a clip that is read whole: 400 MB
SHORTEST_S = 0.01
INAUDIBLE = 1e-3  # of the loudest channel's root mean square: a silent channel
OVERSHOOT = 16.0  # floats up to here are sound beyond full scale (24 dB); beyond, they are integers
LARGE_RATIO = 2_000  # terms of a ratio of rates beyond which the polyphase filter grows too long
BLOCK = 1 << 16  # frames of a streamed block
UNWRITTEN = 1 << 48  # frames from here on stand for a length that the encoder did not write
PROMISED = re.compile(r"^ *(?:SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)", re.MULTILINE)  # in libsndfile's log
FOREIGN = {b"version https://git-lfs": "a Git LFS pointer", b"<!doctype": "a web page", b"<html": "a web page"}


def read_audio(path: str | Path, sample_rate_hz: int) -> np.ndarray:
    """One recording as float32 `[samples]` at `sample_rate_hz`.

    Args:
        path: file in any format of libsndfile.
        sample_rate_hz: rate of the result; other rates are resampled.

    Returns: float32 `[samples]`, full scale ±1.

    Raises: `AudioError` for a file that is missing, unreadable, truncated, without samples, longer than `LARGEST_CLIP`
    samples, of an impossible rate, or with NaN or infinity.
    """
    path = Path(path)
    with opened(path) as (file, repairs):
        promised = file.frames if file.frames < UNWRITTEN else None
        if promised and promised * file.channels > LARGEST_CLIP:
            raise too_long(path, promised, file)
        blocks, frames = [np.zeros((0, file.channels), np.float32)], 0
        for block in _blocks(path, file):
            blocks.append(block)
            frames += len(block)
            if frames * file.channels > LARGEST_CLIP:
                raise too_long(path, frames, file)
        samples = np.concatenate(blocks)
        if promised and frames < promised:
            if file.format != "MP3":
                raise AudioError(
                    f"{path}: truncated, the header promises {promised} frames and {frames} are there; "
                    "copy or download it again"
                )
            if frames < promised - file.samplerate // 10:  # the header of an MP3 gives an estimate
                repairs.append("an MP3 shorter than its header says: maybe truncated")
        found_hz, subtype = file.samplerate, file.subtype
    if frames == 0:
        raise AudioError(f"{path}: holds no samples; remove it or download it again")
    scale, scaled = full_scale(float(np.abs(samples).max()), subtype, path)
    weights, mixed = mixing(samples.var(0, dtype=np.float64), float(samples.mean(1, dtype=np.float64).var()))
    mono = (samples @ weights * scale).astype(np.float32)
    for kind in (*repairs, scaled, mixed, _unheard(mono, found_hz)):
        if kind:
            changes.add(kind, path)
    if found_hz != sample_rate_hz:
        changes.add(f"resampled from {found_hz:,} to {sample_rate_hz:,} Hz", path)
    return np.ascontiguousarray(resample(mono, found_hz, sample_rate_hz), dtype=np.float32)


def stream_audio(path: str | Path, sample_rate_hz: int) -> Iterator[np.ndarray]:
    """A recording of any length as blocks float32 `[n]` at `sample_rate_hz`, in bounded memory.

    The file is read twice: levels and channels are decided from all of it, as in `read_audio`, whose errors it raises.
    """
    path = Path(path)
    with opened(path) as (file, repairs):
        peak, frames = 0.0, 0
        total, power, mean_power = np.zeros(file.channels), np.zeros(file.channels), 0.0
        for block in _blocks(path, file):
            frames += len(block)
            peak = max(peak, float(np.abs(block).max()))
            total += block.sum(0, dtype=np.float64)
            power += (block.astype(np.float64) ** 2).sum(0)
            mean_power += float((block.mean(1, dtype=np.float64) ** 2).sum())
        if frames == 0:
            raise AudioError(f"{path}: holds no samples; remove it or download it again")
        scale, scaled = full_scale(peak, file.subtype, path)
        offset = total / frames
        weights, mixed = mixing(power / frames - offset**2, mean_power / frames - float(offset.mean()) ** 2)
        found_hz = file.samplerate
    for kind in (*repairs, scaled, mixed):
        if kind:
            changes.add(kind, path)
    stream: Any = None
    if found_hz != sample_rate_hz:
        import soxr

        changes.add(f"resampled from {found_hz:,} to {sample_rate_hz:,} Hz", path)
        stream = soxr.ResampleStream(found_hz, sample_rate_hz, 1, dtype="float32")
    with opened(path) as (file, _):
        for block in _blocks(path, file):
            mono = (block @ weights * scale).astype(np.float32)
            yield mono if stream is None else stream.resample_chunk(mono)
    if stream is not None:
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def n_samples(path: str | Path, sample_rate_hz: int) -> int:
    """Samples that `read_audio` returns, from the header alone where it holds the length."""
    with opened(Path(path)) as (file, _):
        frames = file.frames if file.frames < UNWRITTEN else sum(len(block) for block in _blocks(Path(path), file))
        return -(-frames * sample_rate_hz // file.samplerate)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, list[str]]]:
    """The `soundfile.SoundFile` of a recording, and what was repaired in its header. Raises `AudioError`."""
    import soundfile

    if not path.is_file():
        raise AudioError(f"{path}: no such file; check the path or the dataset's file list")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes); remove it or download it again")
    raw, repairs = open_wav(path)
    with raw:
        try:
            file = soundfile.SoundFile(raw)
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            if foreign := _foreign(path):
                raise AudioError(f"{path}: {foreign}, not a recording; download the file itself") from error
            raise AudioError(
                f"{path}: not a readable recording ({_first_line(error)}); convert it to wav, FLAC, Ogg or MP3"
            ) from error
        with file:
            if not RATES_HZ[0] <= file.samplerate <= RATES_HZ[1]:
                raise AudioError(
                    f"{path}: sample rate of {file.samplerate:,} Hz in the header; "
                    f"use recordings of {RATES_HZ[0]:,} to {RATES_HZ[1]:,} Hz, or correct the header"
                )
            file.seekable = lambda: False  # read forward only: some formats have no way back, some no length
            yield file, [*repairs, *_lengths(path, file)]


def _lengths(path: Path, file: Any) -> Iterator[str]:
    """What stands for a length that was not written. Raises `AudioError` where an AIFF, AU or W64 is cut short."""
    if file.frames >= UNWRITTEN:
        yield "a length that was never written: read to the end of the file"
    if file.format not in ("AIFF", "AU", "W64"):
        return
    for promised, present in PROMISED.findall(file.extra_info):
        if int(promised) >= PLACEHOLDER_FROM:
            yield "a placeholder instead of the number of samples: read to the end of the file"
        elif int(promised) > int(present):
            raise AudioError(
                f"{path}: truncated, the header promises {promised} bytes and {present} are there; "
                "copy or download it again"
            )


def _foreign(path: Path) -> str:
    """What else a file is that carries the name of a recording; "" for anything unknown."""
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    return next((kind for mark, kind in FOREIGN.items() if head.startswith(mark)), "")


def too_long(path: Path, frames: int, file: Any) -> AudioError:
    """The error for a clip that is not read whole."""
    return AudioError(
        f"{path}: {frames / file.samplerate:,.0f} s of {file.channels} channels are too long for a "
        "clip of a word; cut it into clips, or stream it with `spikeloom listen`"
    )


def full_scale(peak: float, subtype: str, path: str | Path = "recording") -> tuple[float, str]:
    """The factor that brings samples with this peak to a full scale of ±1, and what it is in words ("" for 1)."""
    if subtype == "PCM_32" and 0 < peak <= 2**-16:
        return 2.0**16, "32-bit samples that hold 16-bit values: multiplied by 65,536"
    if peak <= 1:
        return 1.0, ""
    if peak <= OVERSHOOT:
        return 1.0, "louder than full scale: kept as it is, not clipped"
    for bits in (16, 32):
        if peak <= 2 ** (bits - 1):
            return 2.0 ** (1 - bits), f"floats in the range of {bits}-bit integers: divided by {2 ** (bits - 1):,}"
    raise AudioError(f"{path}: samples up to {peak:.3g}, beyond any integer range; write it again with full scale 1")


def mixing(power: np.ndarray, mean_power: float) -> tuple[np.ndarray, str]:
    """Weights of the channels of a mono mix, float32 `[channels]`, and what was done in words ("" for one channel).

    power: variance of each channel; mean_power: that of their average. The average of n channels of equal power
    has between 0 (opposite phase) and all of it, 1/n where they are independent; below half of that they cancel.
    """
    n = len(power)
    if n == 1:
        return np.ones(1, np.float32), ""
    loud = power > INAUDIBLE**2 * power.max()
    if not loud.any():  # silence
        return np.full(n, 1 / n, np.float32), f"{n} channels averaged"
    weights = np.zeros(n, np.float32)
    heard = int(loud.sum())
    if heard > 1 and mean_power * (n / heard) ** 2 < power[loud].mean() / (2 * heard):
        weights[int(np.argmax(power > (1 - 1e-6) * power.max()))] = 1  # the first of equal ones
        return weights, f"{n} channels that cancel each other: the loudest alone"
    weights[loud] = 1 / heard
    return weights, f"{n} channels averaged" if heard == n else f"{n - heard} of {n} channels silent: left out"


def resample(waveform: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample `[samples]` by to_hz / from_hz; the length is ceil(n * ratio)."""
    if from_hz == to_hz:
        return waveform
    common = gcd(from_hz, to_hz)
    up, down = to_hz // common, from_hz // common
    if max(up, down) > LARGE_RATIO:
        import soxr

        length = -(-len(waveform) * to_hz // from_hz)
        found = soxr.resample(waveform, from_hz, to_hz)[:length]
        return np.pad(found, (0, length - len(found)))
    from scipy.signal import resample_poly

    return resample_poly(waveform, up, down).astype(np.float32)


def _blocks(path: Path, file: Any) -> Iterator[np.ndarray]:
    """Blocks float32 `[n, channels]`; raises `AudioError` where one cannot be decoded or is not finite."""
    try:
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            if bad := int(np.count_nonzero(~np.isfinite(block))):
                raise AudioError(f"{path}: {bad} samples are NaN or infinite; repair the file or remove it")
            yield block
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{path}: cannot be decoded ({_first_line(error)}); copy or download it again") from error


def _unheard(mono: np.ndarray, rate_hz: int) -> str:
    if len(mono) < SHORTEST_S * rate_hz:
        return f"shorter than {1000 * SHORTEST_S:.0f} ms"
    return "" if np.ptp(mono) else "digital silence: all samples are equal"


def _first_line(error: BaseException) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return re.sub(r"^Error opening <.*?>: ", "", line).rstrip(".")
