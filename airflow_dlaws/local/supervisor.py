"""The parent of a job's or an endpoint's processes: `python -I -S supervisor.py SPEC.json`. Stdlib only, Linux.

Starts one program for each host, each in its own mount and host-name namespace with its folder at /opt/ml (where the
specification asks for isolation), reports exits as JSON lines on standard output, and takes "term" and "kill" on
standard input. When standard input closes, the server is gone, and everything here ends. Nothing it started outlives
it: with isolation it is process 1 of its own process namespace, without it is the reaper of all descendants.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

# <sched.h>, <sys/mount.h>, <sys/prctl.h>, <net/if.h>
_NEWNS, _NEWUTS, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x10000000, 0x20000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MS_RDONLY, _MS_REMOUNT, _MS_RELATIME = 0x1, 0x20, 0x200000
_PDEATHSIG, _CHILD_SUBREAPER = 1, 36
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1

_libc = ctypes.CDLL(None, use_errno=True)


def main(specification: dict[str, Any]) -> int:
    """Run all hosts to their end."""
    _check(_libc.prctl(_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")
    if specification["isolate"]:
        namespaces = _NEWNS | _NEWPID | (_NEWNET if specification["own_network"] else 0)
        _enter(namespaces, user_namespace=specification["user_namespace"])
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _die_with_parent()
        _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
        if specification["own_network"]:
            _loopback_up()
    return _Hosts(specification).run()


class _Hosts:
    """The running programs, one for each host."""

    def __init__(self, specification: dict[str, Any]) -> None:
        self._isolate = specification["isolate"]
        self._wake_read, wake_write = os.pipe()
        for descriptor in (self._wake_read, wake_write):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._names = {self._start(host): host["name"] for host in specification["hosts"]}

    def run(self) -> int:
        """Report exits until no host runs, then end what they have left."""
        self._reap()
        while self._names:
            ready, _, _ = select.select([sys.stdin.fileno(), self._wake_read], [], [])
            if self._wake_read in ready:
                os.read(self._wake_read, 512)
            if sys.stdin.fileno() in ready:
                self._obey(os.read(sys.stdin.fileno(), 512).decode())
            self._reap()
        self._kill_all()
        return 0

    def _start(self, host: dict[str, Any]) -> int:
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            _become(host, isolate=self._isolate, report=write)
        os.close(write)
        fault = os.read(read, 4096).decode()
        os.close(read)
        if fault:
            _say(event="cannot_start", host=host["name"], error=fault)
        return pid

    def _obey(self, text: str) -> None:
        if not text:
            self._kill_all()
            os._exit(1)
        for command in text.split():
            if command == "kill":
                self._kill_all()
            elif command == "term":
                for pid in self._names:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            name = self._names.pop(pid, None)
            if name is not None:
                code = os.waitstatus_to_exitcode(status)
                _say(event="exit", host=name, code=code if code >= 0 else 128 - code)

    def _kill_all(self) -> None:
        if self._isolate:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            return
        while found := _descendants(os.getpid()):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()


def _become(host: dict[str, Any], *, isolate: bool, report: int) -> None:
    """Turn this fresh child into the host's program; never returns."""
    try:
        os.setsid()
        _die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if isolate:
            _isolate(host)
        log = os.open(host["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(host["working_directory"])
        os.execvpe(host["argv"][0], host["argv"], host["environment"])
    except BaseException as error:
        os.write(report, f"{host['argv'][0]}: {error}".encode())
    os._exit(127)


def _isolate(host: dict[str, Any]) -> None:
    """Give the host its own /opt/ml, host name and hosts file."""
    log = Path(host["log"])
    log.touch()  # while its folder can still be seen
    _check(_libc.unshare(_NEWNS | _NEWUTS), "unshare")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    with contextlib.suppress(OSError):
        # Refused inside containers that mask /proc; then /proc shows the outer process ids, which is all that differs.
        _mount("proc", "/proc", "proc", 0)
    _mount(host["hosts_file"], "/etc/hosts", None, _MS_BIND)
    _bind_opt_ml(host["folder"], host["stage"])
    for mount in host["mounts"]:
        _bind(mount["source"], mount["target"], read_only=mount["read_only"])
    socket.sethostname(host["name"])


def _bind_opt_ml(folder: str, stage: str) -> None:
    """Put `folder` at /opt/ml without hiding the rest of /opt, where a Python may live."""
    if not Path("/opt/ml").is_dir():
        _mount("none", stage, "tmpfs", 0)
        for entry in Path("/opt").iterdir():
            _mirror(entry, Path(stage, entry.name))
        Path(stage, "ml").mkdir()
        _mount(stage, "/opt", None, _MS_BIND | _MS_REC)
    _mount(folder, "/opt/ml", None, _MS_BIND | _MS_REC)


def _bind(source: str, target: str, *, read_only: bool) -> None:
    Path(target).mkdir(parents=True, exist_ok=True)
    _mount(source, target, None, _MS_BIND | _MS_REC)
    if read_only:
        # Only this option changes: the kernel refuses to loosen others of a mount that another namespace has made.
        flags = os.statvfs(target).f_flag
        kept = flags & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME)
        relative = _MS_RELATIME if flags & os.ST_RELATIME else 0
        _mount(source, target, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept | relative)


def _mirror(entry: Path, place: Path) -> None:
    if entry.is_symlink():
        place.symlink_to(entry.readlink())
        return
    if entry.is_dir():
        place.mkdir()
    else:
        place.touch()
    _mount(str(entry), str(place), None, _MS_BIND | _MS_REC)


def _enter(namespaces: int, *, user_namespace: bool) -> None:
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(namespaces | (_NEWUSER if user_namespace else 0)), "unshare")
    if user_namespace:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _GET_FLAGS, request), 16)
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags | _UP))


def _descendants(root: int) -> set[int]:
    """Return the live processes below `root`."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(path.parent.name))
    found: set[int] = set()
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found.update(below)
        queue.extend(below)
    return found


def _die_with_parent() -> None:
    _check(_libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    answer = _libc.mount(source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), None)
    _check(answer, f"mount {source} at {target}")


def _check(answer: int, what: str) -> None:
    if answer:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _say(**event: Any) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
