"""Commands go through the server that serves their memory, with the same answers, and do without it too."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from harmonia.cli.running_server import RunningServer, running_server
from harmonia.server import address
from harmonia.server.address import FILE as NOTE
from harmonia.server.address import proof
from harmonia.server.keys import new_key
from harmonia.server.settings import Settings
from harmonia.types import HarmoniaError
from tests.media import make_photo
from tests.serving import media_of, memory_of, serve

HEAVY = ("torch", "lancedb", "numpy")


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return memory_of(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def url(memory: Path) -> Iterator[str]:
    with serve(Settings(memory)) as url:
        yield url


def run(*arguments: str | Path, off: bool = False) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which says at its end which heavy packages it has loaded."""
    code = (
        "import atexit, sys; from harmonia.cli import main; sys.argv[0] = 'harmonia';"
        f"held = lambda: [m for m in {HEAVY} if m in sys.modules];"
        "atexit.register(lambda: print('loaded', *held(), file=sys.stderr));"
        f"import os; os.environ['HARMONIA_SERVER'] = '{'off' if off else ''}'; main()"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["recall", "retrieve", "ask"])
def test_an_answer_is_the_same_with_and_without_the_server(memory: Path, url: str, command: str) -> None:
    cues = ["photo", "number", "2", "--image", media_of() / "photo-2.png", "--weight", "text=0.5", "-k", "3"]
    if command != "retrieve":
        cues += ["--not", "a tone"]
    warm = run(command, "-m", memory, *cues, "--json")
    assert warm.returncode == 0, warm.stderr
    assert warm.stderr.splitlines()[-1] == "loaded", "the server's answer needs none of the heavy packages"
    alone = run(command, "-m", memory, *cues, "--json", off=True)
    assert "lancedb" in alone.stderr.splitlines()[-1]
    said, expected = json.loads(warm.stdout), json.loads(alone.stdout)
    if command == "ask":
        said, expected = said["recollection"], expected["recollection"]
    assert [one["id"] for one in said["records"]] == [one["id"] for one in expected["records"]]
    assert [one["parts"] for one in said["records"]] == [one["parts"] for one in expected["records"]]
    assert [one.keys() for one in said["records"]] == [one.keys() for one in expected["records"]]
    for key in ("probability", "similarity"):
        numbers = [[one[key] for one in found["records"] if key in one] for found in (said, expected)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-5)


def test_what_is_printed_is_the_same(memory: Path, url: str) -> None:
    for command in ("recall", "retrieve", "ask"):
        cue = ["-m", memory, "--image", media_of() / "photo-1.png"]
        texts = [run(command, *cue, off=off).stdout for off in (False, True)]
        assert texts[0] == texts[1] and "number 1" in texts[0]


def test_the_records_of_the_cues_are_left_out(memory: Path, url: str) -> None:
    cue = ["-m", memory, "--image", media_of() / "photo-2.png", "--json", "-k", "9"]
    every, left = (json.loads(run("recall", *cue, *more).stdout) for more in ([], ["--leave-out-cues"]))
    own = every["records"][0]["id"]
    assert own not in {one["id"] for one in left["records"]} and left["records"]


def test_remember_goes_through_the_server_from_any_folder(memory: Path, url: str, tmp_path: Path) -> None:
    make_photo(tmp_path / "new.jpg", seed=77)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    done = run("remember", tmp_path, "--into", memory, "--json")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "loaded"
    report = json.loads(done.stdout)
    assert report["remembered"] == 1 and not report["stopped"]
    assert [Path(one["path"]).name for one in report["problems"]] == ["broken.png"]
    found = json.loads(run("recall", "-m", memory, "--image", tmp_path / "new.jpg", "--json").stdout)
    assert found["records"][0]["metadata"]["name"] == "new"
    assert found["records"][0]["parts"][0]["path"] == str(tmp_path / "new.jpg")


def test_what_the_server_refuses_is_one_line(memory: Path, url: str, tmp_path: Path) -> None:
    for arguments, says in (
        (["recall", "x", "--weight", "sound=2"], "no cue is called 'sound'"),
        (["recall"], "nothing to recall by"),
        (["recall", "--image", tmp_path / "none.png"], "none.png"),
        (["recall", "x", "--where", "nowhere = 1"], "nowhere"),
    ):
        done = run(*arguments, "-m", memory)
        lines = done.stderr.splitlines()
        assert done.returncode == 1 and len(lines) == 2 and says in lines[0], done.stderr


