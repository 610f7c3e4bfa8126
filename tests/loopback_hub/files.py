"""Content: uploads of large files in one piece or several, and downloads, whole or a range."""

import hmac
import json
import math
import shutil

from .handler import BaseHandler
from .store import CHUNK, HubError


class FileRoutes(BaseHandler):
    def _lfs_batch(self, rtype: str, repo_id: str):
        body = self._payload()
        self._read(rtype, repo_id)
        upload = body.get("operation") == "upload"
        if upload:
            self._need_user()
        objects, multipart = [], False
        for obj in body["objects"]:
            oid, size = obj["oid"], obj["size"]
            out = {"oid": oid, "size": size}
            path = self.server.store.blob_path(oid)
            if not upload:
                if not path.exists():
                    out["error"] = {"code": 404, "message": "object not found"}
                else:
                    out["actions"] = {"download": {"href": self.server.cdn_url(oid)}}
            elif not path.exists():
                sig = self.server.sign(oid)
                verify = {"href": f"{self.server.url}/_lfs/verify/{oid}?sig={sig}"}
                if size > self.server.part_size and "multipart" in body.get("transfers", []):
                    multipart = True
                    header = {"chunk_size": str(self.server.part_size)}
                    for n in range(1, math.ceil(size / self.server.part_size) + 1):
                        header[str(n).zfill(5)] = f"{self.server.url}/_lfs/part/{oid}/{n}?sig={sig}"
                    out["actions"] = {
                        "upload": {"href": f"{self.server.url}/_lfs/complete/{oid}?sig={sig}", "header": header},
                        "verify": verify,
                    }
                else:
                    out["actions"] = {
                        "upload": {"href": f"{self.server.url}/_lfs/put/{oid}?sig={sig}"},
                        "verify": verify,
                    }
            objects.append(out)
        self._send(
            200,
            json.dumps({"transfer": "multipart" if multipart else "basic", "objects": objects}).encode(),
            ctype="application/vnd.git-lfs+json",
        )

    def _lfs_object(self, rest: list[str]):
        store, kind, oid = self.server.store, rest[0], rest[1]
        if not hmac.compare_digest(self.query.get("sig", ""), self.server.sign(oid)):
            raise HubError(403, "bad signature")
        if kind == "put" and self.command == "PUT":
            stream, length = self._stream()
            store.put_stream(stream, length, expect=oid)
            return self._send(200)
        parts = self.server.store.root / "parts" / oid
        if kind == "part" and self.command == "PUT":
            parts.mkdir(parents=True, exist_ok=True)
            stream, length = self._stream()
            sha = store.put_stream(stream, length, to=parts / f"{int(rest[2]):05d}")
            return self._send(200, headers={"ETag": f'"{sha[:32]}"'})
        if kind == "complete" and self.command == "POST":
            want = self._payload()["parts"]
            pieces = sorted(parts.iterdir())
            if len(pieces) != len(want):
                raise HubError(400, "missing parts")
            whole = parts.with_suffix(".whole")
            with open(whole, "wb") as out:
                for piece in pieces:
                    with open(piece, "rb") as f:
                        shutil.copyfileobj(f, out, CHUNK)
            with open(whole, "rb") as f:
                store.put_stream(f, whole.stat().st_size, expect=oid)
            whole.unlink()
            shutil.rmtree(parts)
            return self._send(200, b"{}")
        if kind == "verify" and self.command == "POST":
            path = store.blob_path(oid)
            if not path.exists() or path.stat().st_size != self._payload().get("size"):
                raise HubError(404, "object not found")
            return self._send(200, b"{}")
        raise HubError(404, "no such LFS route")

    def _resolve(self, rtype: str, repo_id: str, tail: list[str]):
        repo = self._read(rtype, repo_id)
        store = self.server.store
        for cut in range(1, len(tail)):
            try:
                commit, files = store.tree(repo, "/".join(tail[:cut]))
                break
            except HubError:
                continue
        else:
            raise HubError(404, "Invalid rev id", "RevisionNotFound")
        path = "/".join(tail[cut:])
        if path not in files:
            self.server.missing.append((repo_id, path))
            raise_headers = {
                "X-Repo-Commit": commit,
                "X-Error-Code": "EntryNotFound",
                "X-Error-Message": "Entry not found",
            }
            return self._json({"error": "Entry not found"}, 404, raise_headers)
        f = files[path]
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if f.get("lfs"):
            headers.update(
                {
                    "X-Linked-Size": str(f["size"]),
                    "X-Linked-Etag": f'"{f["sha256"]}"',
                    "Location": self.server.cdn_url(f["sha256"], commit),
                }
            )
            return self._send(302, b"", headers)
        headers["ETag"] = f'"{f["oid"]}"'
        self._blob(f["sha256"], headers)

    def _cdn(self, oid: str):
        if not hmac.compare_digest(self.query.get("sig", ""), self.server.sign(oid)):
            raise HubError(403, "bad signature")
        headers = {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"}
        if "commit" in self.query:  # huggingface_hub follows redirects inside one host, and wants these at the end
            headers.update(
                {
                    "X-Repo-Commit": self.query["commit"],
                    "X-Linked-Etag": f'"{oid}"',
                    "X-Linked-Size": str(self.server.store.blob_path(oid).stat().st_size),
                }
            )
        self._blob(oid, headers)

    def _blob(self, sha256: str, headers: dict):
        path = self.server.store.blob_path(sha256)
        size = path.stat().st_size
        start, end, status = 0, size - 1, 200
        byte_range = self.headers.get("Range", "")
        if byte_range.startswith("bytes=") and "," not in byte_range:
            first, _, last = byte_range[6:].partition("-")
            start = int(first) if first else max(0, size - int(last))
            end = min(int(last), size - 1) if first and last else size - 1
            if start >= size and size:
                return self._send(416, b"", {"Content-Range": f"bytes */{size}"})
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        length = end - start + 1 if size else 0
        self._status = status
        self.send_response(status)
        for key, value in {
            **headers,
            "Content-Type": "application/octet-stream",
            "Content-Length": str(length),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            with open(path, "rb") as f:
                f.seek(start)
                while length:
                    data = f.read(min(CHUNK, length))
                    self.wfile.write(data)
                    length -= len(data)
