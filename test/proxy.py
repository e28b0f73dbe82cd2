"""A TCP proxy between PostgreSQL and Kafka that misbehaves on request."""

import contextlib
import select
import socket
import struct
import threading


class Proxy:
    """Stands where the broker's PROXIED listener sends its clients; use its address as bootstrap server.

    passing: False: bytes stay where they are.  bytes_per_second: of answers; None: as fast as they come.
    reset_after: each connection is reset in the middle of an answer, after so many bytes of them.
    """

    def __init__(self, broker):
        self.server = ("127.0.0.1", broker.proxied_port)
        self.port = broker.proxy_port
        self.address = f"127.0.0.1:{self.port}"
        self.passing = True
        self.bytes_per_second = None
        self.reset_after = None
        self.resets = 0
        self.connections = 0
        self._stop = threading.Event()
        self._listener = None
        self._threads = []

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.settimeout(0.1)
        self._start(self._accept)
        return self

    def __exit__(self, *exception):
        self._stop.set()
        for thread in list(self._threads):
            thread.join()
        self._listener.close()

    def _start(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                self.connections += 1
                self._start(self._pass_on, client)

    def _pass_on(self, client):
        answered = 0
        with client, contextlib.closing(socket.socket()) as server:
            with contextlib.suppress(OSError):
                server.connect(self.server)
                while not self._stop.is_set():
                    if not self.passing:
                        self._stop.wait(0.05)
                        continue
                    readable, _, _ = select.select([client, server], [], [], 0.1)
                    for source in readable:
                        most = 65536
                        if source is server and self.bytes_per_second:
                            most = max(self.bytes_per_second // 20, 1)
                        data = source.recv(most)
                        if not data:
                            return
                        if source is client:
                            server.sendall(data)
                            continue
                        if self.reset_after is not None and answered + len(data) >= self.reset_after:
                            client.sendall(data[:self.reset_after - answered])
                            self.resets += 1
                            # RST instead of FIN
                            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                            return
                        client.sendall(data)
                        answered += len(data)
                        if self.bytes_per_second:
                            self._stop.wait(0.05)
