"""Event recordings, pictures and checkpoints."""

import gzip
import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikeloom.pipelines.commands.convert import class_names
from spikeloom.vision.checkpoints import open_checkpoint
from spikeloom.vision.datasets.event_sets import EventFilesConfig, GestureConfig
from spikeloom.vision.datasets.events import EVENT, Recording
from spikeloom.vision.datasets.frame_cache import FrameCache
from spikeloom.vision.datasets.images import read_cifar, read_idx, read_image
from spikeloom.vision.datasets.readers import read_events
from spikeloom.vision.datasets.samples import Samples
from spikeloom.vision.datasets.tar_shards import Shard, _indexed, read_shards
from spikeloom.vision.transforms.frames import EventFramesConfig
from tests.fuzz.parser import OneFile, Parser, files, of_one_file, only_file
from tests.vision import event_files as made

RNG = np.random.default_rng(0)
SMALL = made.random_events(RNG, 60, 34, 300_000)


def is_recording(result: Recording) -> None:
    events, (height, width) = result.events, result.sensor
    assert events.dtype == EVENT and len(events), "no events"
    assert (np.diff(events["t"]) >= 0).all(), "not in order of time"
    assert events["x"].max() < width and events["y"].max() < height and height * width <= 2**22, "beyond the sensor"


def aedat2() -> list[bytes]:
    words = made.aedat2_words(SMALL)
    davis = b"".join(struct.pack(">II", y << 22 | x << 12 | p << 11, t) for t, x, y, p in SMALL)
    return [
        made.AEDAT2_HEADER + b"#End Of ASCII Header\r\n" + words,
        made.AEDAT2_HEADER + b"# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n#End Of ASCII Header\r\n" + davis,
        made.AEDAT2_HEADER + words,
    ]


def aedat3() -> list[bytes]:
    packet = made.aedat3_packet([(*e, 1) for e in SMALL])
    other = made.aedat3_packet([(*e, 1) for e in SMALL[:5]], kind=made.SPECIAL)
    named = made.AEDAT3_HEADER.replace(b"#!END", b"#Source 1: DAVIS346\r\n#!END")
    return [made.AEDAT3_HEADER + packet + other + packet, named + packet]


def aedat4() -> list[bytes]:
    import lz4.frame
    import zstandard

    packet = made.aedat4_packet(SMALL)
    return [
        made.aedat4_bytes([packet, packet]),
        made.aedat4_bytes([lz4.frame.compress(packet)], compression=1),
        made.aedat4_bytes([zstandard.ZstdCompressor().compress(packet)], compression=3),
    ]


def dat() -> list[bytes]:
    body = b"".join(struct.pack("<II", t, x | y << 14 | p << 28) for t, x, y, p in SMALL)
    return [
        b"% Version 2\n% Height 240\n% Width 304\n\x0c\x08" + body,
        b"% date 2020\n\x00\x08" + b"".join(struct.pack("<II", t, x | y << 9 | p << 17) for t, x, y, p in SMALL),
    ]


def raw() -> list[bytes]:
    evt2 = b"".join(
        struct.pack("<II", 8 << 28 | t >> 6, p << 28 | (t & 63) << 22 | x << 11 | y) for t, x, y, p in SMALL
    )
    evt3 = b"".join(
        struct.pack("<5H", 8 << 12 | t >> 12, 6 << 12 | t & 0xFFF, y, 2 << 12 | p << 11 | x, 3 << 12 | p << 11 | x)
        + struct.pack("<H", 4 << 12 | 5)
        for t, x, y, p in SMALL
    )
    return [
        b"% evt 2.0\n% geometry 640x480\n% end\n" + evt2,
        b"% evt 3.0\n% format EVT3;height=720;width=1280\n% end\n" + evt3,
    ]


def npy() -> list[bytes]:
    made_of = []
    structured = np.array(SMALL, dtype=[("t", "i8"), ("x", "u2"), ("y", "u2"), ("p", "u1")])
    for array in (structured, np.array(SMALL, dtype=np.int64), np.array(SMALL, dtype=np.float64)):
        held = io.BytesIO()
        np.save(held, array)
        made_of.append(held.getvalue())
    return made_of


