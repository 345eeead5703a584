"""The teacher behind one interface: it selects positives and hard negatives, and ranks a list with its reasons."""

from .asking import Asker
from .base import Ranked, Teacher, TeacherError, TeacherFailure
from .offline import OfflineTeacher, WorkedTeacher
from .remote import RemoteTeacher
