"""The teacher behind one interface: it selects positives and hard negatives, and ranks a list with its reasons."""

from .base import Ranked, Teacher
from .offline import OfflineTeacher

__all__ = ["OfflineTeacher", "Ranked", "Teacher"]
