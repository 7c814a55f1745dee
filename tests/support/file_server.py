"""Real HTTP servers on this machine: files with faults on demand, and a small Hugging Face Hub."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse


class _Server:
    def __init__(self):
        owner = self
        self.log: list[tuple[str, str, str | None]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                path = unquote(urlparse(self.path).path)
                owner.log.append((self.command, path, self.headers.get("Range")))
                owner.handle(self, path)

            do_GET = do_HEAD = do_POST = do_PUT = handle_any

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()


def send(handler, status, data=b"", headers=None):
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(data)


def etag(data):
    return f'"{hashlib.md5(data).hexdigest()}"'


class FileServer(_Server):
    """``files``: path -> bytes. ``cuts``: how many replies end after ``cut_after`` bytes.
    ``errors``: statuses of the first replies."""

    def __init__(self, files, cuts=0, cut_after=1000, errors=()):
        super().__init__()
        self.files, self.cuts, self.cut_after, self.errors = files, cuts, cut_after, list(errors)

    def handle(self, handler, path):
        if self.errors:
            return send(handler, self.errors.pop(0))
        if path not in self.files:
            return send(handler, 404)
        data, start, status = self.files[path], 0, 200
        headers = {"ETag": etag(data)}
        asked = handler.headers.get("Range")
        if asked and handler.headers.get("If-Range") == etag(data):
            start, status = int(asked.split("=")[1].rstrip("-")), 206
            if start >= len(data):
                return send(handler, 416)
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        if self.cuts:
            self.cuts -= 1
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body[: self.cut_after])
            handler.close_connection = True
            return None
        return send(handler, status, body, headers)


class Hub(_Server):
    """As much of the Hub's protocol as reading and pushing a data set takes.

    ``repos``: name -> {path: bytes}.
    """

    def __init__(self, repos=None):
        super().__init__()
        self.repos = repos or {}

    def handle(self, handler, path):
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length) if length else b""
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "repos"]:
            value = json.loads(body)
            name = f"{value.get('organization') or 'me'}/{value['name']}"
            self.repos.setdefault(name, {})
            return self.json(handler, {"url": f"{self.url}/datasets/{name}", "name": name})
        if parts[:2] == ["api", "whoami-v2"]:
            return self.json(handler, {"name": "me", "type": "user", "auth": {}})
        if parts[:2] == ["api", "validate-yaml"]:
            return self.json(handler, {"errors": [], "warnings": []})
        if parts[:2] == ["api", "datasets"]:
            return self.repo(handler, "/".join(parts[2:4]), parts[4:], body)
        if parts[0] == "datasets" and "resolve" in parts:
            at = parts.index("resolve")
            return self.file(handler, "/".join(parts[1:at]), "/".join(parts[at + 2 :]))
        return send(handler, 404)

    def json(self, handler, value, status=200, headers=None):
        headers = {"Content-Type": "application/json", **(headers or {})}
        return send(handler, status, json.dumps(value).encode(), headers)

    def missing(self, handler, code):
        return self.json(handler, {"error": code}, 404, {"X-Error-Code": code})

    def file(self, handler, name, path):
        if name not in self.repos:
            return self.missing(handler, "RepoNotFound")
        if path not in self.repos[name]:
            return self.missing(handler, "EntryNotFound")
        data = self.repos[name][path]
        return send(handler, 200, data, {"ETag": etag(data), "X-Repo-Commit": "c" * 40})

    def repo(self, handler, name, rest, body):
        if name not in self.repos:
            return self.missing(handler, "RepoNotFound")
        files = self.repos[name]
        if rest[:1] == ["preupload"]:
            given = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for f in given
            ]
            return self.json(handler, {"files": modes})
        if rest[:1] == ["commit"]:
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    value = item["value"]
                    files[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "deletedFile":
                    files.pop(item["value"]["path"], None)
            return self.json(
                handler, {"commitUrl": f"{self.url}/c", "commitOid": "c" * 40, "success": True}
            )
        entries = [
            {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
            for path, data in files.items()
        ]
        if rest[:1] == ["tree"]:
            return self.json(handler, entries)
        siblings = [{"rfilename": path} for path in files]
        return self.json(
            handler,
            {"id": name, "sha": "c" * 40, "siblings": siblings, "private": True, "tags": []},
        )
