"""What an installation of Harmonia brings: the closure of its core dependencies, and how large each is.

python -m tools.dependencies [REPOSITORY]    # bytes of each without PyTorch, as JSON
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parent.parent


def core(repository: Path = REPOSITORY) -> list[str]:
    """The requirements of the core, as pyproject.toml has them."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["dependencies"])


def closure(requirements: Iterable[str], leave_out: Iterable[str] = ()) -> dict[str, Distribution]:
    """Every installed distribution that ``requirements`` bring, by canonical name, in order of names.

    Markers are those of this Python and machine. What only ``leave_out`` bring is left out with them.
    Raises PackageNotFoundError for one that is not installed.
    """
    out = {canonicalize_name(name) for name in leave_out}
    found: dict[str, Distribution] = {}
    asked: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in out or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
            continue
        for wanted in ("", *requirement.extras):
            if (name, wanted) in asked:
                continue
            asked.add((name, wanted))
            found[name] = distribution(name)
            waiting += [(Requirement(text), wanted) for text in found[name].requires or ()]
    return dict(sorted(found.items()))


def size(one: Distribution) -> int:
    """Bytes of the files that an installed distribution has, without those that installers compile."""
    paths = (Path(str(one.locate_file(path))) for path in one.files or () if path.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    """Print the sizes of a checkout's core as this Python has it installed."""
    repository = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY
    print(json.dumps({name: size(one) for name, one in closure(core(repository), ["torch"]).items()}))


if __name__ == "__main__":
    main()
