"""The address file of a running server, inside the memory's folder and readable by its owner only.

`harmonia recall`, `retrieve`, `ask` and `remember` read it and use the server, whose models are loaded.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

FILE = Path(".server") / "address.json"
"""Path inside the memory's folder. The file has the URL, the process id and the owner's token."""


def publish(memory: Path, url: str, token: str) -> None:
    """Write the address file of a memory; no-op if the memory does not exist yet."""
    if not memory.is_dir():
        return
    file = memory / FILE
    file.parent.mkdir(exist_ok=True)
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    # mode 0600 from creation on: the token grants all rights of the owner
    temporary.touch(0o600, exist_ok=False)
    note = {"url": url.replace("//0.0.0.0:", "//127.0.0.1:"), "pid": os.getpid(), "token": token}
    temporary.write_text(json.dumps(note), encoding="utf-8")
    temporary.replace(file)


def withdraw(memory: Path, token: str) -> None:
    """Remove the address file, unless another server has replaced it."""
    file = memory / FILE
    try:
        if json.loads(file.read_text(encoding="utf-8")).get("token") == token:
            file.unlink()
    except (OSError, ValueError, AttributeError):
        pass
