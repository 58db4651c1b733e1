"""Compiles C++ kernels on first use and caches the libraries. Knows no torch.

Needs a C++ compiler (`$CXX`, g++ or clang++). One without OpenMP, such as Apple's clang, gives kernels of one thread,
which is said once. `$SPIKELOOM_CACHE` moves the cache. On Linux g++ compiles for the vector units of this processor
alone, AVX-512, AVX2 or neither; `$SPIKELOOM_SIMD` = avx512 | avx2 | none chooses one that the processor has.
"""

import atexit
import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

log = logging.getLogger("spikeloom")
SOURCE = Path(__file__).with_name("lif.cpp")
_HEADERS = tuple(Path(__file__).with_name(name) for name in ("clones.h", "numbers.h"))  # read before every source
FLAGS = (
    "-O3",
    "-std=c++17",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-fopenmp",
    "-fPIC",
    "-shared",
)
# Vector units, widest first: the level of x86-64 that has them, and what /proc/cpuinfo must name for it: a virtual
# machine may hide any of them.
_AVX2 = {"ssse3", "sse4_1", "sse4_2", "popcnt", "cx16", "avx", "avx2", "abm", "bmi1", "bmi2", "f16c", "fma", "movbe"}
LEVELS = {
    "avx512": (4, _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    "avx2": (3, _AVX2),
    "none": (1, set[str]()),
}


class BuildError(RuntimeError):
    """The kernel could not be compiled or loaded; the message holds the compiler's own words."""


def compiler() -> str | None:
    """Path of the C++ compiler in use, or None."""
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++", "clang++"]
    return next((path for path in map(shutil.which, candidates) if path), None)


def simd(cxx: str) -> list[str]:
    """Options for the vector units to compile for; none where functions are cloned for all processors."""
    name = simd_name()
    if name is None or not _is_gcc(cxx):
        return []
    number = LEVELS[name][0]
    return [f"-DLEVEL={number}", *([f"-march=x86-64-v{number}"] if number > 1 else [])]


def simd_name() -> str | None:
    """`$SPIKELOOM_SIMD`, else the widest of LEVELS that this processor has; None where it is not known.

    Raises ValueError where `$SPIKELOOM_SIMD` names what there is not.
    """
    wanted, there = os.environ.get("SPIKELOOM_SIMD"), levels()
    if wanted and wanted not in there:
        what = "not on this processor" if wanted in LEVELS else "unknown"
        raise ValueError(f"SPIKELOOM_SIMD={wanted}: {what}; use {', '.join(there) or 'no such variable here'}")
    return wanted or (there[0] if there else None)


@cache
def levels() -> list[str]:
    """Names of LEVELS that this processor has, widest first; none where it is not known."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return []
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text("ascii", "replace"), re.MULTILINE)
    except OSError:
        return []
    flags = set(found[1].split()) if found else set()
    return [name for name, (_, needed) in LEVELS.items() if needed <= flags] if flags else []


@cache
def _is_gcc(cxx: str) -> bool:
    """Of version 12 or later, which knows the levels. Clang calls itself compatible with an old gcc."""
    told = subprocess.run([cxx, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True).stdout
    version = re.search(r"^#define __GNUC__ (\d+)$", told, re.MULTILINE)
    return "__clang__" not in told and version is not None and int(version[1]) >= 12


def cache_dir() -> Path:
    """Folder of compiled kernels; safe to delete."""
    home = os.environ.get("SPIKELOOM_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "spikeloom"
    )
    return Path(home).expanduser()


def _share_openmp() -> None:
    """Make torch's OpenMP runtime global, so that the kernel binds to it: two pools of threads would compete."""
    with contextlib.suppress(OSError):
        for path in sorted(set(re.findall(r"/\S*lib[gi]?omp\S*\.so\S*", Path("/proc/self/maps").read_text()))):
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


@cache
def _say_serial(cxx: str) -> None:
    warnings.warn(f"{cxx} has no OpenMP: kernels use one thread; install libomp or g++", RuntimeWarning, stacklevel=3)


@cache
def build(source: Path, name: str, *options: str) -> ctypes.CDLL:
    """The loaded library of one C++ file, compiled with FLAGS and then `options`; `name` begins its cached file.

    A cached library is loaded only if its SHA-256 is the one noted when it was built; any other is built again.
    Processes that need it at the same time wait for the first. Raises BuildError with the reason.
    """
    cxx = compiler()
    if cxx is None:
        raise BuildError("no C++ compiler found; install g++ or set $CXX")
    command = [cxx, *FLAGS, *options]
    told = repr([command, simd_name(), platform.machine()]).encode()
    read = b"".join(path.read_bytes() for path in (source, *_HEADERS))
    key = hashlib.sha256(read + told).hexdigest()[:16]
    folder = writable_cache()
    target, noted = folder / f"{name}-{key}.so", folder / f"{name}-{key}.sha256"
    try:
        with _alone(folder / f"{name}-{key}.lock"):
            if not _intact(target, noted):
                _compile(cxx, [*command, *simd(cxx)], source, target)
                _write(noted, hashlib.sha256(target.read_bytes()).hexdigest())
    except OSError as error:
        raise BuildError(f"cannot write the kernel cache {folder}: {error}; set $SPIKELOOM_CACHE") from error
    _share_openmp()
    try:
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise BuildError(f"cannot load {target}: {error}; delete it to rebuild") from error


@cache
def writable_cache() -> Path:
    """The folder of compiled kernels, or one of this process alone where that cannot be written."""
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        if os.environ.get("SPIKELOOM_CACHE"):
            raise BuildError(f"$SPIKELOOM_CACHE={folder} cannot be written ({error}); name another folder") from error
        own = Path(tempfile.mkdtemp(prefix="spikeloom-kernels-"))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        warnings.warn(f"{folder} cannot be written, kernels are compiled anew; set $SPIKELOOM_CACHE to keep them",
                      RuntimeWarning, stacklevel=2)  # fmt: skip
        return own


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time; where files cannot be locked, all at once: each leaves a whole file."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _intact(target: Path, noted: Path) -> bool:
    """Whether a cached library is what was built: loading a damaged one can kill the process."""
    try:
        return hashlib.sha256(target.read_bytes()).hexdigest() == noted.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return False


def _write(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as partial:
        partial.write(text)
    os.replace(partial.name, path)


def _compile(cxx: str, command: list[str], source: Path, target: Path) -> None:
    """Compile `source` to `target`, which appears whole. Raises BuildError with the compiler's words."""
    log.info("compiling %s for this machine, once; it takes some seconds", source.name)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        built = Path(scratch) / "kernel.so"
        included = [part for header in _HEADERS for part in ("-include", str(header))]
        rest = [*included, str(source), "-o", str(built)]
        done = subprocess.run([*command, *rest], capture_output=True, text=True)
        if done.returncode and "openmp" in done.stderr.lower():
            serial = [part for part in command if part != "-fopenmp"]
            done = subprocess.run([*serial, *rest], capture_output=True, text=True)
            if not done.returncode:
                _say_serial(cxx)
        if done.returncode:
            raise BuildError(f"{cxx} could not compile {source.name}: {done.stderr.strip()[-400:]}")
        os.replace(built, target)
