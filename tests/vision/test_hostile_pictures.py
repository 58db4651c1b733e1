"""Files of pictures made to do harm: one line that names the file, in bounded time and memory."""

import gzip
import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikeloom.vision.datasets.images import LARGEST_PIXELS, ImageFileError, read_idx, read_image
from spikeloom.vision.datasets.pickled import read_pickle


def png(width: int, height: int, packed: bytes) -> bytes:
    """A grey PNG whose header promises any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 14_000, 60_000, 2**31 - 1])
def test_a_picture_that_promises_more_pixels_than_any_is_refused_before_it_is_unpacked(
    tmp_path: Path, side: int
) -> None:
    assert side * side > LARGEST_PIXELS
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, zlib.compress(bytes(1000))))
    with pytest.raises(ImageFileError, match=r"bomb\.png: .*; (make the picture smaller|fetch or remove it)"):
        read_image(path)


def test_a_damaged_picture_of_any_format_is_read_or_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    for name in ("png", "jpeg", "gif", "bmp", "webp", "tiff"):
        held = io.BytesIO()
        picture.save(held, name)
        good = np.frombuffer(held.getvalue(), dtype=np.uint8)
        for _ in range(60):
            bad = good.copy()
            places = rng.integers(0, len(bad), int(rng.integers(1, 5)))
            bad[places] = rng.integers(0, 256, len(places))
            path = tmp_path / f"bad.{name}"
            path.write_bytes(bad[: rng.integers(1, len(bad) + 1)].tobytes())
            try:
                pixels, message = read_image(path), ""
            except ImageFileError as error:
                pixels, message = None, str(error)
            assert pixels is None or pixels.dtype == np.uint8
            assert not message or path.name in message
            assert "\n" not in message
            assert len(message) < 600


def test_a_packed_idx_file_is_not_unpacked_beyond_its_header(tmp_path: Path) -> None:
    """64 MB of zeros behind a header of 28 bytes."""
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"\0\0\x08\x03" + struct.pack(">3I", 1, 4, 7) + bytes(2**26))
    tracemalloc.start()
    with pytest.raises(ImageFileError, match=r"bomb\.gz, byte 16: more than 28 bytes for \(1, 4, 7\); fetch it again"):
        read_idx(path.with_suffix(""))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**22


@pytest.mark.parametrize("sizes", [(2**31, 28, 28), (1, 2**14, 2**14), (4, 2**13, 1)])
def test_an_idx_header_that_promises_more_than_its_file_can_hold_is_refused(
    tmp_path: Path, sizes: tuple[int, int, int]
) -> None:
    for name, pack in (("plain", bytes), ("packed.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(b"\0\0\x08\x03" + struct.pack(">3I", *sizes) + bytes(8)))
        with pytest.raises(ImageFileError, match=rf"{name}, byte \d+: .*; fetch it again"):
            read_idx(tmp_path / name.removesuffix(".gz"))


def test_a_pickle_whose_lists_hold_each_other_is_read_in_no_time(tmp_path: Path) -> None:
    """Each of 60 lists holds the one before it twice: 2^60 entries if every one were followed."""
    lists = b"]q\x00"
    for i in range(60):
        lists += b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1])
    path = tmp_path / "data_batch_1"
    path.write_bytes(b"\x80\x02" + lists + b".")
    with pytest.raises(ValueError, match="data_batch_1, byte"):
        read_pickle(path)
