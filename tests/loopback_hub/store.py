"""Repositories and their content on the disk: JSON beside blobs that are named by their SHA-256."""

import hashlib
import json
import os
import secrets
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

TYPES = ("models", "datasets", "spaces")
# a file is stored "as LFS" when its name matches one of these, or above a size (the Hub's .gitattributes)
LFS_PATTERNS = (
    "*.safetensors", "*.bin", "*.pt", "*.pth", "*.onnx", "*.parquet", "*.arrow", "*.h5", "*.npz", "*.zip", "*.tar",
    "*.gz", "*.msgpack", "*.pkl", "*.pickle", "*.joblib", "*.model", "*.mp4", "*.webm",
)  # fmt: skip
LFS_THRESHOLD = 10 * 1024 * 1024
CHUNK = 1 << 20


class HubError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


class Store:
    """Repositories (json) and blobs (content addressed) under one directory; every public method is locked."""

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        self.blobs, self.repos = self.root / "blobs", self.root / "repos"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.repos.mkdir(parents=True, exist_ok=True)
        self.lock = threading.RLock()

    def blob_path(self, sha256: str) -> Path:
        if len(sha256) != 64 or any(c not in "0123456789abcdef" for c in sha256):
            raise HubError(400, "malformed oid")
        return self.blobs / sha256

    def put_stream(self, stream, length: int, expect: str | None = None, to: Path | None = None) -> str:
        """Write `length` bytes of `stream`; refuse content whose sha256 is not `expect`."""
        tmp = self.blobs / f".tmp-{secrets.token_hex(8)}"
        digest, left = hashlib.sha256(), length
        try:
            with open(tmp, "wb") as f:
                while left:
                    data = stream.read(min(CHUNK, left))
                    if not data:
                        raise HubError(400, "truncated body")
                    f.write(data)
                    digest.update(data)
                    left -= len(data)
            sha = digest.hexdigest()
            if expect is not None and sha != expect:
                raise HubError(400, f"sha256 mismatch: got {sha}, expected {expect}")
            os.replace(tmp, to or self.blob_path(sha))
            return sha
        finally:
            tmp.unlink(missing_ok=True)

    def put_bytes(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        path = self.blob_path(sha)
        if not path.exists():
            tmp = path.with_name(f".tmp-{secrets.token_hex(8)}")
            tmp.write_bytes(data)
            os.replace(tmp, path)
        return sha

    def _file(self, rtype: str, repo_id: str) -> Path:
        parts = repo_id.split("/")
        if rtype not in TYPES or len(parts) != 2 or any(p in ("", ".", "..") or "\\" in p for p in parts):
            raise HubError(404, "Repository not found", "RepoNotFound")
        return self.repos / rtype / parts[0] / f"{parts[1]}.json"

    def exists(self, rtype: str, repo_id: str) -> bool:
        return self._file(rtype, repo_id).exists()

    def load(self, rtype: str, repo_id: str) -> dict:
        path = self._file(rtype, repo_id)
        if not path.exists():
            raise HubError(404, "Repository not found", "RepoNotFound")
        return json.loads(path.read_text())

    def save(self, rtype: str, repo_id: str, repo: dict) -> None:
        path = self._file(rtype, repo_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        tmp.write_text(json.dumps(repo))
        os.replace(tmp, path)

    def create(self, rtype: str, repo_id: str, private: bool, owner: str) -> dict:
        with self.lock:
            if self.exists(rtype, repo_id):
                raise HubError(409, "You already created this model repo")
            repo = {"id": repo_id, "private": private, "created": _now(), "branches": {}, "tags": {}, "commits": {}}
            self.save(rtype, repo_id, repo)
            attributes = "".join(f"{p} filter=lfs diff=lfs merge=lfs -text\n" for p in LFS_PATTERNS).encode()
            self.commit(
                rtype,
                repo_id,
                "main",
                owner,
                "initial commit",
                "",
                [("file", {".gitattributes": attributes})],
                create_branch=True,
            )
            return self.load(rtype, repo_id)

    def delete(self, rtype: str, repo_id: str) -> None:
        with self.lock:
            self.load(rtype, repo_id)
            self._file(rtype, repo_id).unlink()

    def list(self, rtype: str) -> list[dict]:
        return [json.loads(p.read_text()) for p in sorted((self.repos / rtype).glob("*/*.json"))]

    def resolve(self, repo: dict, revision: str | None) -> str:
        revision = revision or "main"
        for table, prefix in (("branches", "refs/heads/"), ("tags", "refs/tags/")):
            name = revision.removeprefix(prefix)
            if name in repo[table]:
                return repo[table][name]
        if revision in repo["commits"]:
            return revision
        if 7 <= len(revision) < 40:
            hits = [c for c in repo["commits"] if c.startswith(revision)]
            if len(hits) == 1:
                return hits[0]
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def tree(self, repo: dict, revision: str | None) -> tuple[str, dict]:
        oid = self.resolve(repo, revision)
        return oid, repo["commits"][oid]["files"]

    def open_request(self, rtype: str, repo_id: str, branch: str) -> int:
        """A pull request on a branch: a branch of its own, by number."""
        with self.lock:
            repo = self.load(rtype, repo_id)
            number = 1 + sum(name.startswith("refs/pr/") for name in repo["branches"])
            repo["branches"][f"refs/pr/{number}"] = self.resolve(repo, branch)
            self.save(rtype, repo_id, repo)
            return number

    def commit(
        self, rtype, repo_id, branch, author, title, message, operations, parent=None, create_branch=False
    ) -> str:
        """A new commit; an operation is a kind (file, lfsFile, deletedFile, deletedFolder) and what belongs to it."""
        with self.lock:
            repo = self.load(rtype, repo_id)
            branch = branch.removeprefix("refs/heads/")
            if branch not in repo["branches"] and not create_branch:
                raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
            head = repo["branches"].get(branch)
            if parent and head and not head.startswith(parent):
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            files = dict(repo["commits"][head]["files"]) if head else {}
            for kind, value in operations:
                if kind == "file":
                    for path, data in value.items():
                        sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                        files[path] = {"size": len(data), "oid": sha1, "sha256": self.put_bytes(data)}
                elif kind == "lfsFile":
                    blob = self.blob_path(value["oid"])
                    if not blob.exists():
                        raise HubError(400, f"LFS object {value['oid']} was not uploaded")
                    size = blob.stat().st_size
                    pointer = (
                        f"version https://git-lfs.github.com/spec/v1\noid sha256:{value['oid']}\nsize {size}\n".encode()
                    )
                    sha1 = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
                    files[value["path"]] = {
                        "size": size,
                        "oid": sha1,
                        "sha256": value["oid"],
                        "lfs": True,
                        "pointer": len(pointer),
                    }
                elif kind == "deletedFile":
                    if files.pop(value["path"], None) is None:
                        raise HubError(404, f"{value['path']} is not in the repository", "EntryNotFound")
                elif kind == "deletedFolder":
                    prefix = value["path"].rstrip("/") + "/"
                    files = {p: f for p, f in files.items() if not p.startswith(prefix)}
                else:
                    raise HubError(400, f"unknown operation {kind}")
            if head and files == repo["commits"][head]["files"]:
                return head  # like the Hub: an empty commit changes nothing
            body = {
                "parent": head,
                "title": title,
                "message": message,
                "author": author,
                "date": _now(),
                "files": files,
            }
            oid = hashlib.sha1(json.dumps([body, time.time_ns()], sort_keys=True).encode()).hexdigest()
            repo["commits"][oid] = body
            repo["branches"][branch] = oid
            self.save(rtype, repo_id, repo)
            return oid