def npz() -> list[bytes]:
    t, x, y, p = np.array(SMALL).T
    contents = []
    for save, arrays in ((np.savez, {"t": t, "x": x, "y": y, "p": p}), (np.savez_compressed, {"e": np.array(SMALL)})):
        held = io.BytesIO()
        save(held, **arrays)  # type: ignore[operator]
        contents.append(held.getvalue())
    return contents


def event_hdf5() -> list[bytes]:
    import h5py

    t, x, y, p = np.array(SMALL).T
    contents = []
    for layout in range(3):
        held = io.BytesIO()
        with h5py.File(held, "w") as file:
            if layout == 0:
                for name, values in (("x", x), ("y", y), ("p", p), ("t", t)):
                    file.create_dataset(f"events/{name}", data=values, compression="gzip")
                file["t_offset"] = 5
            elif layout == 1:
                rows = np.array(SMALL, dtype=[("t", "i8"), ("x", "u2"), ("y", "u2"), ("p", "i2")])
                file["CD/events"] = rows
                file.attrs["geometry"] = "640x480"
            else:
                file["ts"], file["xs"], file["ys"], file["ps"] = t / 1e6, x, y, p
                file.attrs["sensor_resolution"] = [180, 240]
        contents.append(held.getvalue())
    return contents


def pictures(folder: Path) -> None:
    from PIL import Image

    pixels = RNG.integers(0, 255, (9, 12, 3), dtype=np.uint8)
    colour, grey = Image.fromarray(pixels), Image.fromarray(pixels[..., 0])
    kinds: list[tuple[str, Any, dict[str, Any]]] = [
        ("a.png", colour, {}), ("b.png", grey.convert("LA"), {}), ("c.jpg", colour, {}), ("d.bmp", grey, {}),
        ("e.webp", colour, {}), ("f.tif", colour, {"compression": "tiff_lzw"}), ("g.gif", grey, {}),
        ("h.png", Image.fromarray(pixels[..., 0].astype(np.uint16) * 200), {}), ("i.tif", colour, {}),
        ("j.png", colour.quantize(16), {"transparency": 3}), ("k.jpg", colour, {"progressive": True}),
    ]  # fmt: skip
    for i, (name, picture, options) in enumerate(kinds):
        (folder / str(i)).mkdir()
        picture.save(folder / str(i) / name, **options)


def is_picture(result: np.ndarray) -> None:
    assert result.dtype == np.uint8 and result.ndim in (2, 3) and result.size <= 3 * 2**26
    assert result.ndim == 2 or result.shape[2] == 3


def idx() -> list[bytes]:
    body = RNG.integers(0, 255, 3 * 5 * 6, dtype=np.uint8).tobytes()
    return [b"\0\0\x08\x03" + struct.pack(">III", 3, 5, 6) + body, b"\0\0\x08\x01" + struct.pack(">I", 90) + body]


def write_idx(folder: Path) -> None:
    for i, content in enumerate(idx()):
        for j, (name, held) in enumerate((("x", content), ("x.gz", gzip.compress(content, mtime=0)))):
            (folder / f"{i}{j}").mkdir()
            (folder / f"{i}{j}" / name).write_bytes(held)


def cifar_binary(folder: Path) -> None:
    rows = [bytes([i % 10]) + RNG.integers(0, 255, 3072, dtype=np.uint8).tobytes() for i in range(3)]
    (folder / "0").mkdir()
    (folder / "0" / "test_batch.bin").write_bytes(b"".join(rows))
    (folder / "0" / "batches.meta.txt").write_text("\n".join("abcdefghij"), "utf-8")


def cifar_python(folder: Path) -> None:
    import pickle

    for i, protocol in enumerate((2, 4)):
        (folder / str(i)).mkdir()
        batch = {b"data": RNG.integers(0, 255, (4, 3072), dtype=np.uint8), b"labels": [1, 2, 3, 9], b"x": "y"}
        (folder / str(i) / "test_batch").write_bytes(pickle.dumps(batch, protocol))
        names = {"label_names": list("abcdefghij"), "n": 1.5, "t": (1, None, True)}
        (folder / str(i) / "batches.meta").write_bytes(pickle.dumps(names, protocol))


