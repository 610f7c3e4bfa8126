"""A small Hub on loopback, on the disk: what huggingface_hub asks a server when it creates, pushes and pulls.

    with HubServer(folder, users={"hf_alice": "alice"}, orgs={"org": ["alice"]}) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice", "HF_HUB_DISABLE_XET": "1"}
        ...  # a process with this environment meets the Hub
        hub.requests  # [(method, path, status), ...]

It stores large files as git-LFS, in parts above `part_size`. It knows nothing of Xet, gated repositories and paging.
"""

import hmac
import secrets
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from urllib.parse import quote

from .routes import Handler
from .store import HubError, Store


class HubServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        root,
        users: dict[str, str] | None = None,
        orgs: dict[str, list[str]] | None = None,
        port: int = 0,
        part_size: int = 64 * 1024 * 1024,
    ):
        super().__init__(("127.0.0.1", port), Handler)
        self.store = Store(root)
        self.users = users or {}  # token -> user
        self.orgs = orgs or {}  # organisation -> members
        self.part_size = part_size
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.requests: list[tuple[str, str, int]] = []
        self.missing: list[tuple[str, str]] = []  # (repo, path) asked for and not there
        self._secret = secrets.token_bytes(16)
        # whose connection is cut before it is answered
        self.cuts: Callable[[str, str], bool] = lambda method, path: False

    def namespaces(self, user: str) -> list[str]:
        return [user] + [org for org, members in self.orgs.items() if user in members]

    def sign(self, oid: str) -> str:
        return hmac.new(self._secret, oid.encode(), "sha256").hexdigest()[:32]

    def cdn_url(self, oid: str, commit: str | None = None) -> str:
        return f"{self.url}/_cdn/{quote(oid)}?sig={self.sign(oid)}" + (f"&commit={commit}" if commit else "")

    def record(self, method: str, path: str, status: int) -> None:
        self.requests.append((method, path, status))

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()


__all__ = ["HubError", "HubServer"]
