"""A stand-in of the Hub on the loopback: what huggingface_hub asks for to make a repository, commit to it and read it.

Weights go through the LFS upload, as on the Hub: a `batch` call names where each is put. Commits are whole trees.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


TOKEN, USER = "hf_of_a_test", "somebody"
# Kept apart from git's own objects by their names' ends, as `.gitattributes` of a new repository says.
_LARGE = (".safetensors", ".onnx", ".bin", ".png")


@dataclass
class Repository:
    """What a repository holds: commits, which are trees of path -> content, and names for them."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # branches, tags and refs/pr/N -> commit

    def commit(self, name: str, tree: dict[str, bytes], message: str) -> str:
        content = json.dumps([len(self.commits), sorted(tree)]).encode()
        oid = hashlib.sha1(content).hexdigest()
        self.commits[oid], self.messages[oid], self.names[name] = tree, message, oid
        return oid


class Refused(Exception):
    """An answer that is none: status and the Hub's code of it."""

    def __init__(self, status: int, code: str = "", content: Any = None) -> None:
        self.status, self.code, self.content = status, code, content or {"error": code}


class StandInHub:
    """The server, in a thread of its own; `address` is for HF_ENDPOINT."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # of LFS
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in one piece: two cost 40 ms, for which the second waits

            def log_message(self, *_: Any) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.asked.append(f"{self.command} {self.path}")
                try:
                    status, headers, content = 200, {}, hub.handle(self, body)
                    if isinstance(content, tuple):
                        headers, content = content
                except Refused as refused:
                    status, content = refused.status, refused.content
                    headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.code or "refused"}
                if not isinstance(content, bytes):
                    headers["Content-Type"], content = "application/json", json.dumps(content).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_HEAD = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """What a revision holds."""
        repository = self.repositories[repo_id]
        return repository.commits[repository.names.get(revision, revision)]

    def handle(self, request: BaseHTTPRequestHandler, body: bytes) -> Any:
        url = urlsplit(request.path)
        known = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        if request.command == "PUT" and url.path.startswith("/lfs/"):
            oid = url.path.removeprefix("/lfs/")
            assert hashlib.sha256(body).hexdigest() == oid
            self.objects[oid] = body
            return b""
        if request.command == "POST" and not known:
            raise Refused(401)
        for pattern, work in self._routes().items():
            found = re.fullmatch(pattern, f"{request.command} {url.path}")
            if found:
                groups = [unquote(group) for group in found.groups()]
                return work(known, body, parse_qs(url.query), *groups)
        raise Refused(404, "RepoNotFound")

    def _routes(self) -> dict[str, Callable[..., Any]]:
        repo = r"([^/]+/[^/]+)"
        return {
            "POST /api/repos/create": self._create,
            "POST /api/validate-yaml": lambda *_: {"errors": [], "warnings": []},
            f"POST /api/models/{repo}/preupload/([^/]+)": self._preupload,
            rf"POST /{repo}\.git/info/lfs/objects/batch": self._batch,
            f"POST /api/models/{repo}/commit/([^/]+)": self._commit,
            f"POST /api/models/{repo}/(?:branch|tag)/([^/]+)": self._name,
            f"GET /api/models/{repo}/tree/([^/]+)/?(.*)": self._tree,
            f"GET /api/models/{repo}": self._info,
            f"GET /api/models/{repo}/revision/([^/]+)": self._info,
            f"(?:GET|HEAD) /{repo}/resolve/([^/]+)/(.+)": self._file,
        }

    def _find(self, known: bool, repo_id: str, revision: str = "main") -> tuple[Repository, str]:
        repository = self.repositories.get(repo_id)
        if repository is None or (repository.private and not known):
            raise Refused(401 if not known else 404, "RepoNotFound")
        oid = repository.names.get(revision, revision)
        if oid not in repository.commits:
            raise Refused(404, "RevisionNotFound")
        return repository, oid

    def _create(self, known: bool, body: bytes, query: Any) -> Any:
        wanted = json.loads(body)
        repo_id = f"{wanted.get('organization') or USER}/{wanted['name']}"
        answer = {"url": f"{self.address}/{repo_id}", "name": repo_id, "id": repo_id}
        if repo_id in self.repositories:
            raise Refused(409, "", answer)
        made = self.repositories[repo_id] = Repository(private=wanted.get("visibility") == "private")
        made.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        return answer

    def _preupload(self, known: bool, body: bytes, query: Any, repo_id: str, revision: str) -> Any:
        self._find(known, repo_id, revision)
        return {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
        }

    def _batch(self, known: bool, body: bytes, query: Any, repo_id: str) -> Any:
        objects = []
        for wanted in json.loads(body)["objects"]:
            there = wanted["oid"] in self.objects
            actions = {} if there else {"actions": {"upload": {"href": f"{self.address}/lfs/{wanted['oid']}"}}}
            objects.append({**wanted, **actions})
        return {"transfer": "basic", "objects": objects}

    def _commit(self, known: bool, body: bytes, query: Any, repo_id: str, revision: str) -> Any:
        repository, parent = self._find(known, repo_id, revision)
        tree, message = dict(repository.commits[parent]), ""
        for line in body.splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "header":
                message = value["summary"]
            elif step["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "lfsFile":
                tree[value["path"]] = self.objects[value["oid"]]
            else:
                assert step["key"] == "deletedFile"
                del tree[value["path"]]
        name = f"refs/pr/{len(repository.commits)}" if "create_pr" in query else revision
        oid = repository.commit(name, tree, message)
        url = f"{self.address}/{repo_id}"
        return {
            "commitUrl": f"{url}/commit/{oid}",
            "commitOid": oid,
            "pullRequestUrl": f"{url}/discussions/{name.rpartition('/')[2]}",
        }

    def _name(self, known: bool, body: bytes, query: Any, repo_id: str, name: str) -> Any:
        wanted = json.loads(body)
        # A branch is made from its starting point; of a tag the path says the revision, and the body the tag.
        start = name if "tag" in wanted else wanted.get("startingPoint", "main")
        repository, oid = self._find(known, repo_id, start)
        name = wanted.get("tag", name)
        if name in repository.names:
            raise Refused(409)
        repository.names[name] = oid
        return {}

    def _tree(self, known: bool, body: bytes, query: Any, repo_id: str, revision: str, folder: str) -> Any:
        repository, oid = self._find(known, repo_id, revision)
        found = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in repository.commits[oid].items()
            if path.startswith(folder)
        ]
        if not found:
            raise Refused(404, "EntryNotFound")
        return found

    def _info(self, known: bool, body: bytes, query: Any, repo_id: str, revision: str = "main") -> Any:
        repository, oid = self._find(known, repo_id, revision)
        siblings = [{"rfilename": path} for path in repository.commits[oid]]
        return {"id": repo_id, "sha": oid, "private": repository.private, "siblings": siblings}

    def _file(self, known: bool, body: bytes, query: Any, repo_id: str, revision: str, path: str) -> Any:
        repository, oid = self._find(known, repo_id, revision)
        content = repository.commits[oid].get(path)
        if content is None:
            raise Refused(404, "EntryNotFound")
        return {"X-Repo-Commit": oid, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}, content
