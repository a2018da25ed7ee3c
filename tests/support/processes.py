"""What the system knows of a running process (of Linux): its memory and its connections."""

from dataclasses import dataclass
from pathlib import Path

_ESTABLISHED = "01"


@dataclass(frozen=True, slots=True)
class Seen:
    """A process at one moment."""

    rss_mib: float
    connections: int  # TCP, established, to the port asked for


def look_at(pid: int, port: int) -> Seen:
    """Look at a process and its connections to a port of this machine."""
    process = Path(f"/proc/{pid}")
    return Seen(_mib(process, "VmRSS"), len(_sockets(process) & _connected(process, port)))


def peak_mib(pid: int) -> float:
    """Tell the most memory that a process ever had resident."""
    return _mib(Path(f"/proc/{pid}"), "VmHWM")


def _mib(process: Path, name: str) -> float:
    lines = (process / "status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) / 1024


def _sockets(process: Path) -> set[str]:
    """The inodes of its sockets."""
    links = []
    for descriptor in (process / "fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue  # closed meanwhile
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def _connected(process: Path, port: int) -> set[str]:
    """The inodes of this system's established connections to a port."""
    rows = [line.split() for line in (process / "net/tcp").read_text().splitlines()[1:]]
    return {
        row[9] for row in rows if row[3] == _ESTABLISHED and int(row[2].split(":")[1], 16) == port
    }
