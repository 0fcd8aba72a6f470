"""Writes what LineReceiver does on so many random inputs, in the form of tests/data/line_vectors.jsonl.gz.

Usage: vectors.py COUNT SEED
"""

import json
import random
import sys

import twisted
from twisted.internet.testing import StringTransport
from twisted.protocols.basic import LineReceiver


class Receiver(LineReceiver):
    """A line that ends in {n} is followed by n raw octets, if there are literals."""

    def __init__(self, delimiter, max_length, literals):
        self.delimiter = delimiter
        self.MAX_LENGTH = max_length
        self.literals = literals
        self.raw_left = 0
        self.events = []

    def lineReceived(self, line):
        self.events.append(["line", line.hex()])
        opened = line.rfind(b"{")
        digits = line[opened + 1 : -1]
        if self.literals and opened >= 0 and line.endswith(b"}") and digits.isdigit():
            self.raw_left = int(digits)
            self.setRawMode()

    def rawDataReceived(self, data):
        run, rest = data[: self.raw_left], data[self.raw_left :]
        self.raw_left -= len(run)
        self.events.append(["raw", run.hex()])
        if self.raw_left == 0:
            self.events.append(["raw_end"])
            self.setLineMode(rest)

    def lineLengthExceeded(self, line):
        self.events.append(["over", line.hex()])
        self.events.append(["close"])
        self.transport.loseConnection()


def octets(draw, delimiter):
    """Mostly what may be mistaken for an end of line or a length."""
    parts = [b"\r", b"\n", b"\r\n", delimiter, b"a", b"{", b"}", b"{%d}" % draw.randrange(12), b"xyz" * draw.randrange(9)]
    parts.append(draw.randbytes(draw.randrange(6)))
    return b"".join(draw.choice(parts) for _ in range(draw.randrange(60)))


def vector(draw, name):
    delimiter = draw.choice([b"\r\n", b"\n"])
    max_length = draw.choice([0, 1, 2, 3, 7, 8, 20, 64, 16384])
    literals = draw.random() < 0.5
    wire = octets(draw, delimiter)
    if draw.random() < 0.1:
        # About a limit, whatever that is.
        wire += b"n" * max(0, max_length + draw.randrange(-2, 3)) + delimiter + octets(draw, delimiter)
    most = draw.choice([1, 3, 20, len(wire) + 1])
    chunks = []
    while wire:
        size = draw.randrange(1, most + 1)
        chunks.append(wire[:size])
        wire = wire[size:]

    receiver = Receiver(delimiter, max_length, literals)
    receiver.makeConnection(StringTransport())
    events = []
    for chunk in chunks:
        receiver.dataReceived(chunk)
        events.append(receiver.events)
        receiver.events = []
        if receiver.transport.disconnecting:
            break
    return {
        "id": name,
        "delimiter": delimiter.hex(),
        "max_length": max_length,
        "app": "literal" if literals else "none",
        "chunks": [chunk.hex() for chunk in chunks],
        "events": events,
        "final": {
            "buffer": receiver._buffer.hex(),
            "mode": "line" if receiver.line_mode else "raw",
            "raw_left": receiver.raw_left,
        },
    }


def main(count, seed):
    draw = random.Random(seed)
    about = f"What the LineReceiver of Twisted {twisted.__version__} did on these inputs, of seed {seed}."
    print(json.dumps({"about": about, "vectors": int(count)}))
    for number in range(int(count)):
        print(json.dumps(vector(draw, f"{seed}-{number}")))


main(*sys.argv[1:])
