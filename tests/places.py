"""Where tests find things: the repository, and real datasets where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("HARMONIA_DATA") or ROOT.parent / "shared" / "data")
