"""A Hugging Face Hub in miniature on this machine: repositories, uploads in one commit, downloads by revision."""

import base64
import hashlib
import json
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.local_server import LocalServer, QuietHandler


class HubHandler(QuietHandler):
    server: "Hub"

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), Content_Type="application/json")

    def _missing(self, code: str) -> None:
        self._send(404, b"{}", X_Error_Code=code)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        if path == "/api/repos/create":
            given = json.loads(body)
            name = "/".join(filter(None, (given.get("organization"), given["name"])))
            if name not in self.server.repos:
                self.server.repos[name] = {"0" * 40: {}}
                self.server.heads[name, "main"] = "0" * 40
            self._json({"url": f"{self.server.url}/{name}", "id": name, "name": name})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/(.+/.+)/preupload/(.+)", path):
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for f in json.loads(body)["files"]]  # fmt: skip
            self._json({"files": files})
        elif match := re.fullmatch(r"/api/models/(.+/.+)/commit/(.+)", path):
            self._commit(*match.groups(), body)
        elif match := re.fullmatch(r"/api/models/(.+/.+)/branch/(.+)", path):
            repo, branch = match.groups()
            self.server.heads.setdefault((repo, branch), self.server.heads[repo, "main"])
            self._json({})
        else:
            self._send(404)

    def _commit(self, repo: str, branch: str, body: bytes) -> None:
        before = self.server.repos[repo][self.server.commit_of(repo, branch)]
        files = dict(before)
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        digest = hashlib.sha1(json.dumps({n: hashlib.sha1(c).hexdigest() for n, c in sorted(files.items())}).encode())
        commit = digest.hexdigest()
        self.server.repos[repo][commit] = files
        self.server.heads[repo, branch] = commit
        self._json({"commitUrl": f"{self.server.url}/{repo}/commit/{commit}", "commitOid": commit, "success": True})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?(?:/.*)?", path):
            repo, what, revision = match.groups()
            commit = self.server.commit_of(repo, revision or "main")
            if repo not in self.server.repos:
                self._missing("RepoNotFound")
            elif commit not in self.server.repos[repo]:
                self._missing("RevisionNotFound")
            elif what == "tree":
                files = self.server.repos[repo][commit]
                self._json([{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                            for n, c in sorted(files.items())])  # fmt: skip
            else:
                siblings = [{"rfilename": name} for name in sorted(self.server.repos[repo][commit])]
                self._json({"id": repo, "sha": commit, "private": False, "tags": [], "siblings": siblings})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo, revision, name = match.groups()
            commit = self.server.commit_of(repo, revision)
            content = self.server.repos.get(repo, {}).get(commit, {}).get(name)
            if content is None:
                self._missing("EntryNotFound")
            else:
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                self._send(200, content, ETag=etag, X_Repo_Commit=commit, Accept_Ranges="bytes")
        else:
            self._send(404)


class Hub(LocalServer):
    """repos: name -> revision (branch or commit) -> file -> bytes."""

    handler = HubHandler

    def __init__(self) -> None:
        super().__init__()
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.heads: dict[tuple[str, str], str] = {}  # (repository, branch) -> commit

    def commit_of(self, repo: str, revision: str) -> str:
        return self.heads.get((repo, revision), revision)
