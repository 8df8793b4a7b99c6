"""Clients of a server on loopback, in a process of their own, so that they take none of its time.

A task comes as JSON on standard input; what was seen goes to standard output. Each client asks for one recall
after the other over one connection. They are written on bare sockets: a client that costs as much as the
server would measure itself on a machine with few cores.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from urllib.parse import urlsplit

from benchmarks.common import REPOSITORY

PATH = "/v1/memory/recall"
PATIENCE = 60.0
"""Seconds after which an answer that has not come counts as an error."""


@dataclass
class Task:
    """``clients`` ask the ``bodies`` in turn until ``requests`` are made or ``seconds`` are over."""

    url: str
    bodies: Sequence[str]
    clients: int
    seconds: float
    requests: int = sys.maxsize


@dataclass
class Seen:
    """Seconds of each answer, those that were no answer with status 200, and seconds of it all."""

    taken: list[float] = field(default_factory=list)
    errors: int = 0
    wall: float = 0.0


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, body: bytes) -> int:
    head = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    size = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
    await reader.readexactly(size)
    return int(lines[0].split()[1])


async def _client(task: Task, turn: count[int], until: float, seen: Seen) -> None:
    host = urlsplit(task.url)
    reader, writer = await asyncio.open_connection(host.hostname, host.port, limit=2**20)
    while time.perf_counter() < until and (number := next(turn)) < task.requests:
        body = task.bodies[number % len(task.bodies)].encode()
        begun = time.perf_counter()
        try:
            status = await asyncio.wait_for(_ask(reader, writer, host.netloc, body), PATIENCE)
        except (OSError, EOFError, TimeoutError):
            seen.errors += 1
            break  # the connection is of no more use
        seen.taken.append(time.perf_counter() - begun)
        seen.errors += status != 200
    writer.close()


async def _all(task: Task) -> Seen:
    seen, turn, begun = Seen(), count(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(task.clients):
            group.create_task(_client(task, turn, begun + task.seconds, seen))
    seen.wall = time.perf_counter() - begun
    return seen


def ask_all(
    url: str, bodies: Sequence[str], clients: int, seconds: float, requests: int = sys.maxsize
) -> Seen:
    """Have clients ask, in two processes of half of them each; what both saw together."""
    halves = [bodies[i::2] or bodies for i in range(2)]
    share = (requests + 1) // 2
    tasks = [Task(url, half, max(1, clients // 2), seconds, share) for half in halves]
    command = [sys.executable, "-m", "benchmarks.server_clients"]
    running = [
        subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in tasks
    ]
    for process, task in zip(running, tasks, strict=True):
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(task)))
        process.stdin.close()
        process.stdin = None
    found = [Seen(**json.loads(process.communicate()[0])) for process in running]
    return Seen(
        [one for seen in found for one in seen.taken],
        sum(seen.errors for seen in found),
        max(seen.wall for seen in found),
    )


if __name__ == "__main__":
    json.dump(asdict(asyncio.run(_all(Task(**json.load(sys.stdin))))), sys.stdout)
