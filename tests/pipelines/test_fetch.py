"""`spikeloom data fetch`: files arrive whole over bad connections, wrong ones are set aside, no archive leads out."""

import hashlib
import io
import json
import logging
import tarfile
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from spikeloom.pipelines import cli
from spikeloom.pipelines.config.register import register
from spikeloom.pipelines.datasets import download, fetch, osf, sources
from spikeloom.pipelines.datasets.sources import RemoteFile, Source
from spikeloom.pipelines.datasets.unpack import unpack
from tests.file_server import FileServer
from tests.local_server import running

register()
CONTENT = np.random.default_rng(0).integers(0, 256, 1_000_003, dtype=np.uint8).tobytes()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(download, "WAIT_S", 0.001)
    with running(FileServer()) as found:
        found.files["/a.bin"] = CONTENT
        yield found


def remote(server: FileServer, name: str = "a.bin", **also: object) -> RemoteFile:
    return RemoteFile(name=name, url=f"{server.url}/{name}", **also)  # type: ignore[arg-type]


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def source(*files: RemoteFile, **also: object) -> Source:
    return Source(title="Words", licence="CC BY 4.0", home="https://example.org", files=files, **also)  # type: ignore[arg-type]


def test_connections_that_end_at_every_tenth_are_resumed(server, tmp_path) -> None:
    server.drop_every = len(CONTENT) // 10
    path = download.fetch_file(remote(server, n_bytes=len(CONTENT), checksum=sha256(CONTENT)), tmp_path)
    assert path.read_bytes() == CONTENT
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for _, asked in server.requests if asked]
    assert len(server.requests) == 11 and starts == [(i + 1) * server.drop_every for i in range(10)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin"]


def test_a_later_call_goes_on_where_an_earlier_one_was_killed(server, tmp_path) -> None:
    (tmp_path / ".a.bin.part").write_bytes(CONTENT[:300_000])
    assert download.fetch_file(remote(server), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["bytes=300000-"]


@pytest.mark.parametrize("lengths", [True, False])
def test_a_server_that_cannot_resume_is_read_from_the_beginning(server, tmp_path, lengths: bool) -> None:
    server.ranges, server.lengths = False, lengths
    (tmp_path / ".a.bin.part").write_bytes(CONTENT[:300_000])
    assert download.fetch_file(remote(server), tmp_path).read_bytes() == CONTENT


def test_two_versions_of_a_file_are_never_joined(server, tmp_path) -> None:
    (tmp_path / ".a.bin.part").write_bytes(bytes(300_000))
    (tmp_path / ".a.bin.validator").write_text('"0"')
    assert download.fetch_file(remote(server), tmp_path).read_bytes() == CONTENT


def test_all_that_arrived_of_a_file_of_unknown_size_is_recognised(server, tmp_path) -> None:
    (tmp_path / ".a.bin.part").write_bytes(CONTENT)
    assert download.fetch_file(remote(server), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_wrong_checksum_sets_the_file_aside(server, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"sha256 .*expected 0+.*a\.bin\.rejected"):
        download.fetch_file(remote(server, checksum=f"sha256:{'0' * 64}"), tmp_path)
    assert not (tmp_path / "a.bin").exists()
    assert (tmp_path / "a.bin.rejected").read_bytes() == CONTENT


def test_a_file_of_another_size_is_refused_before_it_is_read(server, tmp_path) -> None:
    with pytest.raises(ValueError, match="1,000,003 bytes, and the published file 5"):
        download.fetch_file(remote(server, n_bytes=5), tmp_path)
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("status", [202, 403, 404])
def test_a_server_that_does_not_hand_out_the_file_is_named_with_its_answer(server, tmp_path, status: int) -> None:
    server.statuses["/a.bin"] = status
    with pytest.raises(ValueError, match=rf"the server answers {status}.*with a browser"):
        download.fetch_file(remote(server), tmp_path)
    assert len(server.requests) == 1


def test_a_server_in_trouble_is_asked_again_a_few_times(server, tmp_path) -> None:
    server.statuses["/a.bin"] = 503
    with pytest.raises(ConnectionError, match=r"cannot be reached.*Service Unavailable.*connect"):
        download.fetch_file(remote(server), tmp_path)
    assert len(server.requests) == download.FRUITLESS


def test_a_full_disk_is_said_before_anything_is_fetched(server, tmp_path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage(10**9, 10**9, 100))
    with pytest.raises(ValueError, match=r"the rest of a\.bin needs 1 MB, and 100 B are free"):
        download.fetch_file(remote(server), tmp_path)
    with pytest.raises(ValueError, match=r"words needs 3 MB"):
        fetch.fetch("words", source(remote(server, n_bytes=len(CONTENT), unpack=True)),
                    (remote(server, n_bytes=len(CONTENT), unpack=True),), tmp_path, accept_license=True)  # fmt: skip


# --- data sets ------------------------------------------------------------------------------------------------------


def zip_of(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, text in members.items():
            packed.writestr(name.replace("__", "/"), text)
    return buffer.getvalue()


@pytest.fixture
def words(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A data set of an archive and a plain file, read below $SPIKELOOM_DATA."""
    server.files["/words.zip"] = zip_of(top__yes__1="one", top__no__2="two")
    server.files["/list.txt"] = b"yes/1\n"
    made = source(
        remote(server, "words.zip", checksum=sha256(server.files["/words.zip"]), unpack=True, strip=1),
        remote(server, "list.txt"),
    )
    monkeypatch.setitem(sources.SOURCES, "gsc_v1", made)
    monkeypatch.setenv("SPIKELOOM_DATA", str(tmp_path))
    return made


def test_a_second_call_fetches_nothing(words, server, tmp_path, capsys, caplog) -> None:
    caplog.set_level(logging.INFO, "spikeloom")
    folder = tmp_path / "gsc_v1"
    assert fetch.fetch("words", words, words.files, folder, accept_license=True) == 2
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        "yes/1", "no/2", "list.txt", "fetched.json",
    }  # fmt: skip
    kept = json.loads((folder / "fetched.json").read_text())
    assert kept["licence"] == "CC BY 4.0" and kept["files"]["words.zip"]["unpacked"] == ["no", "yes"]
    assert kept["files"]["list.txt"]["checksum"] == "recorded at first download"
    assert hashlib.sha256(b"yes/1\n").hexdigest() == kept["files"]["list.txt"]["sha256"]
    assert "recorded at first download" in caplog.text
    asked = len(server.requests)
    assert fetch.fetch("words", words, words.files, folder, accept_license=False) == 0
    assert len(server.requests) == asked
    (folder / "list.txt").unlink()
    assert fetch.fetch("words", words, words.files, folder, accept_license=True) == 1
    cli.main(["data", "list"])
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line and line[0] != " "}
    assert "yes, fetched" in rows["gsc_v1"] and "CC BY 4.0" in rows["gsc_v1"]
    assert " no " in rows["ssc"] and "https://zenkelab.org" in rows["ssc"]


def test_nothing_is_fetched_before_the_licence_is_accepted(words, server, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["data", "fetch", "dataset=gsc_v1"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("spikeloom:")]
    assert "licence: CC BY 4.0 (https://example.org)" in line and "accept_license=true" in line
    assert server.requests == []
    cli.main(["data", "fetch", "dataset=gsc_v1", "accept_license=true"])
    assert (tmp_path / "gsc_v1/yes/1").read_text() == "one"


def test_offline_is_one_line(words, server, tmp_path, capsys, monkeypatch) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["data", "fetch", "dataset=gsc_v1", "accept_license=true"])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("spikeloom:")]
    assert "words.zip cannot be reached" in line and "connect to the network" in line


def test_unknown_data_sets_and_those_without_a_link_say_what_to_do(tmp_path, capsys) -> None:
    for name, said in (("fsd", "fsdd"), ("imagenet", "ILSVRC2012_img_train.tar"), ("dvs128", "8a5c71fb")):
        with pytest.raises(SystemExit):
            cli.main(["data", "fetch", f"dataset={name}", f"root={tmp_path / name}"])
        assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_file_fetched_by_hand_is_checked_and_unpacked(tmp_path) -> None:
    content = zip_of(DvsGesture__trials="x")
    by_hand = source(RemoteFile(name="a.zip", url=None, checksum=sha256(content), unpack=True, strip=1), steps="ask")
    with pytest.raises(ValueError, match=rf"no direct link.*ask.*{tmp_path / 'a.zip'}"):
        fetch.fetch("words", by_hand, by_hand.files, tmp_path, accept_license=True)
    (tmp_path / "a.zip").write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"not the published file.*a\.zip\.rejected"):
        fetch.fetch("words", by_hand, by_hand.files, tmp_path, accept_license=True)
    (tmp_path / "a.zip").write_bytes(content)
    fetch.fetch("words", by_hand, by_hand.files, tmp_path, accept_license=True)
    assert (tmp_path / "trials").read_text() == "x" and not (tmp_path / "a.zip").exists()


def test_every_source_is_told_where_it_is_read_and_how_it_is_checked() -> None:
    from spikeloom.pipelines.commands.data import folder_of

    assert {
        "fsdd",
        "gsc35",
        "gsc_v1",
        "asc",
        "shd",
        "ssc",
        "mnist",
        "cifar10",
        "cifar100",
        "nmnist",
        "dvs128",
        "zuco",
    } <= (set(sources.SOURCES))
    for name in sources.SOURCES:
        found = fetch.source_of(name)
        assert found.licence and found.home and (found.files or found.steps or found.osf), name
        assert folder_of(name).name == {"asc": "arabic_speech_commands", "gsc35": "gsc", "gsc12": "gsc"}.get(name, name)
        for file in found.files:
            assert file.checksum is None or len(file.checksum) in (len("md5:") + 32, len("sha256:") + 64), file.name
            assert (file.url or "https://").startswith("https://")


# --- archives -------------------------------------------------------------------------------------------------------


def tar_of(member: tarfile.TarInfo, content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        good = tarfile.TarInfo("ok/file")
        good.size = 2
        packed.addfile(good, io.BytesIO(b"ok"))
        member.size = len(content) if member.isreg() else 0
        packed.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def special(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "archive",
    [
        tar_of(special("../evil")), tar_of(special("/tmp/evil")), tar_of(special("ok/../../evil")),
        tar_of(special("ok/link", tarfile.SYMTYPE, "/etc/passwd")),
        tar_of(special("ok/hard", tarfile.LNKTYPE, "ok/file")),
        tar_of(special("ok/pipe", tarfile.FIFOTYPE)), tar_of(special("C:evil")),
        zip_of(**{"..__evil": "x"}), zip_of(**{"ok__..__..__evil": "x"}), zip_of(**{"__evil": "x"}),
        zip_of(**{"ok\\..\\evil": "x"}),
    ],
)  # fmt: skip
def test_members_that_lead_out_of_the_folder_are_refused(archive: bytes, tmp_path) -> None:
    inner = tmp_path / "data/set"
    inner.mkdir(parents=True)
    (inner / "a.tgz").write_bytes(archive)
    with pytest.raises(ValueError, match=r"a\.tgz: .*(leads out|link or a device).*nothing was kept"):
        unpack(inner / "a.tgz", inner)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.tgz"]
    assert not Path("/tmp/evil").exists()


def test_links_in_a_zip_are_refused(tmp_path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match="link or a device"):
        unpack(tmp_path / "a.zip", tmp_path)


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros", bytes(64 << 20))
    with pytest.raises(ValueError, match="which no data set of its size does"):
        unpack(tmp_path / "bomb.zip", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["bomb.zip"]


def test_damaged_archives_and_taken_names_change_nothing(tmp_path) -> None:
    whole = tar_of(special("ok/second"), CONTENT)
    (tmp_path / "a.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.tgz cannot be unpacked"):
        unpack(tmp_path / "a.tgz", tmp_path)
    (tmp_path / "a.tgz").write_bytes(whole)
    (tmp_path / "ok").mkdir()
    (tmp_path / "ok/mine").write_text("mine")
    with pytest.raises(ValueError, match=r"ok is there already"):
        unpack(tmp_path / "a.tgz", tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] in (["a.tgz", "mine"], ["mine", "a.tgz"])
    assert unpack(tmp_path / "a.tgz", tmp_path, strip=1, only="second").names == ["second"]


# --- the Open Science Framework -------------------------------------------------------------------------------------


def osf_double(server: FileServer) -> str:
    """Two projects with folders, several pages and files of other kinds; returns the address of the interface."""

    def folder(name: str, href: str) -> dict:
        return {"attributes": {"kind": "folder", "name": name},
                "relationships": {"files": {"links": {"related": {"href": server.url + href}}}}}  # fmt: skip

    def file(name: str) -> dict:
        server.files[f"/get/{name}"] = name.encode()
        hashes = {"sha256": hashlib.sha256(name.encode()).hexdigest(), "md5": "0"}
        return {"attributes": {"kind": "file", "name": name, "size": len(name), "extra": {"hashes": hashes}},
                "links": {"download": f"{server.url}/get/{name}"}}  # fmt: skip

    def page(path: str, entries: list[dict], following: str | None = None) -> None:
        links = {"next": following and server.url + following}
        server.files[path] = json.dumps({"data": entries, "links": links}).encode()

    page(
        "/v2/nodes/q3zws/files/osfstorage/?page[size]=100",
        [folder("task1- SR", "/sr"), folder("task2 - NR", "/nr"), folder("Scripts", "/never"), file("README.txt")],
    )
    page("/sr", [folder("Raw data", "/never"), folder("Matlab files", "/sr/mat")])
    page("/sr/mat", [file("resultsZAB_SR.mat"), file("notes.mat")], "/sr/mat/2")
    page("/sr/mat/2", [file("resultsZDM_SR.mat")])
    page("/nr", [folder("Matlab files", "/nr/mat")])
    page("/nr/mat", [file("resultsZAB_NR.mat")])
    page("/v2/nodes/2urht/files/osfstorage/?page[size]=100", [folder("task1 - NR", "/nr2")])
    page("/nr2", [folder("Matlab files", "/nr2/mat")])
    page("/nr2/mat", [file("resultsYAC_NR.mat")])
    return server.url + "/v2"


def test_zuco_is_fetched_by_task_and_reader(server, tmp_path, monkeypatch) -> None:
    api = osf_double(server)
    names = [file.name for file in osf.zuco_files(["SR1"], api=api)]
    assert names == ["resultsZAB_SR.mat", "resultsZDM_SR.mat"]
    assert [f.name for f in osf.zuco_files(["SR1", "NR2"], ["ZAB", "YAC"], api)] == [
        "resultsYAC_NR.mat",
        "resultsZAB_SR.mat",
    ]
    assert not any(path == "/never" for path, _ in server.requests)
    with pytest.raises(ValueError, match=r"no reader ZZZ in SR1"):
        osf.zuco_files(["SR1"], ["ZZZ"], api)
    with pytest.raises(ValueError, match=r"names no task of ZuCo"):
        osf.zuco_files(["SR2"], api=api)
    monkeypatch.setattr(fetch, "zuco_files", lambda tasks, readers: osf.zuco_files(tasks, readers, api))
    cli.main(
        ["data", "fetch", "dataset=zuco", f"root={tmp_path}", "tasks=[NR1]", "readers=[ZAB]", "accept_license=true"]
    )
    assert (tmp_path / "resultsZAB_NR.mat").read_bytes() == b"resultsZAB_NR.mat"


def test_a_listing_that_leads_elsewhere_or_is_none_is_refused(server) -> None:
    first = "/v2/nodes/q3zws/files/osfstorage/?page[size]=100"
    server.files[first] = json.dumps({"data": [], "links": {"next": "http://127.0.0.2:1/"}}).encode()
    with pytest.raises(ValueError, match=r"leads to http://127\.0\.0\.2"):
        osf.zuco_files(["SR1"], api=server.url + "/v2")
    server.files[first] = b'{"data": 3, "links": {}}'
    with pytest.raises(ValueError, match="not a listing"):
        osf.zuco_files(["SR1"], api=server.url + "/v2")
    server.files[first] = b"<html>"
    with pytest.raises(ValueError, match="not JSON"):
        osf.zuco_files(["SR1"], api=server.url + "/v2")
