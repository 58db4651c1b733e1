"""Small event recordings written byte by byte, as tests need them."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

AEDAT2_HEADER = b"#!AER-DAT2.0\r\n# written for a test\r\n"
AEDAT3_HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
POLARITY, SPECIAL = 1, 0


def aedat2_words(events: Sequence[tuple[int, int, int, int]]) -> bytes:
    """(t, x, y, p) as big-endian pairs of address and time."""
    return b"".join(struct.pack(">II", y << 8 | x << 1 | p, t) for t, x, y, p in events)


def aedat3_packet(events: Sequence[tuple[int, int, int, int, int]], overflow: int = 0, kind: int = POLARITY) -> bytes:
    """(t, x, y, p, valid) as one packet."""
    body = b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | valid, t) for t, x, y, p, valid in events)
    n = len(events)
    return struct.pack("<HHIIIIII", kind, 1, 8, 4, overflow, n, n, sum(e[4] for e in events)) + body


def aedat4_bytes(
    packets: Sequence[bytes], sensors: Sequence[tuple[int, int]] = ((128, 128),), table: int = -1, compression: int = 0
) -> bytes:
    """A header with a stream of events for each sensor (width, height), and packets of the first one as they are."""
    attributes = '<attr key="typeIdentifier" type="string">EVTS</attr>'
    xml = "".join(
        f'<node name="{i}" path="/outInfo/{i}/">{attributes}<attr key="sizeX" type="int">{width}</attr>'
        f'<attr key="sizeY" type="int">{height}</attr></node>'
        for i, (width, height) in enumerate(sensors)
    ).encode()
    offsets = struct.pack("<HHHHH2x", 10, 20, 4, 8, 16)
    header = (
        struct.pack("<I4s", 20, b"IOHE") + offsets + struct.pack("<iiqII", 12, compression, table, 4, len(xml)) + xml
    )
    body = b"".join(struct.pack("<ii", 0, len(packet)) + packet for packet in packets)
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(header)) + header + body


def aedat4_packet(events: Sequence[tuple[int, int, int, int]]) -> bytes:
    """(t, x, y, p) as one FlatBuffer, not compressed."""
    rows = b"".join(struct.pack("<qhhB3x", *event) for event in events)
    body = struct.pack("<I4sHHH2xiII", 16, b"EVTS", 6, 8, 4, 8, 4, len(events)) + rows
    return struct.pack("<I", len(body)) + body


def nmnist_bytes(events: Sequence[tuple[int, int, int, int]]) -> bytes:
    """(t, x, y, p), five bytes each."""
    return b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for t, x, y, p in events)


def random_events(rng: np.random.Generator, n: int, size: int = 128, end_us: int = 500_000) -> list[tuple[int, ...]]:
    """(t, x, y, p) in order of time."""
    times = np.sort(rng.integers(0, end_us, n))
    xs, ys, ps = rng.integers(0, size, n), rng.integers(0, size, n), rng.integers(0, 2, n)
    return [tuple(map(int, event)) for event in zip(times, xs, ys, ps, strict=True)]


def write_cifar10dvs(root: Path, names: Sequence[str], per_class: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for name in names:
        for i in range(per_class):
            path = root / name / f"cifar10_{name}_{i}.aedat"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(AEDAT2_HEADER + b"#End Of ASCII Header\r\n" + aedat2_words(random_events(rng, 300)))


def write_gestures(root: Path, train: Sequence[int], test: Sequence[int], seed: int = 0) -> None:
    """A recording a user, eleven gestures of a tenth of a second each."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    for list_name, users in (("trials_to_train.txt", train), ("trials_to_test.txt", test)):
        for user in users:
            events = [(*e, 1) for e in random_events(rng, 4000, end_us=1_200_000)]
            (root / f"user{user:02d}_led.aedat").write_bytes(AEDAT3_HEADER + aedat3_packet(events))
            rows = [f"{c + 1},{100_000 * c},{100_000 * (c + 1)}" for c in range(11)]
            table = "class,startTime_usec,endTime_usec\n" + "\n".join(rows) + "\n"
            (root / f"user{user:02d}_led_labels.csv").write_text(table, encoding="utf-8")
        (root / list_name).write_text("".join(f"user{u:02d}_led.aedat\n" for u in users), encoding="utf-8")


def write_nmnist(root: Path, train: int, test: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for split, n in (("Train", train), ("Test", test)):
        for digit in range(10):
            for i in range(n):
                path = root / split / str(digit) / f"{i:05d}.bin"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(nmnist_bytes(random_events(rng, 200, 34, 300_000)))
