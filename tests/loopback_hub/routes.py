"""What the Hub's API answers: users, repositories, revisions, trees, commits and pull requests."""

import base64
import fnmatch
import hashlib
import json
import secrets
from pathlib import Path

from .files import FileRoutes
from .store import LFS_PATTERNS, LFS_THRESHOLD, TYPES, HubError


class Handler(FileRoutes):
    def _dispatch(self):
        r, m = self.route, self.command
        if r[:1] == ["api"]:
            if r[1:] == ["whoami-v2"]:
                user = self._need_user()
                orgs = [{"name": n, "type": "org"} for n in self.server.namespaces(user) if n != user]
                return self._json(
                    {
                        "type": "user",
                        "name": user,
                        "fullname": user,
                        "orgs": orgs,
                        "auth": {"accessToken": {"displayName": "loopback", "role": "write"}},
                    }
                )
            if r[1:] == ["agent-harnesses"]:  # asked once per process, for the user agent
                return self._json({"standardEnvVars": [], "harnesses": []})
            if r[1:] == ["validate-yaml"] and m == "POST":
                return self._validate_yaml()
            if r[1:] == ["repos", "create"] and m == "POST":
                return self._create()
            if r[1:] == ["repos", "delete"] and m == "DELETE":
                body = self._payload()
                repo_id = f"{body.get('organization') or self._need_user()}/{body['name']}"
                self._may_write(repo_id)
                self.server.store.delete(f"{body.get('type') or 'model'}s", repo_id)
                return self._send(200)
            if len(r) == 2 and r[1] in TYPES and m == "GET":
                return self._listing(r[1])
            if len(r) >= 4 and r[1] in TYPES:
                return self._repo_api(r[1], f"{r[2]}/{r[3]}", r[4:])
        elif r[:1] == ["_lfs"]:
            return self._lfs_object(r[1:])
        elif r[:1] == ["_cdn"] and len(r) == 2:
            return self._cdn(r[1])
        else:
            rtype, rest = (r[0], r[1:]) if r[:1] and r[0] in ("datasets", "spaces") else ("models", r)
            if len(rest) >= 2 and rest[1].endswith(".git") and rest[2:] == ["info", "lfs", "objects", "batch"]:
                return self._lfs_batch(rtype, f"{rest[0]}/{rest[1].removesuffix('.git')}")
            if len(rest) >= 5 and rest[2] in ("resolve", "raw") and m in ("GET", "HEAD"):
                return self._resolve(rtype, f"{rest[0]}/{rest[1]}", rest[3:])
            if len(rest) == 2 and m in ("GET", "HEAD"):
                self._read(rtype, "/".join(rest))
                return self._send(200, b"<html>loopback hub</html>", ctype="text/html")
        raise HubError(404, f"no such route: {m} {self.path}")

    def _validate_yaml(self):
        body = self._payload()
        errors, warnings = [], []
        try:
            import yaml

            content = body.get("content", "")
            block = content.split("---")[1] if content.startswith("---") else ""
            meta = yaml.safe_load(block) if block else {}
            if not meta:
                warnings.append({"message": "empty or missing yaml metadata in repo card"})
            elif body.get("repoType") == "model" and "license" not in meta:
                warnings.append({"message": "license is not set"})
        except ImportError:
            pass
        except Exception as err:
            errors.append({"message": f"yaml: {err}"})
        self._json({"errors": errors, "warnings": warnings}, 400 if errors else 200)

    def _create(self):
        body = self._payload()
        user = self._need_user()
        namespace = body.get("organization") or user
        repo_id, rtype = f"{namespace}/{body['name']}", f"{body.get('type') or 'model'}s"
        self._may_write(repo_id)
        private = body.get("visibility") == "private" or bool(body.get("private"))
        prefix = "" if rtype == "models" else f"{rtype}/"
        answer = {"url": f"{self.server.url}/{prefix}{repo_id}", "name": repo_id, "id": secrets.token_hex(12)}
        if self.server.store.exists(rtype, repo_id):
            return self._json({**answer, "error": "You already created this model repo"}, 409)
        self.server.store.create(rtype, repo_id, private, user)
        self._json(answer)

    def _listing(self, rtype: str):
        out = []
        for repo in self.server.store.list(rtype):
            namespace = repo["id"].split("/")[0]
            if repo["private"] and (self.user is None or namespace not in self.server.namespaces(self.user)):
                continue
            if self.query.get("author") not in (None, namespace) or self.query.get("search", "") not in repo["id"]:
                continue
            out.append(self._info(rtype, repo, "main"))
        self._json(out)

    def _info(self, rtype: str, repo: dict, revision: str | None) -> dict:
        oid, files = self.server.store.tree(repo, revision)
        info = {
            "_id": hashlib.sha1(repo["id"].encode()).hexdigest()[:24],
            "id": repo["id"],
            "modelId": repo["id"],
            "author": repo["id"].split("/")[0],
            "sha": oid,
            "private": repo["private"],
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "createdAt": repo["created"],
            "lastModified": repo["commits"][oid]["date"],
            "tags": [],
            "siblings": [self._sibling(p, f) for p, f in sorted(files.items())],
        }
        card = self._card(files)
        if card:
            info["cardData"] = card
            info["tags"] = list(card.get("tags") or [])
            for key in ("pipeline_tag", "library_name"):
                if card.get(key):
                    info[key] = card[key]
        if "config.json" in files and rtype == "models":
            try:
                config = json.loads(self.server.store.blob_path(files["config.json"]["sha256"]).read_text())
                info["config"] = {k: config[k] for k in ("architectures", "model_type", "auto_map") if k in config}
                info.setdefault("library_name", "transformers")
                if "auto_map" in config:
                    info["tags"].append("custom_code")
            except ValueError:
                pass
        return info

    def _card(self, files: dict) -> dict | None:
        try:
            import yaml

            text = self.server.store.blob_path(files["README.md"]["sha256"]).read_text()
            return yaml.safe_load(text.split("---")[1]) if text.startswith("---") else None
        except Exception:
            return None

    def _sibling(self, path: str, f: dict) -> dict:
        out = {"rfilename": path, "size": f["size"], "blobId": f["oid"]}
        if f.get("lfs"):
            out["lfs"] = {"sha256": f["sha256"], "size": f["size"], "pointerSize": f["pointer"]}
        return out

    def _entry(self, path: str, f: dict) -> dict:
        out = {"type": "file", "path": path, "size": f["size"], "oid": f["oid"]}
        if f.get("lfs"):
            out["lfs"] = {"oid": f["sha256"], "size": f["size"], "pointerSize": f["pointer"]}
        return out

    def _repo_api(self, rtype: str, repo_id: str, rest: list[str]):
        store, m = self.server.store, self.command
        verb, tail = (rest[0] if rest else ""), rest[1:]
        if m == "GET":
            repo = self._read(rtype, repo_id)
            if verb == "":
                return self._json(self._info(rtype, repo, "main"))
            if verb == "revision":
                return self._json(self._info(rtype, repo, "/".join(tail)))
            if verb == "tree":
                return self._tree(repo, tail)
            if verb == "refs":

                def refs(table, kind):
                    return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in repo[table].items()]

                return self._json({"branches": refs("branches", "heads"), "tags": refs("tags", "tags"), "converts": []})
            if verb == "commits":
                oid, out = store.resolve(repo, "/".join(tail)), []
                while oid:
                    c = repo["commits"][oid]
                    out.append(
                        {
                            "id": oid,
                            "title": c["title"],
                            "message": c["message"],
                            "date": c["date"],
                            "authors": [{"user": c["author"]}],
                        }
                    )
                    oid = c["parent"]
                return self._json(out)
        if m == "POST" and verb == "paths-info":
            repo = self._read(rtype, repo_id)
            oid, files = store.tree(repo, "/".join(tail))
            wanted, out = self._payload().get("paths", []), []
            for path in [wanted] if isinstance(wanted, str) else wanted:
                if path in files:
                    out.append(self._entry(path, files[path]))
                elif any(p.startswith(path.rstrip("/") + "/") for p in files):
                    out.append(
                        {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
                    )
            return self._json(out)
        # everything below writes
        repo = self._read(rtype, repo_id)
        # everybody may propose
        user = self._need_user() if self.query.get("create_pr") else self._may_write(repo_id)
        if m == "POST" and verb == "preupload":
            files = store.tree(repo, "/".join(tail))[1]
            out = []
            for f in self._payload()["files"]:
                lfs = f["size"] >= LFS_THRESHOLD or any(fnmatch.fnmatch(Path(f["path"]).name, p) for p in LFS_PATTERNS)
                have = files.get(f["path"])
                out.append(
                    {
                        "path": f["path"],
                        "uploadMode": "lfs" if lfs else "regular",
                        "shouldIgnore": False,
                        "oid": (have["sha256"] if have.get("lfs") else have["oid"]) if have else None,
                    }
                )
            return self._json({"files": out})
        if m == "POST" and verb == "commit":
            header, operations = {}, []
            for line in self._body().splitlines():
                if not line.strip():
                    continue
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "header":
                    header = value
                elif item["key"] == "file":
                    operations.append(("file", {value["path"]: base64.b64decode(value["content"])}))
                else:
                    operations.append((item["key"], value))
            branch, request = "/".join(tail), None
            if self.query.get("create_pr"):
                request = store.open_request(rtype, repo_id, branch)
                branch = f"refs/pr/{request}"
            oid = store.commit(
                rtype,
                repo_id,
                branch,
                user,
                header.get("summary", ""),
                header.get("description", ""),
                operations,
                parent=header.get("parentCommit"),
            )
            prefix = "" if rtype == "models" else f"{rtype}/"
            return self._json(
                {
                    "success": True,
                    "commitOid": oid,
                    "hookOutput": "",
                    "commitUrl": f"{self.server.url}/{prefix}{repo_id}/commit/{oid}",
                    "pullRequestUrl": request and f"{self.server.url}/{prefix}{repo_id}/discussions/{request}",
                }
            )
        if verb == "branch" and m in ("POST", "DELETE"):
            name = "/".join(tail)
            with store.lock:
                repo = store.load(rtype, repo_id)
                if m == "DELETE":
                    if repo["branches"].pop(name, None) is None:
                        raise HubError(404, "no such branch", "RevisionNotFound")
                else:
                    start = self._payload().get("startingPoint")
                    if name in repo["branches"]:
                        raise HubError(409, "Reference already exists")
                    repo["branches"][name] = store.resolve(repo, start)
                store.save(rtype, repo_id, repo)
            return self._send(200)
        if verb == "tag" and m in ("POST", "DELETE"):
            with store.lock:
                repo = store.load(rtype, repo_id)
                if m == "DELETE":
                    if repo["tags"].pop("/".join(tail), None) is None:
                        raise HubError(404, "no such tag", "RevisionNotFound")
                else:
                    name = self._payload()["tag"]
                    if name in repo["tags"]:
                        raise HubError(409, "Tag already exists")
                    repo["tags"][name] = store.resolve(repo, "/".join(tail))
                store.save(rtype, repo_id, repo)
            return self._send(200)
        if verb == "settings" and m == "PUT":
            body = self._payload()
            with store.lock:
                repo = store.load(rtype, repo_id)
                if "visibility" in body or "private" in body:
                    repo["private"] = body.get("visibility") == "private" or bool(body.get("private"))
                store.save(rtype, repo_id, repo)
            return self._json({"private": repo["private"]})
        raise HubError(404, f"no such route: {m} {self.path}")

    def _tree(self, repo: dict, tail: list[str]):
        store = self.server.store
        for cut in range(len(tail), 0, -1):  # revisions may contain slashes
            try:
                files = store.tree(repo, "/".join(tail[:cut]))[1]
                break
            except HubError:
                continue
        else:
            raise HubError(404, "Invalid rev id", "RevisionNotFound")
        base = "/".join(tail[cut:])
        inside = {p: f for p, f in files.items() if not base or p.startswith(base + "/")}
        if base and not inside:
            raise HubError(404, "Entry not found", "EntryNotFound")
        recursive = self.query.get("recursive", "false").lower() in ("true", "1")
        out, folders = [], set()
        for path, f in sorted(inside.items()):
            parts = path[len(base) + 1 if base else 0 :].split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                folders.add("/".join(([base] if base else []) + parts[:depth]))
            if recursive or len(parts) == 1:
                out.append(self._entry(path, f))
        out += [
            {"type": "directory", "path": p, "oid": hashlib.sha1(p.encode()).hexdigest(), "size": 0}
            for p in sorted(folders)
        ]
        self._json(out)
