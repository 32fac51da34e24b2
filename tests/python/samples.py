"""What every client writes and must read again, and how the two are compared.

The same sets in every language: keys and values of many sizes, the empty ones and the missing ones kept apart.
"""

import time


class Record:
    """A record as written, or as read: then with its offset."""

    def __init__(self, key, value, headers=(), timestamp=None, offset=None):
        self.key, self.value, self.timestamp, self.offset = key, value, timestamp, offset
        self.headers = [(name, None if content is None else bytes(content)) for name, content in headers]

    def __eq__(self, other):
        return (self.key, self.value, self.headers) == (other.key, other.value, other.headers)

    def __repr__(self):
        short = lambda data: data if data is None or len(data) < 40 else data[:20] + b"..%d bytes" % len(data)
        return f"Record({short(self.key)}, {short(self.value)}, {self.headers})"


def records(count=60):
    """Compressible and incompressible values from one byte to some KiB."""
    made = []
    for index in range(count):
        text = (b"record %d " % index) * (index % 7 * 40 + 1)
        noise = bytes((index * 131 + position * 197 + position * position * 7) % 256 for position in range(index % 5 * 50))
        made.append(Record(b"key-%d" % index, text + noise, [("index", b"%d" % index)]))
    return made


def odd_records():
    """Tombstones, empty values, empty keys, no keys: none of them may turn into another."""
    return [
        Record(b"tombstone", None),
        Record(b"empty value", b""),
        Record(b"", b"empty key"),
        Record(None, b"no key"),
        Record(b"", b""),
    ]


def headers_of_every_kind():
    """Order and repetition count; an empty value is not a missing one; a key may hold any letter."""
    return [("a", b"1"), ("a", b"2"), ("empty", b""), ("missing", None), ("größe", bytes(range(256))), ("a", b"3")]


def same(got, expected):
    assert len(got) == len(expected), f"{len(got)} records instead of {len(expected)}"
    for position, (one, other) in enumerate(zip(got, expected)):
        assert one == other, f"record {position}: {one} instead of {other}"


def until(what, look, limit=60):
    """Looks until `look` returns something true."""
    end = time.monotonic() + limit
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"waited {limit} s for {what}"
        time.sleep(0.05)
