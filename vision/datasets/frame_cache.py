"""Frames of event recordings kept on disk, one compressed file a recording, made when first asked for.

The folder's name holds everything that decides a frame (mode, T, remainder, sensor) and an index beside the files says
how many recordings there are and which: a folder of other recordings is refused, never read. Counts are whole numbers.
"""

import json
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikeloom.accel.common.files import brief, read_object, sweep_leftovers, whole
from spikeloom.vision.datasets.samples import Samples
from spikeloom.vision.transforms.frames import EventFramesConfig

SPARE_BYTES = 4096  # of the header of an array


class FrameCache:
    """`frames(index)` of a set of recordings, read back where it was made before."""

    def __init__(self, config: EventFramesConfig, samples: Samples) -> None:
        assert samples.sensor is not None
        self.config, self.samples, self.sensor = config, samples, samples.sensor
        self.folder = Path(config.cache) / f"{config.key(samples.sensor)}_{samples.digest()[:12]}"
        index, told = self.folder / "index.json", {"samples": len(samples), "sha256": samples.digest()}
        sweep_leftovers(self.folder)
        if index.is_file():
            found = read_object(index, f"delete {self.folder}")
            if found != told:
                n = found.get("samples")
                raise ValueError(f"{self.folder} holds frames of {n} recordings, here are {len(samples)}; delete it")
        else:
            with whole(index) as partial:
                partial.write_text(json.dumps(told), encoding="utf-8")

    def frames(self, index: int) -> Tensor:
        """float32 `[T, 2, H, W]` of recording `index`."""
        path = self.folder / f"{index:06d}.npz"
        if path.is_file():
            return torch.from_numpy(self._kept(path).astype(np.float32))
        return self._make(index, path)

    def make(self, indices: Iterable[int]) -> int:
        """Make the frames of those recordings that have none, and return how many that were."""
        return sum(self._make_missing(index) for index in indices)

    def _make_missing(self, index: int) -> bool:
        path = self.folder / f"{index:06d}.npz"
        missing = not path.is_file()
        if missing:
            self._make(index, path)
        return missing

    def _make(self, index: int, path: Path) -> Tensor:
        frames = self.config.frames(self.samples.content[index], self.sensor)
        with whole(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, frames=frames.numpy().astype(np.uint32))
        return frames

    def _kept(self, path: Path) -> np.ndarray:
        """Counts uint32 `[T, 2, H, W]` of a file. No more is unpacked than such an array takes."""
        shape = (self.config.n_frames, 2, *self.sensor)
        try:
            with zipfile.ZipFile(path) as archive:
                (member,) = archive.infolist()
                if member.file_size > 4 * math.prod(shape) + SPARE_BYTES:
                    raise ValueError(f"{member.file_size:,} bytes for frames of {shape}")
            with np.load(path, allow_pickle=False) as held:
                made: np.ndarray = held["frames"]
            if made.shape != shape or made.dtype != np.uint32:
                raise ValueError(f"{made.dtype} {made.shape} instead of uint32 {shape}")
        except Exception as error:  # NumPy and zipfile raise whatever a damaged file leads them to
            raise ValueError(f"{path} is damaged ({brief(error)}); delete {self.folder}") from error
        return made
