"""A file server on this machine that behaves as servers of data sets do at their worst."""

from tests.local_server import LocalServer, QuietHandler


class FileHandler(QuietHandler):
    server: "FileServer"

    def do_GET(self) -> None:
        path, asked = self.path, self.headers.get("Range")
        self.server.requests.append((path, asked))
        if status := self.server.statuses.get(path):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path not in self.server.files:
            self.send_error(404)
            return
        content, mark = self.server.files[path], self.server.marks.get(path, '"1"')
        start = 0
        if asked and self.server.ranges and self.headers.get("If-Range", mark) == mark:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", mark)
        if self.server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        rest = content[start:]
        if self.server.drop_every and len(rest) > self.server.drop_every:
            self.wfile.write(rest[: self.server.drop_every])
            self.close_connection = True
            return
        self.wfile.write(rest)
        self.close_connection = not self.server.lengths


class FileServer(LocalServer):
    """files: path -> content. drop_every: of a file, the bytes after which a connection ends; 0: never.

    ranges: whether it resumes. statuses: path -> status it answers instead. requests: path and Range of each.
    """

    handler = FileHandler

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.drop_every = 0
        self.ranges = True
        self.lengths = True
        self.statuses: dict[str, int] = {}
        self.marks: dict[str, str] = {}
        self.requests: list[tuple[str, str | None]] = []
