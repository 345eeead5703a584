"""The processes of one training: a single one, or those that `accelerate launch` has started, one per GPU.

With one process nothing here touches accelerate. With several, all of them must make the calls that wait or
gather, in the same order.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
_NAMES = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
_PREFIXES = ("LOCAL_", "GROUP_", "ROLE_", "TORCHELASTIC_", "ACCELERATE_")


def count() -> int:
    """Processes of this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def wait() -> None:
    """Return when all processes are here."""
    if count() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through the block before the others do."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


def main_decides(value: T) -> T:
    """The main process's value, in all of them; it must be one that pickle knows."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def gather(items: list[T]) -> list[T]:
    """The items of all processes, in their order, in each of them."""
    if count() == 1:
        return items
    from accelerate.utils import gather_object

    return gather_object(items)


def leave() -> None:
    """Wait for the others and leave the process group, where there is one."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed and distributed.is_available() and distributed.is_initialized():
        wait()
        distributed.destroy_process_group()


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables less those by which a launcher tells a process of the others."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _NAMES and not name.startswith(_PREFIXES)
    }