def is_cifar(result: Samples) -> None:
    assert len(result.labels) and set(result.labels.tolist()) <= set(range(10)) and len(result.class_names) == 10
    assert np.asarray(result.content).shape == (len(result.labels), 32, 32, 3)


def gestures(folder: Path) -> None:
    made.write_gestures(folder / "0", [1], [24])
    for recording in (folder / "0").glob("*.aedat"):
        events = [(*e, 1) for e in made.random_events(RNG, 300, end_us=1_200_000)]
        recording.write_bytes(made.AEDAT3_HEADER + made.aedat3_packet(events))


def read_gestures(folder: Path) -> Samples:
    samples = GestureConfig(root=str(folder)).load()
    for i in range(min(3, len(samples))):
        samples.content[i]
    return samples


def event_folder(folder: Path) -> None:
    for place in ("0/train/a/1.npy", "0/test/a/1.npy"):
        path = folder / place
        path.parent.mkdir(parents=True)
        path.write_bytes(npy()[0])


def read_event_folder(folder: Path) -> Samples:
    samples = EventFilesConfig(root=str(folder), sensor=[34, 34]).load()
    for i in range(len(samples)):
        samples.content[i]
    return samples


class _Two:
    """Two recordings, for the cache of frames."""

    def samples(self) -> Samples:
        events = np.array([(t, x, y, bool(p)) for t, x, y, p in SMALL], dtype=EVENT)
        return Samples(
            content=[events, events], labels=np.array([0, 1]), names=["a", "b"], class_names=("a", "b"), sensor=(34, 34)
        )  # type: ignore[arg-type]


def frame_cache(folder: Path) -> None:
    (folder / "0").mkdir()
    read_frame_cache(folder / "0")


def read_frame_cache(folder: Path) -> torch.Tensor:
    cache = FrameCache(EventFramesConfig(n_frames=2, cache=str(folder)), _Two().samples())
    return torch.stack([cache.frames(0), cache.frames(1)])


def is_frames(result: torch.Tensor) -> None:
    assert result.shape == (2, 2, 2, 34, 34) and torch.isfinite(result).all() and (result >= 0).all()


def tar_shards(folder: Path) -> None:
    from PIL import Image

    png = io.BytesIO()
    Image.fromarray(RNG.integers(0, 255, (4, 5, 3), dtype=np.uint8)).save(png, "PNG")
    for case, names in enumerate((("cat/0.png", "dog/1.png"), ("0.png", "0.cls", "1.png", "1.cls"))):
        (folder / str(case)).mkdir()
        with tarfile.open(folder / str(case) / "a.tar", "w") as tar:
            for name in names:
                content = png.getvalue() if name.endswith("png") else name[:1].encode()
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def read_tar(folder: Path) -> Samples:
    samples = read_shards(folder)
    for i in range(len(samples)):
        is_picture(samples.content[i])
    return samples


def tar_indices(folder: Path) -> None:
    tar_shards(folder)
    for case in folder.iterdir():
        read_tar(case)
        (case / "a.tar").unlink()


def is_shard(result: Shard) -> None:
    assert len(result.names) == len(result.classes) == len(result.places) > 0 and result.places.min() >= 0


def checkpoints(folder: Path) -> None:
    from safetensors.torch import save_file

    state = {"stem.weight": torch.ones(2, 3), "head.bias": torch.zeros(4)}
    for i, held in enumerate(({"state_dict": state, "epoch": 3}, {"model": state, "model_ema": state}, state)):
        (folder / str(i)).mkdir()
        torch.save(held, folder / str(i) / "a.pth")
    (folder / "old").mkdir()
    torch.save({"model": state}, folder / "old" / "a.tar", _use_new_zipfile_serialization=False)
    (folder / "safe").mkdir()
    save_file(state, folder / "safe" / "a.safetensors", {"config": json.dumps({"T": 4}), "model": "x"})