def test_only_the_owner_can_read_the_address(memory: Path, url: str, tmp_path: Path) -> None:
    note = memory / NOTE
    assert stat.S_IMODE(note.stat().st_mode) == 0o600 and stat.S_IMODE(note.parent.stat().st_mode) == 0o700
    token = json.loads(note.read_text())["token"]
    shown = httpx.get(f"{url}/v1/memory/owner", params={"nonce": "a" * 32}).json()
    assert shown == {"proof": proof(memory, token, "a" * 32)} != {"proof": proof(memory, token, "b" * 32)}
    # without the token a path outside of the allowed folders is refused
    make_photo(tmp_path / "secret.jpg", seed=5)
    refused = httpx.post(f"{url}/v1/memory/jobs", json={"paths": [str(tmp_path / "secret.jpg")]})
    assert refused.status_code == 400


def test_a_copy_of_a_memory_is_not_that_of_the_server(memory: Path, url: str, tmp_path: Path) -> None:
    shutil.copytree(memory, tmp_path / "copy")
    assert running_server(memory) is not None and running_server(tmp_path / "copy") is None


def test_an_address_that_others_could_have_written_is_not_believed(memory: Path, url: str) -> None:
    note = memory / NOTE
    text = note.read_text()
    try:
        note.chmod(0o644)
        assert running_server(memory) is None
        note.chmod(0o600)
        note.write_text(json.dumps({**json.loads(text), "url": "http://example.org:80"}))
        assert running_server(memory) is None
        note.write_text(json.dumps({**json.loads(text), "token": "of somebody else"}))
        assert running_server(memory) is None
    finally:
        note.write_text(text)
    assert running_server(memory) is not None


def test_others_do_not_see_where_the_files_of_a_job_lie(memory: Path, url: str, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert run("remember", tmp_path / "private", "--into", memory).returncode == 1
    jobs = httpx.get(f"{url}/v1/memory/jobs").json()["data"]
    assert [one["name"] for one in jobs[0]["problems"]] == ["broken.png"]
    assert "private" not in json.dumps(jobs)


@pytest.mark.parametrize(
    "options", [["--steps", "100"], ["--alpha", "5"], ["--trust", "1e7"], ["-k", "2000"]], ids=str
)
def test_what_only_the_server_bounds_is_done_without_it(memory: Path, url: str, options: list[str]) -> None:
    done = run("recall", "photo number 1", "-m", memory, *options)
    assert done.returncode == 0 and "lancedb" in done.stderr.splitlines()[-1]


def test_a_job_that_cannot_be_stopped_is_not_done_again(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(RunningServer):
        def request(self, method: str, *_: object, **__: object) -> dict[str, object]:
            if method == "POST":
                return {"id": "job-1", "state": "running", "done": 0, "total": 9}
            raise OSError("the server has gone")

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    server = Gone("127.0.0.1:9", "x")
    assert server.remember([memory], copy=False, watch=interrupt)["state"] == "stopped"
    with pytest.raises(HarmoniaError, match="the server stopped while it was remembering"):
        server.remember([memory], copy=False, watch=lambda *_: None)


def test_a_folder_that_cannot_be_written_is_served_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    address.publish(tmp_path, "http://127.0.0.1:1", "token")
    assert not (tmp_path / NOTE).exists()


def test_the_token_serves_where_keys_are_asked_for(tmp_path: Path) -> None:
    memory = memory_of(tmp_path / "m")
    keys = tmp_path / "keys.json"
    new_key(keys, "phone", "read")
    with serve(Settings(memory, keys=keys)) as url:
        assert httpx.post(f"{url}/v1/memory/recall", json={"cues": [{"text": "x"}]}).status_code == 401
        done = run("recall", "photo number 1", "-m", memory)
        assert done.returncode == 0 and done.stderr.splitlines()[-1] == "loaded"


def test_an_address_that_was_left_behind_is_passed_by(tmp_path: Path, url: str) -> None:
    memory = memory_of(tmp_path / "m")
    (memory / NOTE).parent.mkdir(exist_ok=True)
    for text in (
        "", "[]", '{"url": "http://127.0.0.1:9", "token": "x"}',
        json.dumps({"url": url, "token": "of a server that was killed"}),  # now of another memory
    ):  # fmt: skip
        (memory / NOTE).write_text(text)
        (memory / NOTE).chmod(0o600)
        assert running_server(memory) is None
    assert run("recall", "photo number 1", "-m", memory).returncode == 0


def test_the_address_goes_with_the_server(tmp_path: Path) -> None:
    memory = memory_of(tmp_path / "m")
    with serve(Settings(memory)):
        assert running_server(memory) is not None
    assert not (memory / NOTE).exists()
