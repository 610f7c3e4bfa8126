"""Requests, answers and who may do what; what is asked for stands in `routes` and `files`."""

import json
import secrets
import tempfile
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from .store import HubError


class BaseHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _go(self):
        url = urlsplit(self.path)
        self.route = [unquote(p) for p in url.path.split("/") if p]
        self.query = {k: v[-1] for k, v in parse_qs(url.query).items()}
        self._status, self._body_read = 0, False
        if self.server.cuts(self.command, self.path):
            self.close_connection = True
            return
        try:
            self._dispatch()
        except HubError as err:
            headers = {"X-Error-Message": err.message.replace("\n", " ")}
            if err.code:
                headers["X-Error-Code"] = err.code
            self._json({"error": err.message}, err.status, headers)
        except BrokenPipeError:
            self.close_connection = True
        except Exception as err:  # a bug in this server
            self._json({"error": f"{type(err).__name__}: {err}"}, 500)
        finally:
            self.server.record(self.command, self.path, self._status)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _go

    def _length(self) -> int:
        return int(self.headers.get("Content-Length") or 0)

    def _stream(self):
        """(file object, length) of the request body; chunked bodies are spooled first."""
        self._body_read = True
        if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
            spool = tempfile.TemporaryFile()  # noqa: SIM115
            while (size := int(self.rfile.readline().split(b";")[0] or b"0", 16)) > 0:
                spool.write(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            length = spool.tell()
            spool.seek(0)
            return spool, length
        return self.rfile, self._length()

    def _body(self) -> bytes:
        stream, length = self._stream()
        return stream.read(length)

    def _payload(self):
        body = self._body()
        try:
            return json.loads(body or b"{}")
        except ValueError:
            # paths-info is sent as a form
            return dict(parse_qs(body.decode()))

    def _send(
        self, status: int, body: bytes = b"", headers: dict | None = None, ctype="application/json; charset=utf-8"
    ):
        if not self._body_read and (self._length() or self.headers.get("Transfer-Encoding")):
            self._body()  # drain, to keep the connection usable
        self._status = status
        self.send_response(status)
        headers = dict(headers or {})
        headers.setdefault("Content-Type", ctype)
        headers.setdefault("Content-Length", str(len(body)))
        headers.setdefault("X-Request-Id", secrets.token_hex(8))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value, status: int = 200, headers: dict | None = None):
        self._send(status, json.dumps(value).encode(), headers)

    @property
    def user(self) -> str | None:
        auth = self.headers.get("Authorization") or ""
        if not auth:
            return None
        user = self.server.users.get(auth.removeprefix("Bearer ").strip())
        if user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return user

    def _need_user(self) -> str:
        if self.user is None:
            raise HubError(401, "Invalid username or password.")
        return self.user

    def _may_write(self, repo_id: str) -> str:
        user = self._need_user()
        if repo_id.split("/")[0] not in self.server.namespaces(user):
            raise HubError(403, "You don't have the rights to write to this namespace")
        return user

    def _read(self, rtype: str, repo_id: str) -> dict:
        """The repo, or the Hub's answers: 401 RepoNotFound for missing/private + anonymous, 404 for another user."""
        missing = HubError(401 if self.user is None else 404, "Repository not found", "RepoNotFound")
        if not self.server.store.exists(rtype, repo_id):
            raise missing
        repo = self.server.store.load(rtype, repo_id)
        if repo["private"] and (self.user is None or repo_id.split("/")[0] not in self.server.namespaces(self.user)):
            raise missing
        return repo
