"""Creates the service's folders for their owner alone, and refuses those that others can change.

They hold prompts, images and the sockets that accept jobs, so nobody else may put a file there. The
mode of a folder that is not the service's own is never changed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

MARKS = frozenset({"disk_backups", "model_cache"})
"""A folder with one of these names has been SDE_DATA_DIR before, whatever else is in it."""

NAMES = MARKS | {
    *("demo", "inputs", "journal", "models", "recipe", "run", "thumbnails"),
    *("keys.json", "keys.json.tmp", "keys.lock", "sessions.json", "sessions.json.tmp"),
    *("url_secret", "url_secret.tmp", "automatic1111.json", "automatic1111.json.tmp"),
}
"""All that the service puts into SDE_DATA_DIR. Others use these names too, so a folder counts as
the service's own if it has nothing else. `demo` is the data folder of demo.sh."""

_IGNORED_NAMES = frozenset({"lost+found"})
"""Entries of a new file system (mke2fs(8))."""

_SHARED_FOLDERS = frozenset(
    {
        *("/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt"),
        *("/opt", "/proc", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var"),
        *("/dev/shm", "/run/lock", "/usr/local", "/usr/share", "/usr/src"),
        *("/var/cache", "/var/lib", "/var/local", "/var/log", "/var/opt", "/var/spool", "/var/tmp"),
        *("/Users", "/Volumes", "/private/tmp", "/private/var/tmp"),
    }
)
"""Folders that every user needs (hier(7), and those of macOS), although some may be empty."""


class UnsafeFolder(OSError):
    """A folder is not the service's own, or others could change it. The text says what to do."""


def make(*folders: Path, follow_links: bool = False) -> None:
    """Create folders of mode 0700, and take the rights of others from those that exist.

    A read-only disk is no error, because what is there can still be read.

    Args:
        follow_links: whether the folders are chosen by the operator, as SDE_DATA_DIR is. Each may
            be a symbolic link. One that exists must be empty or the service's own, because its
            mode is changed.

    Raises:
        UnsafeFolder: one is another user's, is writable for others, is a link or a file, or holds
            something else than a store.
        OSError: one cannot be created or read.
    """
    for folder in folders:
        with _read_only_disk():
            if not folder.is_symlink():
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _checked(folder, follow_links) as descriptor:
                may_change = not follow_links or _is_store_alone(folder, descriptor)
                _refuse_writable(folder, descriptor)
                if may_change and os.fstat(descriptor).st_mode & 0o077:
                    os.fchmod(descriptor, 0o700)


def make_cache(folder: Path) -> None:
    """Create a folder for downloads, or check the one that a link leads to and leave its mode.

    Such a link leads to a cache that other programs use. Raises as make() does.
    """
    if not folder.is_symlink():
        make(folder)
        return
    with _read_only_disk(), _checked(folder, follow_links=True) as descriptor:
        _refuse_writable(folder, descriptor)


def check_store(folder: Path) -> None:
    """Check SDE_DATA_DIR for a program that only reads it. Nothing is created or changed.

    A folder that others may read is accepted, and so is an empty one.

    Raises:
        FileNotFoundError: there is no such folder.
        UnsafeFolder: make() would refuse it.
        OSError: it cannot be read.
    """
    with _checked(folder, follow_links=True) as descriptor:
        _is_store_alone(folder, descriptor)
        _refuse_writable(folder, descriptor)


def hide_files(folder: Path) -> None:
    """Take the rights of others from the files of a folder. Links are left as they are."""
    with _read_only_disk(), contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                Path(entry.path).chmod(0o600)


@contextlib.contextmanager
def _read_only_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EROFS:
            raise


@contextlib.contextmanager
def _checked(folder: Path, follow_links: bool) -> Iterator[int]:
    """Yield a descriptor of a folder that is this user's. Raises UnsafeFolder, OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(folder, flags)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UnsafeFolder(
            f"{folder} is a symbolic link, which is not followed: put a folder there"
        ) from None
    try:
        _check_owner(folder, os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


def _check_owner(folder: Path, info: os.stat_result) -> None:
    if not stat.S_ISDIR(info.st_mode):
        raise UnsafeFolder(f"{folder} is not a folder")
    if info.st_uid != os.geteuid():
        raise UnsafeFolder(
            f"{folder} belongs to the user {info.st_uid}, but this process runs as the user "
            f"{os.geteuid()}: run it as that user, or choose another folder"
        )


def _refuse_writable(folder: Path, descriptor: int) -> None:
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    # In a folder with the sticky bit, such as a new tmpfs, nobody can replace another's files.
    if mode & 0o022 and not mode & stat.S_ISVTX:
        raise UnsafeFolder(
            f"{folder} has the mode {mode:04o}, so other users can change what is in it: look at "
            f"its files, then run chmod 700 {folder}"
        )


def _is_store_alone(folder: Path, descriptor: int) -> bool:
    """Return whether the mode of SDE_DATA_DIR may be changed: nobody else needs the folder.

    Raises:
        UnsafeFolder: it holds something else than a store, or is the system's.
    """
    names = set(os.listdir(descriptor)) - _IGNORED_NAMES
    is_store = bool(names & MARKS) or names <= NAMES
    if not is_store:
        example = min(names - NAMES)
        raise UnsafeFolder(
            f"{folder} is not a folder of this service, because it holds {example!a}: choose an "
            f"empty folder, or a new one such as {folder / 'sde'}"
        )
    place = folder.resolve()
    is_shared = str(place) in _SHARED_FOLDERS
    if is_shared and not names:
        raise UnsafeFolder(
            f"{folder} is a folder of the system, and its mode is not changed: choose a folder in "
            f"it, such as {folder / 'sde'}"
        )
    # A store that an earlier version put into a shared folder goes on. Its own folders are private.
    return not is_shared and not (names and place == _home())


def _home() -> Path | None:
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir).resolve()
    except KeyError:  # a container's user without a name
        return None
