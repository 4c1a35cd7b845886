"""aioquic as a server of our client: prints its port, and serves until its standard input ends."""

import argparse
import asyncio
import sys

from aioquic import tls
from aioquic.asyncio import serve
from aioquic.h3.events import DataReceived, DatagramReceived, HeadersReceived

from common import Protocol, configuration, varint

PSEUDO = {
    b"GET": {b":method", b":scheme", b":authority", b":path"},
    b"POST": {b":method", b":scheme", b":authority", b":path"},
    b"CONNECT": {b":method", b":authority"},
    b"extended": {b":method", b":scheme", b":authority", b":path", b":protocol"},
}


class AskForCertificate(tls.Context):
    """aioquic's server asks for a client's certificate only when this is set."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._request_client_certificate = True


tls.Context = AskForCertificate


class Server(Protocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.udp = set()
        self.refused = set()

    def http_event_received(self, event):
        if isinstance(event, HeadersReceived):
            self.headers_received(event)
        elif isinstance(event, DataReceived) and event.stream_id not in self.refused:
            self.http.send_data(event.stream_id, event.data, end_stream=event.stream_ended)
        elif isinstance(event, DatagramReceived) and event.stream_id in self.udp:
            # Context 0 comes back; before it, one of a context that the client does not know.
            assert event.data[0] == 0, event
            self.http.send_datagram(event.stream_id, varint(5) + b"unknown")
            self.http.send_datagram(event.stream_id, event.data)
        self.transmit()

    def headers_received(self, event):
        headers = dict(event.headers)
        if b":method" not in headers:
            self.http.send_headers(event.stream_id, event.headers, end_stream=event.stream_ended)
            return
        method = headers[b":method"]
        kind = b"extended" if b":protocol" in headers else method
        # aioquic itself lets a CONNECT with :scheme and :path pass.
        pseudo = {name for name in headers if name.startswith(b":")}
        status = b"200" if pseudo == PSEUDO[kind] else b"400"
        if self._quic.tls._peer_certificate is None:
            status = b"401"
        if headers.get(b":protocol") == b"connect-udp":
            self.udp.add(event.stream_id)
            expected = b"/.well-known/masque/udp/192.0.2.6/443/"
            if headers[b":path"] != expected or headers[b"capsule-protocol"] != b"?1":
                status = b"400"
        elif kind == b"extended" and headers[b":protocol"] != b"websocket":
            status = b"501"
        if status != b"200":
            self.refused.add(event.stream_id)
        end = event.stream_ended or status != b"200"
        answer = [
            (b":status", status),
            (b"x-method", method),
            (b"x-path", headers.get(b":path", b"")),
            (b"x-fields", str(len(event.headers)).encode()),
            (b"server", b"aioquic"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
        ]
        self.http.send_headers(event.stream_id, answer, end_stream=end)


async def main(args):
    server = await serve(
        "127.0.0.1", 0, configuration=configuration(False, args), create_protocol=Server
    )
    print(server._transport.get_extra_info("sockname")[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--ca", "--cert", "--key"):
        parser.add_argument(name, required=True)
    asyncio.run(main(parser.parse_args()))
