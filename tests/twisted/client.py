"""A client of the notice board on Twisted's LineReceiver, as the talk builds it: asks, enters notification mode, and for
each of so many notifications leaves, asks and enters again. Writes the facts; ends with 1 where the server is wrong.

Usage: client.py HOST PORT silent|acknowledged COUNT
"""

import sys
from collections import deque

from twisted.internet import endpoints, protocol, reactor
from twisted.protocols.basic import LineReceiver

status = 1


class Client(LineReceiver):
    def __init__(self, acknowledged, count):
        self.acknowledged = acknowledged
        self.count = count
        # What is answered next.
        self.waiting = deque()

    def connectionMade(self):
        self.transport.setTcpNoDelay(True)
        self.say(b"random?", b"classified?", b"notif")

    def say(self, *lines):
        self.waiting.extend(line for line in lines if line.endswith(b"?") or self.acknowledged)
        self.transport.write(b"".join(line + b"\r\n" for line in lines))

    def lineReceived(self, line):
        if line.startswith(b"notif: "):
            self.notified(line[len(b"notif: ") :])
            return
        question = self.waiting.popleft()
        if question == b"random?":
            print("random:", int(line))
        elif question == b"classified?":
            print("classified:", line.decode())
        elif line != b"OK":
            raise ValueError(f"{question} was answered {line}")
        if self.count == 0 and not self.waiting:
            global status
            status = 0
            self.transport.loseConnection()

    def notified(self, kind):
        if kind not in (b"random", b"classified"):
            raise ValueError(f"nothing is known of {kind}")
        if self.count > 0:
            self.count -= 1
            print("notified:", kind.decode())
            self.say(b"stop_notif", kind + b"?", b"notif")
            if self.count == 0:
                self.say(b"stop_notif", b"random?")

    def connectionLost(self, reason):
        reactor.stop()


def main(host, port, dialect, count):
    acknowledged = {"silent": False, "acknowledged": True}[dialect]
    endpoint = endpoints.clientFromString(reactor, f"tcp:{host}:{port}")
    endpoints.connectProtocol(endpoint, Client(acknowledged, int(count)))
    reactor.run()


main(*sys.argv[1:])
sys.exit(status)
