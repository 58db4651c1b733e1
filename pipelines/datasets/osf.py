"""ZuCo's result files on the Open Science Framework: which there are, with size and checksum, by task and reader."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from spikeloom.bci.zuco.reader import FILE_NAME
from spikeloom.pipelines.datasets.download import AGENT, TIMEOUT_S
from spikeloom.pipelines.datasets.sources import RemoteFile

API = "https://api.osf.io/v2"
NODES = {1: "q3zws", 2: "2urht"}  # version of ZuCo -> project
FOLDERS = re.compile(r"(?i)task ?\d ?- ?(?P<task>SR|NR|TSR)|matlab[ _]files")  # that may hold result files
LARGEST_LISTING = 32 << 20
MOST_PAGES = 200


def zuco_files(tasks: Sequence[str], readers: Sequence[str] = (), api: str = API) -> list[RemoteFile]:
    """The result files of some tasks and readers.

    Args:
        tasks: of SR1, NR1, TSR1 (version 1.0), NR2, TSR2 (2.0).
        readers: such as ZAB or YAC; empty: all of the tasks.
        api: address of the Open Science Framework's interface.

    Returns:
        Files by task and name, each below a folder of its version and task.

    Raises:
        ValueError: for a task or reader there is not.
        ConnectionError: where the listing cannot be reached.
    """
    known = [f"{task}{version}" for task, version in (("SR", 1), ("NR", 1), ("TSR", 1), ("NR", 2), ("TSR", 2))]
    if not tasks or set(tasks) - set(known):
        raise ValueError(f"tasks={list(tasks)} names no task of ZuCo; use one or more of {', '.join(known)}")
    found: dict[str, RemoteFile] = {}
    for version in sorted({int(task[-1]) for task in tasks}):
        wanted = {task[:-1] for task in tasks if task.endswith(str(version))}
        for entry in _walk(f"{api}/nodes/{NODES[version]}/files/osfstorage/?page[size]=100", wanted):
            name = entry["attributes"]["name"]
            match = FILE_NAME.fullmatch(name)
            if match is None or match[2] not in wanted or (readers and match[1] not in readers):
                continue
            hashes = (entry["attributes"].get("extra") or {}).get("hashes") or {}
            checksum = next((f"{a}:{hashes[a]}" for a in ("sha256", "md5") if hashes.get(a)), None)
            found[name] = RemoteFile(
                name=name, url=entry["links"]["download"], n_bytes=entry["attributes"].get("size"), checksum=checksum
            )
    if missing := sorted(set(readers) - {m[1] for name in found if (m := FILE_NAME.fullmatch(name))}):
        raise ValueError(
            f"no reader {', '.join(missing)} in {', '.join(tasks)}; names of version 1.0 begin with Z, of 2.0 with "
            "Y or X"
        )
    return [found[name] for name in sorted(found)]


def _walk(url: str, tasks: set[str]) -> Iterator[dict[str, Any]]:
    """Every file below a folder of one of the tasks."""
    host = urlsplit(url).netloc
    waiting, seen = [url], 0
    while waiting:
        address, seen = waiting.pop(), seen + 1
        if urlsplit(address).netloc != host or seen > MOST_PAGES:
            raise ValueError(f"{url}: the listing leads to {address}; get the files with a browser")
        listing = _listing(address)
        try:
            for entry in listing["data"]:
                attributes = entry["attributes"]
                if attributes["kind"] == "file":
                    yield entry
                elif (match := FOLDERS.search(attributes["name"])) and match["task"] in (None, *tasks):
                    waiting.append(entry["relationships"]["files"]["links"]["related"]["href"])
            if following := listing["links"].get("next"):
                waiting.append(following)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{address}: not a listing of the Open Science Framework ({error})") from error


def _listing(url: str) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": AGENT})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.loads(response.read(LARGEST_LISTING))
    except urllib.error.HTTPError as error:
        raise ValueError(f"{url}: the server answers {error.code} {error.reason}; try again later") from error
    except OSError as error:
        raise ConnectionError(
            f"{url} cannot be reached ({getattr(error, 'reason', error)}); connect to the network, or get the files by "
            "hand from https://osf.io/q3zws and https://osf.io/2urht"
        ) from error
    except ValueError as error:
        raise ValueError(f"{url}: the answer is not JSON ({error}); try again later") from error
