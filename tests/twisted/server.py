"""The notice board on Twisted's LineReceiver. Writes `listening on HOST:PORT`, then has news every few milliseconds.

Usage: server.py silent|acknowledged
"""

import sys

from twisted.internet import endpoints, protocol, reactor, task
from twisted.protocols.basic import LineReceiver

KINDS = (b"random", b"classified")


class Board(LineReceiver):
    def connectionMade(self):
        self.transport.setTcpNoDelay(True)
        self.in_mode = False
        self.untold = set()
        self.factory.boards.add(self)

    def connectionLost(self, reason):
        self.factory.boards.discard(self)

    def lineReceived(self, line):
        if line in (b"notif", b"stop_notif"):
            self.in_mode = line == b"notif"
            if self.factory.acknowledged:
                self.sendLine(b"OK")
            self.tell()
        elif line[-1:] == b"?" and line[:-1] in KINDS:
            self.untold.discard(line[:-1])
            self.sendLine(self.factory.values[line[:-1]])
        else:
            self.transport.loseConnection()

    def has_news(self, kind):
        self.untold.add(kind)
        self.tell()

    def tell(self):
        if self.in_mode:
            for kind in sorted(self.untold):
                self.sendLine(b"notif: " + kind)
            self.untold.clear()


class Boards(protocol.Factory):
    protocol = Board

    def __init__(self, acknowledged):
        self.acknowledged = acknowledged
        self.boards = set()
        self.number = 0
        self.values = {b"random": b"0", b"classified": b"flat 0"}

    def change(self):
        self.number += 1
        kind = KINDS[self.number % 2]
        self.values[kind] = b"%s%d" % (b"flat " if kind == b"classified" else b"", self.number)
        for board in list(self.boards):
            board.has_news(kind)


def main(dialect):
    boards = Boards({"silent": False, "acknowledged": True}[dialect])

    def listening(port):
        address = port.getHost()
        print(f"listening on {address.host}:{address.port}", flush=True)
        task.LoopingCall(boards.change).start(0.003, now=False)

    endpoints.serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(boards).addCallback(listening)
    reactor.run()


main(*sys.argv[1:])
