"""How far one datum walks: files of the package that a warm command enters, and calls that cross a file.

Every command runs twice in one process; the second run is counted by a profile hook. Counted are the files of
``harmonia`` in which a function is entered, its functions, and the calls whose caller in the package stands
in another file. What imports execute is not counted. With ``--baseline FOLDER``, a checkout of an earlier
commit, its code is measured by the same probe in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import REPOSITORY, Row, report, row

PROBE = """
import json, sys, threading
from pathlib import Path
import harmonia

ROOT, MEMORY, MEDIA = str(Path(harmonia.__file__).parent), sys.argv[1], Path(sys.argv[2])


class Hook:
    active = False

    def begin(self):
        self.files, self.functions, self.moves, self.active = set(), set(), 0, True

    def __call__(self, frame, event, _):
        code = frame.f_code
        if not self.active or event != "call" or code.co_name == "<module>":
            return
        file = code.co_filename
        if not file.startswith(ROOT):
            return
        self.files.add(file)
        self.functions.add((file, code.co_qualname))
        back = frame.f_back
        while back is not None and not back.f_code.co_filename.startswith(ROOT):
            back = back.f_back
        self.moves += back is None or back.f_code.co_filename != file

    def end(self):
        self.active = False
        return {"files": len(self.files), "functions": len(self.functions), "moves": self.moves}


hook = Hook()
threading.setprofile(hook)
sys.setprofile(hook)
from click.testing import CliRunner
from harmonia.cli import cli

found = {}
for name, arguments in {
    "remember photo.jpg": ["remember", "PHOTO", "--into", MEMORY],
    "recall": ["recall", "waves", "at", "dusk", "-m", MEMORY],
    "retrieve": ["retrieve", "waves", "at", "dusk", "-m", MEMORY],
}.items():
    for warm in (False, True):
        said = [str(MEDIA / f"{int(warm)}.jpg") if a == "PHOTO" else a for a in arguments]
        if warm:
            hook.begin()
        done = CliRunner().invoke(cli, said)
        if warm:
            found[name] = hook.end()
        assert done.exit_code == 0, (done.output, done.exception)

from starlette.testclient import TestClient
from harmonia.server.app import create_app
from harmonia.server.settings import Settings

with TestClient(create_app(Settings(Path(MEMORY))), base_url="http://localhost") as client:
    for warm in (False, True):
        if warm:
            hook.begin()
        answer = client.post("/v1/memory/recall", json={"cues": [{"text": "waves at dusk"}]})
        if warm:
            found["POST /v1/memory/recall"] = hook.end()
        assert answer.status_code == 200, answer.text
sys.setprofile(None)
print(json.dumps(found))
"""

GOALS = {"recall": (30, 150), "retrieve": (20, 80)}


def probe(source: Path, memory: Path, media: Path) -> dict[str, dict[str, int]]:
    """The walks of the package in ``source``, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "HARMONIA_SERVER": "off"}
    run = subprocess.run(
        [sys.executable, "-c", PROBE, str(memory), str(media)],
        env=environment, cwd=memory.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        sys.exit(f"benchmarks.walks: the probe of {source} failed:\n{run.stderr[-2000:]}")
    counted: dict[str, dict[str, int]] = json.loads(run.stdout.splitlines()[-1])
    return counted


def walks(source: Path) -> dict[str, dict[str, int]]:
    """The walks of a package over the starter collection and two photos that it makes."""
    import numpy as np
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        root, media = Path(folder), Path(folder) / "media"
        run = [sys.executable, "-m", "examples.starter", str(media)]
        subprocess.run(run, cwd=REPOSITORY, check=True, capture_output=True)
        environment = os.environ | {"PYTHONPATH": str(source)}
        subprocess.run(
            [sys.executable, "-m", "harmonia", "remember", str(media), "--into", str(root / "memory")],
            env=environment, cwd=root, check=True, capture_output=True,
        )  # fmt: skip
        photos = root / "photos"
        photos.mkdir()
        rng = np.random.default_rng(0)
        for i in range(2):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(photos / f"{i}.jpg")
        return probe(source, root / "memory", photos)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--baseline", type=Path, help="a checkout of an earlier commit, measured beside")
    parser.add_argument("--quick", action="store_true", help="the same; the results go to build/")
    args = parser.parse_args()
    here = walks(REPOSITORY / "src")
    before = walks(args.baseline.resolve() / "src") if args.baseline else {}
    rows: list[Row] = []
    for name, counts in here.items():
        for i, what in enumerate(("files", "moves")):
            peer = before.get(name, {}).get(what)
            one = row(f"{name}: {what}", counts[what], what, peer and "before", peer)
            if name in GOALS:  # the goals are numbers of files and of calls, not ratios
                one |= {"goal": f"<= {GOALS[name][i]}", "holds": counts[what] <= GOALS[name][i]}
            rows.append(one)
    report("walks", rows, args.quick, ["--baseline PATH"] if args.baseline else [])


if __name__ == "__main__":
    main()
