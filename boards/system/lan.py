"""A switch between boards: each machine's second network card is a socket to it. It can be cut, and it counts."""

import selectors
import socket
import struct
import threading


class Lan:
    """Passes each Ethernet frame on to all others, as a hub does. QEMU sends a frame as its length, 4 bytes, and its bytes."""

    def __init__(self, folder):
        self.path = folder / "lan.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(16)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.ports, self.frames, self.cut = {}, 0, False
        self.lock = threading.Lock()
        self.wake_reader, self.wake_writer = socket.socketpair()
        self.selector.register(self.wake_reader, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self.pass_on, daemon=True)
        self.thread.start()

    def pass_on(self):
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.wake_reader:
                    return
                if key.fileobj is self.listener:
                    port, _ = self.listener.accept()
                    port.settimeout(5)
                    self.ports[port] = bytearray()
                    self.selector.register(port, selectors.EVENT_READ)
                else:
                    self.read(key.fileobj)

    def read(self, port):
        try:
            got = port.recv(65536)
        except OSError:
            got = b""
        if not got:
            return self.unplug(port)
        waiting = self.ports[port]
        waiting += got
        while len(waiting) >= 4:
            length = struct.unpack(">I", waiting[:4])[0]
            if len(waiting) < 4 + length:
                break
            frame = bytes(waiting[: 4 + length])
            del waiting[: 4 + length]
            self.frames += 1
            if not self.cut:
                for other in [other for other in self.ports if other is not port]:
                    try:
                        other.sendall(frame)
                    except OSError:
                        # A machine that takes nothing for seconds, or is gone: a cable that is pulled.
                        self.unplug(other)

    def unplug(self, port):
        if self.ports.pop(port, None) is not None:
            self.selector.unregister(port)
            port.close()

    def close(self):
        self.wake_writer.send(b"x")
        self.thread.join(10)
        for port in list(self.ports):
            self.unplug(port)
        self.listener.close()
        self.path.unlink(missing_ok=True)
