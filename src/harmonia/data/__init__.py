"""From files and tables on disk to records that can be remembered."""

from harmonia.data.files import gather
from harmonia.data.records import Problem

__all__ = ["Problem", "gather"]
