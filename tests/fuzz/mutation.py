"""Inputs made wrong on purpose: bytes anywhere, and what formats have in common below their checksums and packing.

Every choice is drawn from a `random.Random`, so that a number names an input; drawn from bytes (`Decisions`), a
coverage-guided fuzzer makes the choices.
"""

import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from tests.fuzz.parser import SPECIAL, Case

LARGEST = 1 << 19  # bytes whose structure is looked at
EDGES = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
NUMBERS = ("0", "-1", "1e999", "nan", "-inf", "1e308", "99999999999999999999", "2147483648", "0.5", "1e-320", "", "x",
           "1_000", "٣", "0x10", "-0", "True", "None")  # fmt: skip
TEXTS = ("", "\0", "\x1b[2J", "$x^", "${oc.env:HOME}", "../../etc/passwd", "a" * 3000, "\ufeff", "\ud7ff", "é" * 50,
         "NaN", "null", "\r", "\x85", "\u2028", "%s%n", "{0}", "<b>", "=1+1", '"', "'")  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, -1e308, 10**30, float("nan"), float("inf"), "", "x", "a" * 3000, [], {}, [None],
    [[]], {"": {}}, [1] * 50, "${oc.env:HOME}", "$\\frac", "\0", {"value": 1}, 2**31, 2**63,
)  # fmt: skip


class Decisions(random.Random):
    """A source of choices that spends the bytes it was given, then zeros."""

    def __new__(cls, data: bytes) -> "Decisions":
        return super().__new__(cls)

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        super().__init__(0)

    def getrandbits(self, k: int) -> int:
        n = (k + 7) // 8
        taken = self.data[self.at : self.at + n]
        self.at += n
        return int.from_bytes(taken.ljust(n, b"\0"), "little") & ((1 << k) - 1)

    def random(self) -> float:
        return self.getrandbits(24) / (1 << 24)


def mutated(draw: random.Random, cases: Sequence[Case], files: Sequence[str], formats: Any = None) -> Case:
    """One of the cases with one of its `files` (by ending; none: any) changed in one to four places, or no file."""
    case = dict(draw.choice(cases))
    names = [n for n in sorted(case) if not files or n.endswith(tuple(files))]
    name = draw.choice(names)
    if len(case) > 1 and draw.random() < 0.01:
        del case[name]
        return case
    if draw.random() < 0.01:
        case[name] = draw.choice(SPECIAL)
        return case
    content = case[name]
    assert isinstance(content, bytes)
    others = [held for c in cases for n, held in c.items() if n.endswith(_ending(name)) and isinstance(held, bytes)]
    kind = (formats or {}).get(_ending(name), _ending(name))
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        content = _changed(draw, content, kind, others)
    case[name] = content
    return case


def _ending(name: str) -> str:
    return "." + name.rpartition(".")[2] if "." in name.rpartition("/")[2] else ""


def _changed(draw: random.Random, content: bytes, kind: str, others: Sequence[bytes]) -> bytes:
    structured = STRUCTURED.get(kind)
    if structured is not None and len(content) < LARGEST and draw.random() < 0.6:
        try:
            return structured(draw, content)
        except Exception:  # changed beyond its own structure: only bytes are left
            pass
    return changed_bytes(draw, content, others)


# --- bytes ----------------------------------------------------------------------------------------------------------