def is_state(result: Any) -> None:
    assert result.state and all(torch.isfinite(t).all() for t in result.state.values())


EVENTS = "vision/datasets/readers.py:read_events"
ONE_FILE: tuple[OneFile, ...] = (
    ("pictures", pictures, read_image, is_picture, ("vision/datasets/images.py:read_image",)),
    ("class_names", files("names.txt", lambda: [b"a\nb\nc\n"]), lambda path: class_names(3, None, str(path)), None,
     ("pipelines/commands/convert.py:class_names",)),
)  # fmt: skip
PARSERS = [
    *(
        Parser(
            name=name,
            write=files(f"a{ending}", contents),
            read=lambda f: read_events(only_file(f)),
            covers=(EVENTS, *covers),
            promise=is_recording,
            formats=formats,
        )
        for name, ending, contents, covers, formats in (
            ("aedat2", ".aedat", aedat2, ("vision/datasets/aedat2.py:read_aedat2",), None),
            ("aedat3", ".aedat", aedat3, ("vision/datasets/aedat3.py:read_aedat3",), None),
            ("aedat4", ".aedat4", aedat4, ("vision/datasets/aedat4.py:read_aedat4",), None),
            ("prophesee_dat", ".dat", dat, ("vision/datasets/prophesee.py:read_dat",), None),
            ("prophesee_raw", ".raw", raw, ("vision/datasets/prophesee.py:read_raw",), None),
            ("events_npy", ".npy", npy, ("vision/datasets/event_tables.py:_npy",), None),
            ("events_npz", ".npz", npz, ("vision/datasets/event_tables.py:_npz",), None),
            ("events_hdf5", ".h5", event_hdf5, ("vision/datasets/event_tables.py:_hdf5",), None),
            ("nmnist", ".bin", lambda: [made.nmnist_bytes(SMALL)], ("vision/datasets/nmnist.py:read_nmnist",), None),
        )
    ),
    *of_one_file(ONE_FILE),
    Parser(
        name="idx", write=write_idx, read=lambda f: read_idx(f / "x"), covers=("vision/datasets/images.py:read_idx",)
    ),
    Parser(
        name="cifar_binary",
        write=cifar_binary,
        read=lambda f: read_cifar(f, 10, "test"),
        promise=is_cifar,
        covers=("vision/datasets/images.py:_cifar_binary", "vision/datasets/images.py:_cifar_names"),
    ),
    Parser(
        name="cifar_python",
        write=cifar_python,
        read=lambda f: read_cifar(f, 10, "test"),
        promise=is_cifar,
        covers=("vision/datasets/pickled.py:read_pickle",),
    ),
    Parser(
        name="dvs_gesture_tables",
        write=gestures,
        read=read_gestures,
        mutates=(".csv", ".txt"),
        covers=("vision/datasets/aedat3.py:read_cuts", "vision/datasets/event_sets.py:_listed"),
    ),
    Parser(name="event_folders", write=event_folder, read=read_event_folder, covers=(EVENTS,)),
    Parser(
        name="frame_cache",
        write=frame_cache,
        read=read_frame_cache,
        promise=is_frames,
        covers=(
            "vision/datasets/frame_cache.py:_kept",
            "vision/datasets/frame_cache.py:__init__",
            "vision/datasets/frame_cache.py:frames",
        ),
    ),
    Parser(
        name="tar_shards",
        write=tar_shards,
        read=read_tar,
        covers=("vision/datasets/tar_shards.py:_scanned", "vision/datasets/tar_shards.py:_read_picture"),
    ),
    Parser(
        name="tar_index",
        write=tar_indices,
        read=lambda f: _indexed(only_file(f)),
        promise=is_shard,
        covers=("vision/datasets/tar_shards.py:_indexed",),
    ),
    Parser(
        name="released_checkpoints",
        write=checkpoints,
        read=lambda f: open_checkpoint(only_file(f)),
        promise=is_state,
        covers=("vision/checkpoints.py:_read", "vision/checkpoints.py:_description"),
        formats={".tar": ".bin"},
    ),
]
