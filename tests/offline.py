"""Run a Harmonia command in a process that ends, with code 97 or SIGSYS, when anything in it connects.

    python -m tests.offline recall moon

Python's own calls are seen by an audit hook; those of native libraries by the kernel (seccomp, on Linux). A
socket alone is no connection: urllib3, which the store imports, binds one to ask whether IPv6 is there.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from typing import Any

CODE = 97
CALLS = (
    "socket.connect",
    "socket.sendto",
    "socket.sendmsg",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
)
CONNECT = {"x86_64": 42, "aarch64": 203}
"""Number of the system call that connects; a look-up of a name connects too."""
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """End the process, since an exception might be caught by what asked."""
    if event in CALLS:
        os.write(2, f"offline: {event} {arguments}\n".encode())
        os._exit(CODE)


def forbid() -> bool:
    """Have the kernel kill this process when it connects; False where that cannot be."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in CONNECT:
        return False
    rows = [
        (LOAD, 0, 0, 4),  # the architecture
        (EQUAL, 0, 2, ARCHITECTURE[machine]),
        (LOAD, 0, 0, 0),  # the system call
        (EQUAL, 1, 0, CONNECT[machine]),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, KILL),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in rows))
    program = struct.pack("HxxxxxxP", len(rows), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, by_filter = 38, 22, 2
    libc.prctl(no_new_privileges, 1, 0, 0, 0)
    return bool(libc.prctl(set_seccomp, by_filter, program, 0, 0) == 0)


def main() -> None:
    """The command, watched."""
    if os.environ.get("OFFLINE_BY", "both") in ("both", "kernel"):
        forbid()
    if os.environ.get("OFFLINE_BY", "both") in ("both", "audit"):
        sys.addaudithook(watch)
    if sys.argv[1:2] == ["-c"]:
        exec(sys.argv[2], {})
        return
    from harmonia.cli import main as harmonia

    harmonia()


if __name__ == "__main__":
    main()
