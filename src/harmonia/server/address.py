"""The address file of a running server, inside the memory's folder and readable by its owner only.

`harmonia recall`, `retrieve`, `ask` and `remember` read it and use the server, whose models are loaded.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
from pathlib import Path

log = logging.getLogger("harmonia.server")

FILE = Path(".server") / "address.json"
"""Path inside the memory's folder. The file has the URL, the process id and the owner's token."""


def publish(memory: Path, url: str, token: str) -> None:
    """Write the address file of a memory; no-op if the memory does not exist yet."""
    if not memory.is_dir():
        return
    file = memory / FILE
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    note = {"url": url.replace("//0.0.0.0:", "//127.0.0.1:"), "pid": os.getpid(), "token": token}
    try:
        file.parent.mkdir(exist_ok=True)
        file.parent.chmod(0o700)  # jobs and uploads name files of the owner
        temporary.unlink(missing_ok=True)
        # mode 0600 from creation on: the token grants all rights of the owner
        temporary.touch(0o600, exist_ok=False)
        temporary.write_text(json.dumps(note), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        log.warning("the address of the server cannot be written: commands open the memory", exc_info=error)


def proof(memory: Path, token: str, nonce: str) -> str:
    """What only a server of this very folder that holds the token can answer to a nonce.

    A copy of the folder has the token, but another inode; a stranger on the same port has neither.
    """
    stat = memory.stat()
    message = f"{nonce} {stat.st_dev} {stat.st_ino}".encode()
    return hmac.new(token.encode(), message, hashlib.sha256).hexdigest()


def withdraw(memory: Path, token: str) -> None:
    """Remove the address file, unless another server has replaced it."""
    file = memory / FILE
    try:
        if json.loads(file.read_text(encoding="utf-8")).get("token") == token:
            file.unlink()
    except (OSError, ValueError, AttributeError):
        pass
