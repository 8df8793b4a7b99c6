"""Where a running server says that it serves a memory: a file that only the memory's owner can read.

`harmonia recall`, `retrieve`, `ask` and `remember` find it there and go through the server, which is warm.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

FILE = Path(".server") / "address.json"
"""Inside the memory's folder: the URL, the process, and the token by which the owner's programs are known."""


def publish(memory: Path, url: str, token: str) -> None:
    """Write the address of the server of a memory; nothing where there is no memory yet."""
    if not memory.is_dir():
        return
    file = memory / FILE
    file.parent.mkdir(exist_ok=True)
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    # readable by its owner from the first moment on: the token may do all that the owner may
    temporary.touch(0o600, exist_ok=False)
    note = {"url": url.replace("//0.0.0.0:", "//127.0.0.1:"), "pid": os.getpid(), "token": token}
    temporary.write_text(json.dumps(note), encoding="utf-8")
    temporary.replace(file)


def withdraw(memory: Path, token: str) -> None:
    """Take the address back, unless another server has written its own meanwhile."""
    file = memory / FILE
    try:
        if json.loads(file.read_text(encoding="utf-8")).get("token") == token:
            file.unlink()
    except (OSError, ValueError, AttributeError):
        pass
