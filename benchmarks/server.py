"""The server on loopback: what HTTP costs a recall, and that nothing is lost.

A real `harmonia serve` in a process of its own, its clients in others (`benchmarks.server_clients`), one
thread of computing each. The memory is the 1,000 photos of Flickr8k's dev split with captions 1 to 4;
caption 0, held out, is the cue. The large one: 2,000 train photos with a caption, and 8,000 captions as
notes. The bare recall is `Memory.recall`, and `recall_many` in batches of 64, in this process, in turns
with the server, so that other load on the machine meets both. Uploads are train photos with a caption;
"killed" is SIGKILL among them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import torch

from benchmarks.common import Row, data_folder, report, row
from benchmarks.served import QUICK, Served, Size, body, large, photos, quantile, served, small
from benchmarks.server_clients import PATH, Seen, ask_all
from benchmarks.server_ingest import Source, ingest, killed
from harmonia.collection.collection import Memory
from harmonia.collection.cues import make_query
from harmonia.types import HarmoniaError, Signal

CLIENTS, BATCH = 64, 64


def in_process(memory: Memory, cues: Sequence[str], seconds: float) -> tuple[float, float]:
    """Recalls per second in batches, and seconds of computing of each."""
    queries = [make_query({"text": words}) for words in cues]
    count, begun, computing = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds:
        first = count % (len(queries) - BATCH + 1)
        count += len(memory.recall_many(queries[first : first + BATCH]))
    return count / (time.perf_counter() - begun), (time.process_time() - computing) / count


def load(server: Served, memory: Memory, cues: Sequence[str], size: Size) -> list[Row]:
    """Many clients for a minute, in turns with the bare batches; then memory, until enough was asked."""
    bodies = [body(words) for words in cues]
    ask_all(server.url, bodies, CLIENTS, 1.0)
    in_process(memory, cues, 0.1)
    seen, rates, bare, costs, bare_costs = Seen(), [], [], [], []
    warm, asked = 0.0, 0
    for turn in range(size.turns):
        computing = server.cpu()
        one = ask_all(server.url, bodies, CLIENTS, size.seconds / size.turns)
        rates.append(len(one.taken) / one.wall)
        costs.append((server.cpu() - computing) / len(one.taken))
        rate, cost = in_process(memory, cues, size.seconds / size.turns / 3)
        bare.append(rate)
        bare_costs.append(cost)
        seen.taken += one.taken
        seen.errors += one.errors
        if turn == 0:
            warm = server.rss()
        else:
            asked += len(one.taken)
    rest = ask_all(server.url, bodies, CLIENTS, 600.0, max(CLIENTS, size.requests - asked))
    asked += len(rest.taken)
    many, peer = f"{CLIENTS} clients", f"recall_many, batches of {BATCH}"
    median, errors = statistics.median, seen.errors + rest.errors
    return [
        row(f"{many}: errors in {len(seen.taken)} recalls", errors, "errors", goal=("<=", 0)),
        row(f"{many}: throughput", median(rates), "recalls/s", peer, median(bare), (">=", 0.7)),
        row(f"{many}: computing", 1e3 * median(costs), "ms/recall", peer, 1e3 * median(bare_costs)),
        row(f"{many}: p50", quantile(seen.taken, 0.5), "s"),
        row(f"{many}: p99", quantile(seen.taken, 0.99), "s"),
        row(f"RAM after {asked} more recalls", server.rss(), "MiB", "when warm", warm, ("<=", 1.05)),
    ]


def first_results(server: Served, memory: Memory, cues: Sequence[str], singles: int) -> list[Row]:
    """One client: until the answer is there, in turns with the bare recall of the same cue."""
    http, bare = [], []
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for number, words in enumerate(cues[: singles + 3]):
            begun = time.perf_counter()
            client.post(PATH, content=body(words), headers={"content-type": "application/json"})
            between = time.perf_counter()
            memory.recall(words)
            if number >= 3:  # the first ones load what is loaded once
                http.append(between - begun)
                bare.append(time.perf_counter() - between)
    held = memory.status()["records"]
    what, value, other = f"{held} records: first results", statistics.median(http), statistics.median(bare)
    return [
        row(what, value, "s", "Memory.recall", other, ("<=", 2.0)),
        row(what, value, "s", goal=("<=", 0.3)),
        row(f"{held} records: slowest of {len(http)} first results", max(http), "s"),
        row(f"{held} records: until ready", server.startup, "s"),
    ]


def embeddings(server: Served, memory: Memory, cues: Sequence[str], turns: int) -> list[Row]:
    """Vectors of words per second, a list of 64 in a request, in turns with the bare encoder."""
    texts = list(cues[:BATCH])
    signals = [Signal("text", words) for words in texts]
    http, bare = [], []
    asked: dict[str, Any] = {"model": "harmonia", "input": texts, "encoding_format": "base64"}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(turns):
            begun = time.perf_counter()
            client.post("/v1/embeddings", json=asked).raise_for_status()
            between = time.perf_counter()
            memory.encoders.encode(signals)
            http.append(between - begun)
            bare.append(time.perf_counter() - between)
    rates = [len(texts) / statistics.median(taken[1:]) for taken in (http, bare)]
    return [row("embeddings of words", rates[0], "vectors/s", "the bare encoder", rates[1])]


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for CI")
    quick = parser.parse_args().quick
    size = QUICK if quick else Size()
    data = data_folder()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        trained = photos(data, "train", size.trained)
    except HarmoniaError as error:
        sys.exit(f"benchmarks: {error}")
    with tempfile.TemporaryDirectory() as folder:
        cues = small(data, Path(folder) / "small", size.records)
        large(trained, Path(folder) / "large", size.large)
        with served(Path(folder) / "large") as server:
            rows = first_results(server, Memory(Path(folder) / "large"), cues, size.singles)
        memory = Memory(Path(folder) / "small")
        source = Source(trained[size.large // 5 :])
        server = Served(Path(folder) / "small")
        try:
            rows += load(server, memory, cues, size)
            rows += embeddings(server, memory, cues, 5 if quick else 25)
            rows += ingest(server, cues, source, size)
        except BaseException:
            server.kill()
            raise
        rows += killed(server, Path(folder) / "small", source, size)
    rows.append(row("load of the machine meanwhile", os.getloadavg()[1], "processes that want a core"))
    report("server", rows, quick)


if __name__ == "__main__":
    main()
