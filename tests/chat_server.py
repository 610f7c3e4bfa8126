"""A server on loopback that speaks the chat-completions protocol, and can fail in every way that servers do."""

import itertools
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ChatServer(ThreadingHTTPServer):
    """Answers with what `reply(body)` gives, but first with each of `failures`, one a request.

    A failure is a status (429 and 503 with `Retry-After`), `"timeout"`, `"garbage"` (no JSON), `"truncated"` (the body
    breaks off), `"hangup"` (the connection does) or `"empty"` (JSON without choices).
    """

    daemon_threads = True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply, self.failures, self.requests = reply, [], []

    @property
    def url(self) -> str:
        """Base address, as OPENAI_BASE_URL has it."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(
            {"path": self.path, "body": body, "token": self.headers.get("Authorization"), "time": time.monotonic()}
        )
        failure = self.server.failures.pop(0) if self.server.failures else None
        if isinstance(failure, int):
            content = json.dumps({"error": {"message": f"failure {failure}"}}).encode()
            self.send_response(failure)
            if failure in (429, 503):
                self.send_header("Retry-After", "1")
        elif failure == "timeout":
            time.sleep(3)
            return
        elif failure == "hangup":
            self.close_connection = True
            return
        elif failure == "garbage":
            content = b"<html>busy</html>"
            self.send_response(200)
        else:
            message = {"role": "assistant", "content": self.server.reply(body)}
            choices = [] if failure == "empty" else [{"index": 0, "message": message, "finish_reason": "stop"}]
            content = json.dumps({"id": "1", "created": 0, "model": body["model"], "choices": choices}).encode()
            self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if failure == "truncated":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)


@contextmanager
def chat_server(reply):
    """A server that runs until the block ends."""
    with ChatServer(reply) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


PARTS = {"lip corner puller": "mouth corner", "brow lowerer": "brow", "jaw drop": "jaw"}
WORDS = itertools.cycle("".join(letters) for letters in itertools.product("bdfgklmn", "aeiou", "prstvz", "aeiou"))


def good_reply(body):
    """A sentence about what was asked for, and about nothing that was said before."""
    text = body["messages"][-1]["content"]
    part = next(part for name, part in PARTS.items() if f"Action unit: {name}" in text)
    words = " ".join(next(WORDS) for _ in range(9))
    return json.dumps({"text": f"The {part} {words} is seen on the face."})
