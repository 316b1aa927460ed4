"""A hub of huggingface_hub's HTTP interface on this machine: repositories in memory, every request kept."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
LARGE = (".safetensors", ".png", ".wav")  # what lies in LFS


class Hub:
    """repositories: files by name, by repository. said: lies about (repository, file): what is sent instead of its content."""

    def __init__(self):
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.private: dict[str, bool] = {}
        self.said: dict[tuple[str, str], bytes] = {}
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.address = ""

    def info(self, name: str) -> dict:
        files = []
        for path, content in self.repositories[name].items():
            digest = hashlib.sha256(content).hexdigest()
            lfs = {"sha256": digest, "size": len(content), "pointerSize": 130}
            files.append({"rfilename": path, "size": len(content)} | ({"lfs": lfs} if path.endswith(LARGE) else {}))
        return {"id": name, "sha": "c" * 40, "siblings": files, "private": False, "tags": [], "downloads": 0}

    def commit(self, name: str, lines: list[dict]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.repositories[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.repositories[name][value["path"]] = self.objects[value["oid"]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self):
        hub, path = self.hub, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.requests.append(f"{self.command} {path}")
        if path.startswith(
            ("/api/models", "/api/repos")
        ):  # the store of large files is given signed addresses, and no token
            hub.tokens.add(self.headers.get("Authorization"))
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            hub.repositories.setdefault(name, {})
            hub.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return self._json({"url": f"{hub.address}/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/put/(?P<oid>\w+)", path):
            hub.objects[found["oid"]] = body
            return self._json({})
        if found := re.fullmatch(rf"/{NAME}\.git/info/lfs/objects/batch", path):
            wanted = json.loads(body)["objects"]
            objects = [o | {"actions": {"upload": {"href": f"{hub.address}/put/{o['oid']}"}}} for o in wanted]
            return self._json({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(rf"/api/models/{NAME}/preupload/\w+", path):
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular"} for f in files
            ]
            return self._json({"files": [mode | {"shouldIgnore": False} for mode in modes]})
        if found := re.fullmatch(rf"/api/models/{NAME}/commit/\w+", path):
            hub.commit(found["name"], [json.loads(line) for line in body.splitlines() if line])
            return self._json({"commitUrl": f"{hub.address}/{found['name']}/commit/{'c' * 40}", "commitOid": "c" * 40})
        if (found := re.fullmatch(rf"/api/models/{NAME}(/revision/\w+)?", path)) and found["name"] in hub.repositories:
            return self._json(hub.info(found["name"]))
        if found := re.fullmatch(rf"/{NAME}/resolve/\w+/(?P<file>.+)", path):
            key = found["name"], found["file"]
            content = hub.repositories.get(key[0], {}).get(key[1])
            if content is not None:
                content = hub.said.get(key, content)
                return self._send(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"')
        return self._send(404, b"{}", **{"X-Error-Code": "RepoNotFound"})

    def _json(self, value) -> None:
        self._send(200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _send(self, code: int, content: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"X-Repo-Commit": "c" * 40, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
