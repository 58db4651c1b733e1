"""Files that are read again after a training, for its page and for comparisons, and what downloads leave."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

from spikeloom.pipelines.commands.report import run as report
from spikeloom.pipelines.config.report import ReportConfig
from spikeloom.pipelines.datasets.fetch import MANIFEST, fetch, state
from spikeloom.pipelines.datasets.sources import RemoteFile, Source
from spikeloom.pipelines.datasets.unpack import Unpacked, unpack
from spikeloom.pipelines.reports.comparison import ComparedRun, read_run, results, settings
from spikeloom.pipelines.reports.distillation import AVERAGED
from spikeloom.pipelines.training.run_dir import finished
from tests.fuzz.parser import Parser, only_file
from tests.pipelines.test_pages import finished as finished_run

CURRICULUM = {
    "resolutions_ms": [10.0], "trainer": {"epochs": 2}, "distillation": {"temperature": 2.0, "kl_weight": 0.5},
    "teacher_pick": "best_acc", "optimizer": {"lr": 0.1},
}  # fmt: skip


def curricula(folder: Path) -> None:
    run = folder / "0" / "run"
    run.mkdir(parents=True)
    row = {"stage": "0", "resolution_ms": 10.0, **dict.fromkeys(AVERAGED, 0.5)}
    found = {"name": "x", "seed": 0, "settings_sha256": "0" * 64, "stages": [row]}
    (run / "curriculum.json").write_text(json.dumps(found), "utf-8")
    (run / "config.yaml").write_text(yaml.safe_dump(CURRICULUM), "utf-8")


def read_compared(folder: Path) -> ComparedRun:
    run = read_run(folder / "run", "run")
    results([run, run]), settings([run, run])
    return run


def compared(folder: Path) -> None:
    run = finished_run(folder / "0", "run")
    (run / "sim").mkdir()
    (run / "sim" / "report.json").write_text(json.dumps({"energy_per_iteration_pj": 5.5}), "utf-8")


# --- downloads ------------------------------------------------------------------------------------------------------

WANTED = RemoteFile(name="a.bin", url="http://127.0.0.1:9/a.bin", n_bytes=3)
SOURCE = Source(title="x", home="http://127.0.0.1:9", licence="CC0", files=(WANTED,))


def manifests(folder: Path) -> None:
    (folder / "0").mkdir()
    (folder / "0" / "a.bin").write_bytes(b"abc")
    (folder / "0" / "b").write_bytes(b"abc")
    entry = {"url": "u", "bytes": 3, "sha256": "0", "fetched": "2026-01-01", "checksum": "c"}
    found = {"files": {"a.bin": entry, "b.zip": {**entry, "unpacked": ["b"], "unpacked_files": 1}}}
    (folder / "0" / MANIFEST).write_text(json.dumps(found), "utf-8")


def read_manifest(folder: Path) -> Any:
    wanted = [WANTED, RemoteFile(name="b.zip", url=WANTED.url, unpack=True)]
    return state(folder), fetch("x", SOURCE, wanted, folder, accept_license=False)


def archives(folder: Path) -> None:
    contents = {"top/a.txt": b"some text " * 9, "top/b/c.bin": bytes(range(256))}
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", compression) as packed:
            for name, content in contents.items():
                packed.writestr(name, content)
        (folder / f"zip{compression}").mkdir()
        (folder / f"zip{compression}" / "a.zip").write_bytes(held.getvalue())
    for compression in ("", "gz", "bz2", "xz"):
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode=f"w:{compression}") as tar:  # type: ignore[call-overload]
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        (folder / f"tar{compression}").mkdir()
        (folder / f"tar{compression}" / "a.tar").write_bytes(held.getvalue())


def read_archive(folder: Path) -> tuple[Path, Unpacked]:
    archive, before = only_file(folder), set(folder.parent.iterdir())
    try:
        found = unpack(archive, folder, strip=1)
    finally:
        assert set(folder.parent.iterdir()) == before, "a member left the folder"
    return folder, found


def is_unpacked(result: tuple[Path, Unpacked]) -> None:
    folder, found = result
    assert found.names and all((folder / name).exists() and "/" not in name for name in found.names)
    assert not any(path.is_symlink() for path in folder.rglob("*"))


PARSERS = [
    Parser(
        name="curriculum_page",
        write=curricula,
        read=lambda f: report(ReportConfig(run=str(f / "run"))),
        mutates=("config.yaml",),
        covers=("pipelines/commands/report.py:run",),
    ),
    Parser(
        name="finished_result",
        write=compared,
        read=lambda f: finished(f / "run", ("test_accuracy", "seconds")),
        mutates=("result.json",),
        covers=("pipelines/training/run_dir.py:finished",),
    ),
    Parser(
        name="compared_run",
        write=compared,
        read=read_compared,
        covers=("pipelines/reports/comparison.py:read_run", "pipelines/reports/comparison.py:_number"),
    ),
    Parser(
        name="fetch_manifest",
        write=manifests,
        read=read_manifest,
        mutates=(".json",),
        covers=("pipelines/datasets/fetch.py:_manifest",),
    ),
    Parser(
        name="archives",
        write=archives,
        read=read_archive,
        promise=is_unpacked,
        covers=("pipelines/datasets/unpack.py:_members", "pipelines/datasets/unpack.py:_of_zip"),
    ),
]
