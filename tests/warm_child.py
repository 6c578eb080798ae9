"""The child that looks at a file before the package does, as a copy of a process that has started already.

To start Python and import h5py takes a fifth of a second, and hundreds of tests read an HDF5 file. The code, its limits
and what the package makes of the answer are the same. ``tests/storage/test_hdf5.py``, ``tests/test_untrusted.py`` and
the fuzzing start the child as the package does.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from typing import Any

_TEMPLATE = """
import json, os, signal, sys, tempfile, traceback
import h5py
for line in sys.stdin:
    asked = json.loads(line)
    said = [tempfile.TemporaryFile() for _ in range(2)]
    child = os.fork()
    if child == 0:
        signal.alarm(asked["seconds"])
        for file, number in zip(said, (1, 2)):
            os.dup2(file.fileno(), number)
        sys.argv, code = ["-c", *asked["arguments"]], 1
        try:
            exec(asked["code"], {"__name__": "__main__"})
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = []
    for file in said:
        file.seek(0)
        texts.append(file.read().decode(errors="replace"))
        file.close()
    print(json.dumps([code, *texts]), flush=True)
"""
_SIGALRM = 14


class WarmSubprocess:
    """Stands for the module ``subprocess`` in ``napari_cpnn.untrusted``."""

    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()  # docks read files in several threads

    def run(self, command: list[str], *, timeout: float, env: dict[str, str], **_: Any) -> Any:
        """Run ``python -I -c code arguments`` in a copy of the process."""
        _python, _isolated, _c, code, *arguments = command
        with self._lock:
            status, out, err = self._ask(code, arguments, math.ceil(timeout), env)
        if status == -_SIGALRM:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, status, out, err)

    def _ask(self, code: str, arguments: list[str], seconds: int, env: dict[str, str]) -> tuple[int, str, str]:
        if self._process is None:
            start = [sys.executable, "-I", "-c", _TEMPLATE]
            self._process = subprocess.Popen(
                start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=os.sep
            )
        asked = {"code": code, "arguments": arguments, "seconds": seconds}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        status, out, err = json.loads(self._process.stdout.readline())
        return status, out, err

    def close(self) -> None:
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
