"""A process that runs `hiva`, and Python, against a Hub: its environment is read when libraries are imported."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

_LOOP = """
import contextlib, io, json, os, sys, time, traceback
from hiva_hf import cli
import transformers, huggingface_hub, torch  # paid once
channel = os.fdopen(os.dup(1), "w", buffering=1)
for line in sys.stdin:
    asked = json.loads(line)
    for name, value in asked["environment"].items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    out, err, code, start = io.StringIO(), io.StringIO(), 0, time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if "script" in asked:
                exec(compile(asked["script"], "script", "exec"), {"__name__": "script"})
            else:
                sys.argv = ["hiva", *asked["arguments"]]
                cli.main()
        except SystemExit as exit_:
            code = exit_.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
    answer = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "seconds": time.perf_counter() - start}
    channel.write(json.dumps(answer) + "\\n")
"""


class HubClient:
    """Runs commands one after the other in one process.

    Args:
        folder (`Path`): For its caches.
        url (`str`): Of the Hub.
        settings: Further variables of its environment.
    """

    def __init__(self, folder, url, **settings):
        environment = {
            **os.environ,
            "HF_ENDPOINT": url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HOME": str(folder / "home"),
            "HF_HUB_OFFLINE": "0",
            **settings,
        }
        environment.pop("HF_TOKEN", None)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd=folder,
        )

    def _ask(self, token, **asked):
        self._process.stdin.write(json.dumps({"environment": {"HF_TOKEN": token}, **asked}) + "\n")
        self._process.stdin.flush()
        return SimpleNamespace(**json.loads(self._process.stdout.readline()))

    def hiva(self, *arguments, token=None):
        """Run the command; `code`, `out`, `err` and `seconds`."""
        return self._ask(token, arguments=[*map(str, arguments)])

    def python(self, script, token=None):
        """Run a script."""
        return self._ask(token, script=script)

    def close(self):
        """End the process."""
        self._process.stdin.close()
        self._process.wait(30)
