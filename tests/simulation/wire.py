"""A network in memory: bytes take a time that a seed draws, and come in pieces that it cuts."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from random import Random
from typing import Any, Final
from weakref import WeakKeyDictionary

from simulation.process import Process, current

_FASTEST_S: Final = 0.0001
_SLOWEST_S: Final = 0.004
_CUT: Final = 0.2  # the share of writes that arrive in two pieces
_HIGH_WATER: Final = 256 << 10  # bytes on their way before a writer is asked to wait
_FIRST_PORT: Final = 20_000
Address = tuple[str, int]
Factory = Callable[[], asyncio.BaseProtocol]


class Wire:
    """Who listens where, and the connections between them.

    Args:
        loop: whose time it is.
        rng: draws how long bytes take, and where they are cut.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: Random) -> None:
        self.loop = loop
        self.rng = rng
        self._listening: dict[Address, tuple[Factory, Context]] = {}
        self._targets: WeakKeyDictionary[socket.socket, Address] = WeakKeyDictionary()
        self._ends: dict[_End, None] = {}
        self._next_port = _FIRST_PORT

    def listen(self, factory: Factory, host: str, port: int) -> "_Server":
        """Take connections at an address; port 0 takes a free one."""
        if port == 0:
            port, self._next_port = self._next_port, self._next_port + 1
        address = (host, port)
        if address in self._listening:
            raise OSError(98, f"address in use: {host}:{port}")
        self._listening[address] = (factory, copy_context())
        return _Server(self.loop, address, lambda: self._listening.pop(address, None))

    async def reach(self, sock: socket.socket, address: Address) -> None:
        """Wait as long as a connection takes; raises ConnectionRefusedError if nobody listens."""
        process = current.get()
        await asyncio.sleep(self.delay_s(process))
        if process is not None and process.is_dead:
            raise ConnectionAbortedError(103, "the process is dead")
        if address not in self._listening:
            raise ConnectionRefusedError(111, f"nobody listens at {address[0]}:{address[1]}")
        self._targets[sock] = address

    def connect(
        self, factory: Factory, sock: socket.socket
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Join both sides of a socket that has reached its target."""
        address = self._targets.pop(sock)
        sock.close()
        if address not in self._listening:
            raise ConnectionResetError(104, "the server has gone")
        server_factory, context = self._listening[address]
        ours = ("127.0.0.1", self._next_port)
        self._next_port += 1
        near = _End(self, current.get(), copy_context(), (ours, address))
        far = _End(self, context.get(current), context, (address, ours))
        near.peer, far.peer = far, near
        self._ends[near] = self._ends[far] = None
        server_protocol = context.run(server_factory)
        far.begin(server_protocol)
        protocol = factory()
        near.begin(protocol)
        return near, protocol

    def cut(self, process: Process) -> None:
        """Break every connection of a process, as its death does."""
        for end in [end for end in self._ends if end.process is process]:
            end.abort()

    def forget(self, end: "_End") -> None:
        """Drop what is closed."""
        self._ends.pop(end, None)

    def delay_s(self, *processes: Process | None) -> float:
        """Draw how long something takes; a frozen process makes it wait."""
        delay = self.rng.uniform(_FASTEST_S, _SLOWEST_S)
        until = max((p.frozen_until for p in processes if p is not None), default=0.0)
        return max(delay, until - self.loop.time())


class _Server(asyncio.AbstractServer):
    """What `create_server` gives, as far as aiohttp uses it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, address: Address, close: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._close = close
        self.sockets = [_Name(address)]

    def close(self) -> None:
        self._close()

    async def wait_closed(self) -> None:
        return

    def is_serving(self) -> bool:
        return True

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    async def start_serving(self) -> None:
        """It does already."""

    async def serve_forever(self) -> None:
        await asyncio.Event().wait()


class _Name:
    """What aiohttp asks of a listening socket."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def getsockname(self) -> Address:
        return self._address


class _End(asyncio.Transport):
    """One end of a connection."""

    peer: "_End"
    _protocol: Any

    def __init__(
        self, wire: Wire, process: Process | None, context: Context, names: tuple[Address, Address]
    ) -> None:
        super().__init__({"sockname": names[0], "peername": names[1]})
        self.process = process
        self._wire = wire
        self._loop = wire.loop
        self._context = context
        self._is_closing = False
        self._is_paused = False
        self._is_writer_paused = False
        self._under_way: deque[bytes | None] = deque()  # to us; None is the end
        self._unread: deque[bytes | None] = deque()
        self._unread_bytes = 0
        self._last_arrival = 0.0

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell the protocol of the connection."""
        self._protocol = protocol
        self._context.run(protocol.connection_made, self)

    # what a protocol sees

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return] # aiohttp's are of every kind

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or not data or (self.process is not None and self.process.is_dead):
            return
        whole = bytes(data)
        rng = self._wire.rng
        at = rng.randrange(1, len(whole)) if len(whole) > 1 and rng.random() < _CUT else len(whole)
        for piece in (whole[:at], whole[at:]):
            if piece:
                self.peer.expect(piece)
        if self.peer.unread_bytes > _HIGH_WATER and not self._is_writer_paused:
            self._is_writer_paused = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self.peer.unread_bytes

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.peer.expect(None)
            self._loop.call_soon(self._lost, None, context=self._context)

    def abort(self) -> None:
        self._is_closing = True
        peer, reset = self.peer, ConnectionResetError(104, "connection reset by peer")
        self._loop.call_soon(self._lost, None, context=self._context)
        self._loop.call_soon(peer._lost, reset, context=peer._context)  # its own kind

    def is_reading(self) -> bool:
        return not self._is_paused

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._loop.call_soon(self._hand_over, context=self._context)

    # what comes from the other end

    @property
    def unread_bytes(self) -> int:
        """Sent to us and not yet taken in."""
        return self._unread_bytes

    def expect(self, piece: bytes | None) -> None:
        """Let a piece arrive in its time, behind those before it; None is the end."""
        self._unread_bytes += len(piece or b"")
        self._under_way.append(piece)
        now = self._loop.time()
        delay = self._wire.delay_s(self.process, self.peer.process)
        self._last_arrival = max(self._last_arrival, now + delay)
        self._loop.call_at(self._last_arrival, self._arrive, context=self._context)

    def _arrive(self) -> None:
        self._unread.append(self._under_way.popleft())
        self._hand_over()

    def _hand_over(self) -> None:
        while self._unread and not self._is_paused and self._protocol is not None:
            piece = self._unread.popleft()
            if piece is None:
                if not self._protocol.eof_received():
                    self.close()
                return
            self._unread_bytes -= len(piece)
            self.peer._taken_in()  # its own kind
            self._protocol.data_received(piece)

    def _taken_in(self) -> None:
        if self._is_writer_paused and self.peer.unread_bytes < _HIGH_WATER // 4:
            self._is_writer_paused = False
            if self._protocol is not None:
                self._protocol.resume_writing()

    def _lost(self, error: Exception | None) -> None:
        """Tell the protocol once that it is over."""
        protocol, self._protocol = self._protocol, None
        self._is_closing = True
        self._wire.forget(self)
        if protocol is not None:
            protocol.connection_lost(error)
