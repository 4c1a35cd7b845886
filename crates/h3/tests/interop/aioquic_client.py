"""aioquic as a client of our server. Every check that fails is an exception, and so an exit code."""

import argparse
import asyncio
from dataclasses import dataclass, field

from aioquic.asyncio.client import connect
from aioquic.h3.events import DataReceived, DatagramReceived, HeadersReceived
from aioquic.quic.events import ConnectionTerminated, StreamReset

from common import Protocol, configuration, varint, within

AUTHORITY = (b":authority", b"invoices.default:80")


@dataclass
class Stream:
    """What has arrived on a request stream, and a way to wait for more."""

    headers: list = field(default_factory=list)
    content: bytes = b""
    datagrams: list = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, done):
        async def wait():
            while not done(self):
                self.changed.clear()
                await self.changed.wait()

        await within(wait())
        return self

    @property
    def status(self):
        return dict(self.headers[0])[b":status"]


class Client(Protocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.streams = {}
        self.closed_with = None

    def http_event_received(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        if stream is None:
            return
        if isinstance(event, HeadersReceived):
            stream.headers.append(event.headers)
        elif isinstance(event, DataReceived):
            stream.content += event.data
        elif isinstance(event, DatagramReceived):
            stream.datagrams.append(event.data)
        stream.ended |= getattr(event, "stream_ended", False)
        stream.changed.set()

    def other_event_received(self, event):
        if isinstance(event, StreamReset) and event.stream_id in self.streams:
            self.streams[event.stream_id].reset = event.error_code
            self.streams[event.stream_id].changed.set()
        elif isinstance(event, ConnectionTerminated):
            self.closed_with = event

    def open(self, headers, end=False):
        stream_id = self._quic.get_next_available_stream_id()
        self.streams[stream_id] = Stream()
        self.http.send_headers(stream_id, headers, end_stream=end)
        self.transmit()
        return stream_id, self.streams[stream_id]

    def send(self, stream_id, data, end=False):
        self.http.send_data(stream_id, data, end_stream=end)
        self.transmit()


def request(method, path, *more):
    return [(b":method", method), (b":scheme", b"https"), AUTHORITY, (b":path", path), *more]


def is_done(stream):
    return stream.ended or stream.reset is not None


async def get(client):
    # Twice: the second would use the dynamic table, had we allowed one.
    for _ in range(2):
        more = [(b"user-agent", b"aioquic"), (b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x-custom", b"~" * 50)]
        _, stream = client.open(request(b"GET", b"/get?a=b", *more), end=True)
        await stream.until(is_done)
        assert stream.status == b"200", stream
        assert dict(stream.headers[0])[b"x-path"] == b"/get", stream


async def post(client):
    sent = bytes(range(256)) * 1000
    stream_id, stream = client.open(request(b"POST", b"/post"))
    for start in range(0, len(sent), 16000):
        client.send(stream_id, sent[start : start + 16000])
    client.http.send_headers(stream_id, [(b"x-checksum", b"cafe")], end_stream=True)
    client.transmit()
    await stream.until(is_done)
    assert stream.content == sent, f"{len(stream.content)} bytes came back"
    assert stream.headers[1:] == [[(b"x-checksum", b"cafe")]], stream.headers


async def many(client):
    streams = [client.open(request(b"GET", b"/%d" % n), end=True)[1] for n in range(64)]
    for number, stream in enumerate(streams):
        await stream.until(is_done)
        assert dict(stream.headers[0])[b"x-path"] == b"/%d" % number, stream


async def tunnel(client):
    headers = [(b":method", b"CONNECT"), (b":authority", b"invoices.default:5432")]
    stream_id, stream = client.open(headers)
    await stream.until(lambda s: s.headers)
    assert stream.status == b"200", stream
    for word in (b"ping", b"pong"):
        stream.content = b""
        client.send(stream_id, word)
        await stream.until(lambda s: s.content == word)
    # Half-close: our end is answered by the other's.
    client.send(stream_id, b"", end=True)
    await stream.until(is_done)
    assert stream.ended and stream.reset is None, stream


async def malformed(client):
    """Stream errors: each costs its own stream only."""
    connect = [(b":method", b"CONNECT"), (b":authority", b"a:1")]
    for headers in (
        connect + [(b":scheme", b"https"), (b":path", b"/")],
        [(b":method", b"CONNECT"), (b":authority", b"no-port")],
        request(b"GET", b"/", (b"te", b"gzip")),
        request(b"GET", b"/", (b"content-length", b"7")),
    ):
        _, stream = client.open(headers, end=True)
        await stream.until(is_done)
        assert stream.reset == 0x10E, (headers, stream)
    await get(client)


async def too_large(client):
    large = [(b"x-large-%d" % n, b"v" * 4000) for n in range(25)]
    _, stream = client.open(request(b"GET", b"/", *large), end=True)
    await stream.until(lambda s: s.headers)
    assert stream.status == b"431", stream


async def websocket(client):
    headers = request(b"CONNECT", b"/socket", (b":protocol", b"websocket"))
    headers.sort(key=lambda f: not f[0].startswith(b":"))
    stream_id, stream = client.open(headers)
    await stream.until(lambda s: s.headers)
    assert stream.status == b"200", stream
    client.send(stream_id, b"message")
    await stream.until(lambda s: s.content == b"message")
    client.send(stream_id, b"", end=True)
    await stream.until(is_done)


async def unknown_protocol(client):
    _, stream = client.open(request(b"CONNECT", b"/", (b":protocol", b"connect-ip")), end=True)
    await stream.until(is_done)
    assert stream.status == b"501", stream


async def connect_udp(client, port):
    path = b"/.well-known/masque/udp/127.0.0.1/%d/" % port
    more = [(b":protocol", b"connect-udp"), (b"capsule-protocol", b"?1")]
    stream_id, stream = client.open(request(b"CONNECT", path, *more))
    await stream.until(lambda s: s.headers)
    assert stream.status == b"200", stream
    assert dict(stream.headers[0])[b"capsule-protocol"] == b"?1", stream
    for payload in (b"ping", b"", b"x" * 1000):
        stream.datagrams.clear()
        # A context that nobody knows is dropped, context 0 is a packet.
        client.http.send_datagram(stream_id, varint(4) + b"unknown")
        client.http.send_datagram(stream_id, varint(0) + payload)
        client.transmit()
        await stream.until(lambda s: s.datagrams)
        assert stream.datagrams == [varint(0) + payload], stream.datagrams
    # As a capsule, behind one of an unknown type.
    stream.datagrams.clear()
    capsules = varint(0x21) + varint(3) + b"abc" + varint(0) + varint(5) + varint(0) + b"caps"
    client.send(stream_id, capsules)
    await stream.until(lambda s: s.datagrams)
    assert stream.datagrams == [varint(0) + b"caps"], stream.datagrams
    client.send(stream_id, b"", end=True)
    await stream.until(is_done)
    assert stream.ended and stream.reset is None, stream
    # A target that is none.
    _, stream = client.open(request(b"CONNECT", b"/.well-known/masque/udp/a/0/", *more), end=True)
    await stream.until(is_done)
    assert stream.status == b"400", stream


async def main(args):
    config = configuration(True, args)
    async with connect("127.0.0.1", args.port, configuration=config, create_protocol=Client) as client:
        await get(client)
        await post(client)
        await many(client)
        await tunnel(client)
        await malformed(client)
        await too_large(client)
        await websocket(client)
        await unknown_protocol(client)
        await connect_udp(client, args.udp)
        # After all of this the connection is as it was.
        await get(client)
        assert client.closed_with is None, client.closed_with
    print("all checks passed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--ca", "--cert", "--key"):
        parser.add_argument(name, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--udp", type=int, required=True)
    asyncio.run(main(parser.parse_args()))