def changed_bytes(draw: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    raw = bytearray(content)
    if not raw:
        return bytes(draw.getrandbits(8) for _ in range(draw.randrange(1, 40)))
    at = _place(draw, len(raw))
    end = min(len(raw), at + draw.choice((1, 2, 4, 8, 16, 100, 1000)))
    how = draw.randrange(10)
    if how == 0:
        raw[at] ^= 1 << draw.randrange(8)
    elif how == 1:
        raw[at] = draw.getrandbits(8)
    elif how in (2, 3):
        size = draw.choice((1, 2, 4, 4, 8))
        at -= at % size if draw.random() < 0.5 else 0
        value = draw.choice(EDGES) if draw.random() < 0.7 else draw.getrandbits(8 * size)
        raw[at : at + size] = (value & (256**size - 1)).to_bytes(size, draw.choice(("little", "big")))
    elif how == 4:
        del raw[at:]
    elif how == 5:
        del raw[at:end]
    elif how == 6:
        raw[at:at] = raw[at:end] * draw.choice((1, 1, 2, 50))
    elif how == 7:
        raw[at:end] = bytes(end - at) if draw.random() < 0.5 else b"\xff" * (end - at)
    elif how == 8 and others:
        other = draw.choice(others)
        start = _place(draw, len(other)) if other else 0
        raw[at:end] = other[start : start + end - at]
    else:
        raw[at:at] = bytes(draw.getrandbits(8) for _ in range(draw.choice((1, 4, 40))))
    return bytes(raw)


def _place(draw: random.Random, n: int) -> int:
    """Half of the time in the first bytes, where headers are."""
    return draw.randrange(min(n, draw.choice((16, 128, 1024)))) if draw.random() < 0.5 else draw.randrange(n)


# --- text -----------------------------------------------------------------------------------------------------------


def changed_text(draw: random.Random, content: bytes) -> bytes:
    text = content.decode("utf-8")
    lines = text.split("\n")
    row = draw.randrange(len(lines))
    how = draw.randrange(8)
    if how == 0:
        lines.insert(row, draw.choice(lines))
    elif how == 1:
        del lines[row]
    elif how == 2:
        other = draw.randrange(len(lines))
        lines[row], lines[other] = lines[other], lines[row]
    elif how == 3:
        lines.insert(row, draw.choice(TEXTS))
    else:
        cells = _tokens(lines[row])
        numbers = [i for i, cell in enumerate(cells) if any(c.isdigit() for c in cell)]
        i = draw.choice(numbers) if numbers and draw.random() < 0.6 else draw.randrange(len(cells))
        cells[i] = draw.choice(NUMBERS) if how < 6 else draw.choice(TEXTS) if how == 6 else cells[i] * 2
        lines[row] = "".join(cells)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _tokens(line: str) -> list[str]:
    """The line in pieces: letters and digits, and what lies between them."""
    pieces = [""]
    for letter in line:
        if pieces[-1] and (pieces[-1][-1].isalnum() or pieces[-1][-1] in ".-") != (letter.isalnum() or letter in ".-"):
            pieces.append("")
        pieces[-1] += letter
    return pieces


# --- trees ----------------------------------------------------------------------------------------------------------


def changed_tree(draw: random.Random, tree: Any) -> Any:
    """A JSON tree with one node replaced, removed, doubled or wrapped."""
    places = list(_places(tree))
    if not places:
        return draw.choice(VALUES)
    holder, key = draw.choice(places)
    how = draw.randrange(8)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[draw.choice(TEXTS)] = draw.choice(VALUES)
    elif how == 1:
        holder.insert(key, draw.choice(VALUES))
    elif how == 2:
        other, name = draw.choice(places)
        holder[key] = json.loads(json.dumps(other[name])) if name in other or isinstance(other, list) else None
    elif how == 3:
        holder[key] = draw.choice(([holder[key]], {"x": holder[key]}, str(holder[key])))
    elif how == 4 and isinstance(holder[key], int | float):
        holder[key] = draw.choice((holder[key] * 10**6, -holder[key], holder[key] + 1, holder[key] / 3, 2**40))
    else:
        holder[key] = draw.choice(VALUES)
    return tree


def _places(tree: Any) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key
        yield from _places(value)


def changed_json(draw: random.Random, content: bytes) -> bytes:
    if draw.random() < 0.3:
        return changed_text(draw, content)
    if draw.random() < 0.01:
        return b"[" * draw.choice((10, 1000, 100_000))
    return json.dumps(changed_tree(draw, json.loads(content))).encode()


def changed_lines_of_json(draw: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    row = draw.randrange(len(lines))
    lines[row] = changed_json(draw, lines[row])
    return b"\n".join(lines)


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(ord("b"), ord("k"))
)


def changed_yaml(draw: random.Random, content: bytes) -> bytes:
    import yaml

    chance = draw.random()
    if chance < 0.4 or b"*a" in content:  # a bomb is no tree to walk
        return changed_text(draw, content)
    if chance < 0.42:
        return content + BOMB
    if chance < 0.43:
        return b"[" * draw.choice((10, 1000, 20_000))
    if chance < 0.45:
        return (
            content + b"\n" + draw.choice((b"? [a]\n: b\n", b"!!python/object:os.system x\n", b"<<: *x\n", b"%TAG\n"))
        )
    tree = changed_tree(draw, yaml.load(content, yaml.CSafeLoader))
    return yaml.dump(tree, Dumper=yaml.CSafeDumper, allow_unicode=True).encode("utf-8", "replace")


# --- containers -----------------------------------------------------------------------------------------------------


def changed_gzip(draw: random.Random, content: bytes) -> bytes:
    held = gzip.decompress(content)
    if draw.random() < 0.02:
        return gzip.compress(bytes(50_000_000), 1)
    as_text = held.isascii() and len(held) < LARGEST and draw.random() < 0.5
    held = changed_text(draw, held) if as_text else changed_bytes(draw, held)
    return gzip.compress(held, 1, mtime=0)


def changed_zip(draw: random.Random, content: bytes) -> bytes:
    """One member changed below its checksum, renamed, doubled or left out."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(made, "w") as target:
        members = archive.infolist()
        chosen = draw.choice(members)
        how = draw.randrange(8)
        for member in members:
            held, name = archive.read(member), member.filename
            if member is chosen:
                if how == 0:
                    continue
                if how == 1:
                    name = draw.choice(members).filename
                elif held[:1] in b"{[" and held:
                    held = changed_json(draw, held)
                else:
                    held = changed_bytes(draw, held)
            target.writestr(zipfile.ZipInfo(name), held, member.compress_type)
    return made.getvalue()


def changed_safetensors(draw: random.Random, content: bytes) -> bytes:
    """A whole file with other tensors; or the header as JSON, its length brought up to date."""
    if draw.random() < 0.4:
        return changed_tensors(draw, content)
    (n,) = struct.unpack_from("<Q", content)
    header, data = content[8 : 8 + n], content[8 + n :]
    if draw.random() < 0.2:
        return content[: 8 + n] + changed_bytes(draw, data)
    header = changed_json(draw, header)
    return struct.pack("<Q", len(header)) + header + data


def changed_tensors(draw: random.Random, content: bytes) -> bytes:
    """One tensor left out, renamed, doubled, or of another shape, type or value; the file itself stays whole."""
    import numpy as np
    from safetensors.numpy import load, save

    (n,) = struct.unpack_from("<Q", content)
    metadata = json.loads(content[8 : 8 + n]).get("__metadata__")
    held = load(content)
    name = draw.choice(sorted(held))
    tensor, how = held[name], draw.randrange(8)
    if how == 0:
        del held[name]
    elif how == 1:
        held[draw.choice(TEXTS)] = held.pop(name)
    elif how == 2:
        pieces = name.split(".")
        at = draw.randrange(len(pieces))
        pieces[at] = draw.choice(("0", "1", "7", "999999999", "-1", "x", *pieces))
        held[".".join(pieces)] = tensor
    elif how == 3:
        held[name] = held[draw.choice(sorted(held))]
    elif how == 4:
        held[name] = draw.choice((tensor.reshape(-1), tensor[..., None], tensor.T, tensor.ravel()[:1].reshape(())))
    elif how == 5:
        shape = list(tensor.shape) or [1]
        shape[draw.randrange(len(shape))] = draw.choice((0, 1, 2, 3, 5, 64))
        held[name] = np.resize(tensor, shape) if tensor.size else np.zeros(shape, tensor.dtype)
    elif how == 6:
        held[name] = tensor.astype(draw.choice(("f2", "f8", "i8", "u1", "?")))
    elif tensor.size and tensor.ndim:
        tensor = tensor.copy()
        with np.errstate(all="ignore"):
            value = np.array(draw.choice((0, -1, np.nan, np.inf, 1e38, 2**40)))
            tensor.reshape(-1)[draw.randrange(tensor.size)] = value.astype(tensor.dtype)
        held[name] = tensor
    return save({key: value.copy() for key, value in held.items()}, metadata)


def changed_matlab(draw: random.Random, content: bytes) -> bytes:
    """Inside a compressed element, where the file has one."""
    raw, at = content, 128
    elements = []  # (start, end)
    while at + 8 <= len(raw):
        kind, size = struct.unpack_from("<II", raw, at)
        if kind == 15:
            elements.append((at, at + 8 + size))
        at += 8 + size
    if not elements:
        return changed_bytes(draw, content)
    start, end = draw.choice(elements)
    packed = zlib.compress(changed_bytes(draw, zlib.decompress(raw[start + 8 : end])), 1)
    return raw[:start] + struct.pack("<II", 15, len(packed)) + packed + raw[end:]


def changed_hdf5(draw: random.Random, content: bytes) -> bytes:
    """A whole HDF5 file with a data set, attribute or group of another kind."""
    import h5py
    import numpy as np

    held = io.BytesIO(content)
    with h5py.File(held, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = draw.choice(names)
        how = draw.randrange(9)
        item = file[name]
        if how == 0 or (how < 5 and isinstance(item, h5py.Group) and how != 2):
            for key in list(item.attrs):
                item.attrs[key] = draw.choice((0, -1, "x", np.nan, [1, 2, 3], b"\xff"))
            if how == 0:
                del file[name]
            return _closed(file, held)
        if how == 1:
            item.attrs[draw.choice(("MATLAB_class", "height", "width", "geometry"))] = draw.choice(
                (0, "x", b"\xff", -5)
            )
        elif how == 2:
            del file[name]
            file[name] = draw.choice((h5py.SoftLink("/" + name), h5py.SoftLink("/nowhere"),
                                      h5py.ExternalLink("/etc/passwd", "/")))  # fmt: skip
        elif how == 3:
            shape, kind = draw.choice(((), (0,), (1,), (3, 2), (2**40,))), draw.choice(("f2", "i8", "u1", "f8", "S5"))
            del file[name]
            file.create_dataset(name, shape, kind, chunks=(1024,) if shape == (2**40,) else None)
        elif how == 4:
            values = draw.choice((np.array([np.nan, np.inf, -1.0]), np.arange(5), np.array([b"x", b"\xff\xfe"]),
                                  np.zeros((2, 2), "c8"), 3.5, np.array([2**63 - 1]), np.array([True])))  # fmt: skip
            del file[name]
            file[name] = values
        elif how == 5:
            del file[name]
            file.create_group(name)
        elif isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf" and item.size and item.ndim:
            values = item[()]
            place = draw.randrange(values.size)
            with np.errstate(all="ignore"):
                values.reshape(-1)[place] = np.array(draw.choice((0, -1, 1e300, np.nan, 2**31, 70000))).astype(
                    item.dtype
                )
            item[...] = values
        elif isinstance(item, h5py.Dataset):
            del file[name]
        return _closed(file, held)


def _closed(file: Any, held: io.BytesIO) -> bytes:
    file.close()
    return held.getvalue()


STRUCTURED: dict[str, Callable[[random.Random, bytes], bytes]] = {
    **dict.fromkeys((".txt", ".csv", ".tsv", ".asc", ".vhdr", ".md", ".vmrk"), changed_text),
    ".json": changed_json, ".jsonl": changed_lines_of_json, ".yaml": changed_yaml, ".gz": changed_gzip,
    **dict.fromkeys((".zip", ".npz", ".ckpt", ".pt2", ".pth"), changed_zip),
    ".safetensors": changed_safetensors, ".mat": changed_matlab, ".set": changed_matlab,
    **dict.fromkeys((".h5", ".nir"), changed_hdf5),
}  # fmt: skip
