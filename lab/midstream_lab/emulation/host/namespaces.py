"""Network namespaces without names: they exist as long as a process holds them open.

Nothing is registered under /run/netns, so nothing has to be removed: when the process that
made a namespace ends, however it ends, the kernel takes the namespace, its devices, queues and
addresses with it. Others enter through /proc/PID/fd/N, with nsenter(1).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

from midstream_wire.errors import MidstreamError, UsageError

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_OWN = "/proc/thread-self/ns/net"
#: Bits of CapEff in /proc/PID/status (capabilities(7)).
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21

_NAME = re.compile(r"[a-z0-9_]{1,15}")

_libc = ctypes.CDLL(None, use_errno=True)


@final
class Namespace:
    """A network namespace of our own with its loopback up, and no IPv6 to chatter in it."""

    def __init__(self) -> None:
        home = os.open(_OWN, os.O_RDONLY)
        try:
            _call("unshare", _CLONE_NEWNET)
            self.fd = os.open(_OWN, os.O_RDONLY)
            try:
                _write("net/ipv6/conf/default/disable_ipv6", "1", optional=True)
                _write("net/ipv6/conf/all/disable_ipv6", "1", optional=True)
                run("ip", "link set lo up")
            except BaseException:
                os.close(self.fd)
                raise
            finally:
                _call("setns", home, _CLONE_NEWNET)
        finally:
            os.close(home)

    @property
    def path(self) -> str:
        """Return what others open to enter it."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @property
    def prefix(self) -> tuple[str, ...]:
        """Put in front of a command, runs it in this namespace."""
        return ("nsenter", f"--net={self.path}", "--")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and the processes it starts, within the namespace for a while."""
        with entered(self.fd):
            yield


@contextlib.contextmanager
def entered(fd: int) -> Iterator[None]:
    """This thread within the namespace behind a descriptor, for a while."""
    home = os.open(_OWN, os.O_RDONLY)
    try:
        _call("setns", fd, _CLONE_NEWNET)
        try:
            yield
        finally:
            _call("setns", home, _CLONE_NEWNET)
    finally:
        os.close(home)


def run(tool: str, *lines: str) -> None:
    """Have `ip` or `tc` do these lines, in the namespace this thread is in."""
    said = subprocess.run(
        [tool, "-batch", "-"],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode:
        words = " ".join(said.stderr.split())
        raise MidstreamError(f"{tool} must take {lines!r}, and said: {words}")


def open_tun(name: str) -> int:
    """A TUN device in the namespace this thread is in; it lives as long as its descriptor.

    One read is one IP packet. No offloads are asked for, so packets are never larger than the
    MTU and carry complete checksums.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        wanted = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(fd, _TUNSETIFF, wanted)
    except OSError as error:
        os.close(fd)
        raise MidstreamError(f"a TUN device must be had, and was not: {error}") from None
    return fd


def pin_congestion(wanted: str | None, route: str) -> str:
    """Choose TCP's congestion control for all that takes `route` from the namespace this
    thread is in; None leaves the system's. Returns its name.

    By the route, because the namespace's own setting admits only what is unrestricted on the
    host, which is not ours to change. Also forgets what TCP learnt from earlier connections
    (tcp_no_metrics_save), so that the n-th connection starts as the first did. Raises
    `UsageError` for a control that the kernel lacks.
    """
    _write("net/ipv4/tcp_no_metrics_save", "1", optional=True)
    if wanted is None:
        run("ip", f"route replace {route}")
        return _read("net/ipv4/tcp_congestion_control")
    if not _NAME.fullmatch(wanted):
        raise UsageError(f"congestion must be the name of a control (not {wanted!r})")
    try:
        run("ip", f"route replace {route} congctl {wanted}")
    except MidstreamError:
        known = _read("net/ipv4/tcp_available_congestion_control").replace(" ", ", ")
        raise UsageError(
            f"congestion must name a control that this kernel has (not {wanted!r}): {known}"
        ) from None
    return wanted


def why_not(tools: Sequence[str], *, devices: Sequence[str] = ()) -> str | None:
    """Return why this process cannot make and use namespaces; None if it can, as far as one
    sees without trying."""
    if not Path("/proc/self/ns/net").exists():
        return "this system has no network namespaces"
    wanted = 1 << _CAP_NET_ADMIN | 1 << _CAP_SYS_ADMIN
    if _effective() & wanted != wanted:
        return "it needs CAP_NET_ADMIN and CAP_SYS_ADMIN (run as root)"
    for tool in (*tools, "nsenter"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (iproute2, util-linux)"
    for device in devices:
        if not os.access(device, os.R_OK | os.W_OK):
            return f"{device} is missing or not ours to open"
    return None


def _effective() -> int:
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments):
        code = ctypes.get_errno()
        raise MidstreamError(
            f"{name} must be allowed to this process, and was not ({os.strerror(code)}): "
            "run as root, or use the proxy"
        )


def _write(key: str, value: str, *, optional: bool = False) -> None:
    try:
        Path("/proc/sys", key).write_text(value, encoding="utf-8")
    except FileNotFoundError:
        if not optional:
            raise


def _read(key: str) -> str:
    return Path("/proc/sys", key).read_text("utf-8").strip()
