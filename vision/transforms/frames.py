"""What a network is shown: a picture as normalised numbers `[C, H, W]`, a recording of events as frames `[T, 2, H, W]`.

A frame counts events: frame[p, y, x], p = 1 brighter, not normalised and not made binary. `features` of a configuration
is one of the two classes here; `kind` tells them apart in a file.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

RESAMPLING = ("nearest", "bilinear", "bicubic")


@dataclass(kw_only=True)
class PixelsConfig:
    """A picture, resized so that `size` is `crop_pct` of its shorter side, the middle cut out, then (v - mean) / std.

    Values v are 0…1. A picture that has the right size is not resized.
    """

    kind: str = "pixels"
    channels: int = 3  # 1 (grey) or 3 (RGB)
    size: int = 32  # height and width of the network's input, in pixels
    crop_pct: float = 1.0  # fraction of the shorter side that is kept; in (0, 1]
    interpolation: str = "bicubic"  # of the resizing: nearest, bilinear or bicubic
    mean: list[float] = field(default_factory=lambda: [0.4914, 0.4822, 0.4465])  # of each channel, subtracted
    std: list[float] = field(default_factory=lambda: [0.2470, 0.2435, 0.2616])  # of each channel, divided by

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(
                f"features.channels={self.channels} with {len(self.mean)} means and {len(self.std)} deviations; "
                "use 1 or 3 channels and as many of both"
            )
        if self.interpolation not in RESAMPLING:
            raise ValueError(f"features.interpolation={self.interpolation} is unknown; use {', '.join(RESAMPLING)}")
        if self.size < 1 or not 0 < self.crop_pct <= 1:
            raise ValueError(
                f"features.size={self.size}, crop_pct={self.crop_pct}; use at least 1, and a share in (0, 1]"
            )

    @property
    def n_channels(self) -> int:
        return self.channels

    def frames(self, picture: np.ndarray, full_scale: float = 255.0) -> Tensor:
        """uint8 `[H, W]` or `[H, W, 3]` -> float32 `[C, size, size]`, as in an evaluation."""
        return self.normalised(self.fitted(picture), full_scale)

    def fitted(self, picture: np.ndarray) -> np.ndarray:
        """uint8 `[size, size, C]`: the middle, with the right number of channels."""
        picture = self.coloured(picture)
        height, width = picture.shape[:2]
        shorter = max(self.size, round(self.size / self.crop_pct))
        if min(height, width) != shorter and (height, width) != (self.size, self.size):
            ratio = shorter / min(height, width)
            picture = resized(picture, (round(height * ratio), round(width * ratio)), self.interpolation)
            height, width = picture.shape[:2]
        top, left = (height - self.size) // 2, (width - self.size) // 2
        return picture[top : top + self.size, left : left + self.size]

    def coloured(self, picture: np.ndarray) -> np.ndarray:
        """uint8 `[H, W, C]`: grey from colours by ITU-R 601, colours from grey by repeating."""
        if picture.ndim == 2:
            picture = np.repeat(picture[:, :, None], self.channels, axis=2)
        elif picture.shape[2] != self.channels:
            picture = (picture @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)[:, :, None]
        return picture

    def normalised(self, picture: np.ndarray, full_scale: float = 255.0) -> Tensor:
        """uint8 `[H, W, C]` -> float32 `[C, H, W]`; `full_scale` is the value of white."""
        values = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1) / full_scale
        mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std))
        return (values - mean) / std

    def shown(self, frames: Tensor) -> np.ndarray:
        """The picture again, 0…1 `[H, W, C]`, for people."""
        mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std))
        return (frames * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()


def resized(picture: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """uint8 `[H, W, C]` at another (height, width)."""
    from PIL import Image

    grey = picture.shape[2] == 1
    image = Image.fromarray(picture[:, :, 0] if grey else picture)
    made = np.asarray(image.resize((size[1], size[0]), getattr(Image.Resampling, interpolation.upper())))
    return made[:, :, None] if grey else made


@dataclass(kw_only=True)
class EventFramesConfig:
    """`n_frames` pictures of a recording, with equally many events in each (`number`) or equally long (`time`).

    remainder: where events do not divide evenly, `last` gives the rest to the last frame (as published), `drop` leaves
    it out. cache: a folder that keeps the frames of every recording, made when first needed; empty: none.
    """

    kind: str = "event_frames"
    n_frames: int = 16  # frames of a recording: the network's time steps
    by: str = "number"  # number or time
    remainder: str = "last"  # last or drop; by time there is no remainder to drop
    cache: str = ""

    def __post_init__(self) -> None:
        if self.by not in ("number", "time") or self.remainder not in ("last", "drop") or self.n_frames < 1:
            raise ValueError(
                f"features: {self.n_frames} frames by={self.by} remainder={self.remainder}; use at least 1, "
                "by=number or time, remainder=last or drop"
            )

    @property
    def n_channels(self) -> int:
        return 2

    def frames(self, events: np.ndarray, sensor: tuple[int, int]) -> Tensor:
        """Events -> float32 `[T, 2, H, W]`."""
        if self.by == "number":
            return torch.from_numpy(frames_by_number(events, self.n_frames, sensor, self.remainder == "drop"))
        return torch.from_numpy(frames_by_time(events, self.n_frames, sensor))

    def key(self, sensor: tuple[int, int]) -> str:
        """What a cache of these frames is called: everything that decides them."""
        return f"{self.by}_T{self.n_frames}_{self.remainder}_{sensor[0]}x{sensor[1]}"


def frames_by_number(events: np.ndarray, n_frames: int, sensor: tuple[int, int], drop: bool = False) -> np.ndarray:
    """Frame j holds events j*d … (j+1)*d - 1 in order of time, d = N // T; the last takes the rest unless `drop`."""
    events = in_order(events)
    n = len(events)
    if n < n_frames:
        raise ValueError(f"{n} events cannot fill {n_frames} frames; use fewer frames, or remove the recording")
    edges = np.arange(n_frames + 1) * (n // n_frames)
    if not drop:
        edges[-1] = n
    return _count(events, edges, sensor)


def frames_by_time(events: np.ndarray, n_frames: int, sensor: tuple[int, int]) -> np.ndarray:
    """Frame j holds times t0 + j*Δt … t0 + (j+1)*Δt, Δt = (t1 - t0) // T, t0 and t1 the first and last time; the last
    one runs to the end.

    A stretch without events is a frame of zeros.
    """
    if not len(events):
        raise ValueError("no events to make frames of; remove the recording")
    events = in_order(events)
    t = events["t"]
    step = int(t[-1] - t[0]) // n_frames
    edges = np.searchsorted(t, t[0] + step * np.arange(n_frames + 1), side="left")
    edges[-1] = len(events)
    return _count(events, edges, sensor)


def in_order(events: np.ndarray) -> np.ndarray:
    """The events in order of time; those of one time keep theirs."""
    t = events["t"]
    return events[np.argsort(t, kind="stable")] if (t[1:] < t[:-1]).any() else events


def _count(events: np.ndarray, edges: np.ndarray, sensor: tuple[int, int]) -> np.ndarray:
    """float32 `[T, 2, H, W]` of the events between neighbouring `edges`."""
    height, width = sensor
    cell = (events["p"].astype(np.int64) * height + events["y"]) * width + events["x"]
    cells = 2 * height * width
    made = [np.bincount(cell[a:b], minlength=cells) for a, b in zip(edges, edges[1:], strict=False)]
    return np.stack(made).reshape(-1, 2, height, width).astype(np.float32)
