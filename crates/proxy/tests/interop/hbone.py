"""Speaks HBONE to a sidecar, as a ztunnel does: CONNECT over HTTP/2 over mutual TLS (ALPN h2).

Shares no code with weft. Prints "all checks passed" if every answer is what it must be.
"""

import argparse
import socket
import ssl
import struct
import sys
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

PATIENCE = 20


class Peer:
    def __init__(self, args, certificate=None, alpn=("h2",)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # A peer is its SPIFFE ID.
        context.load_verify_locations(args.roots)
        if certificate:
            context.load_cert_chain(certificate)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        host, port = args.addr.rsplit(":", 1)
        plain = socket.create_connection((host, int(port)), PATIENCE)
        self.socket = context.wrap_socket(plain, server_hostname="x.id.weft.internal")
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8",
                                      validate_outbound_headers=False,
                                      normalize_outbound_headers=False))
        self.h2.initiate_connection()
        self.events = []
        self.goaway = None
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def pump(self):
        """Takes what comes next. False at the end of the connection."""
        data = self.socket.recv(65536)
        if not data:
            return False
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if isinstance(event, h2.events.ConnectionTerminated):
                self.goaway = event.error_code
            self.events.append(event)
        self.flush()
        return True

    def wait(self, kind, stream):
        # Pings keep a connection busy on which nothing else comes.
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for event in self.events:
                if isinstance(event, kind) and getattr(event, "stream_id", None) == stream:
                    self.events.remove(event)
                    return event
                if (isinstance(event, h2.events.StreamReset) and event.stream_id == stream
                        and kind is not h2.events.StreamReset):
                    raise AssertionError(f"stream {stream} was reset with {event.error_code}")
            if not self.pump():
                raise AssertionError(f"the connection ended before {kind.__name__}")
        raise AssertionError(f"no {kind.__name__} on stream {stream} in time, but {self.events}")

    def request(self, headers, end=False):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, headers, end_stream=end)
        self.flush()
        return stream

    def connect(self, authority, more=()):
        return self.request([(":method", "CONNECT"), (":authority", authority), *more])

    def head(self, stream):
        return dict(self.wait(h2.events.ResponseReceived, stream).headers)

    def status(self, stream):
        return self.head(stream)[":status"]

    def body(self, stream):
        body = b""
        while True:
            for event in list(self.events):
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.DataReceived):
                    body += event.data
                    self.events.remove(event)
                elif isinstance(event, h2.events.StreamEnded):
                    return body
                elif isinstance(event, h2.events.StreamReset):
                    raise AssertionError(f"reset with {event.error_code} after {body!r}")
            if not self.pump():
                raise AssertionError("the connection ended in a body")


def expect(what, seen, wanted):
    if seen != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, saw {seen!r}")
    print("ok:", what)


def tunnel(args):
    peer = Peer(args, args.certificate)
    expect("the negotiated protocol", peer.socket.selected_alpn_protocol(), "h2")
    more = [("baggage", "k8s.namespace.name=default,service.name=orders"),
            ("forwarded", 'for="10.0.0.9:40000"')]
    host = args.addr.rsplit(":", 1)[0]
    for authority in (f"invoices.default:{args.port}", f"{host}:{args.port}"):
        stream = peer.connect(authority, more)
        head = peer.head(stream)
        expect(f"CONNECT {authority}", head[":status"], "200")
        expect("no content-length on a tunnel", "content-length" in head, False)
        peer.h2.send_data(stream, b"over the tunnel", end_stream=True)
        peer.flush()
        expect("bytes and half-close both ways", peer.body(stream), b"over the tunnel")


def refusals(args):
    peer = Peer(args, args.certificate)
    host = args.addr.rsplit(":", 1)[0]
    for authority, status in [
        ("169.254.169.254:80", "421"),
        ("10.0.0.1:5432", "421"),
        (f"{host}:15000", "421"),
        ("invoices.default:22", "404"),
        ("billing.default:5432", "421"),
    ]:
        stream = peer.connect(authority)
        head = peer.head(stream)
        expect(f"CONNECT {authority}", head[":status"], status)
        expect("who says so", head["proxy-status"].split(";")[0], "invoices.default/inbound")
    for what, headers in [
        ("no port", [(":method", "CONNECT"), (":authority", "invoices.default")]),
        ("no authority", [(":method", "GET"), (":scheme", "https"), (":path", "/")]),
        ("user information", [(":method", "GET"), (":scheme", "https"), (":path", "/"),
                              (":authority", "a@invoices.default:80")]),
        ("two authorities", [(":method", "GET"), (":scheme", "https"), (":path", "/"),
                             (":authority", "invoices.default:80"), ("host", "other:80")]),
    ]:
        expect(what, peer.status(peer.request(headers, end=True)), "400")
    for what, headers in [
        ("extended CONNECT, which is not offered", [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
            (":path", "/"), (":authority", "invoices.default:80")]),
        ("CONNECT with a path", [(":method", "CONNECT"), (":authority", "invoices.default:5432"),
                                 (":scheme", "https"), (":path", "/")]),
        ("a field of HTTP/1.1", [(":method", "GET"), (":scheme", "https"), (":path", "/"),
                                 (":authority", "invoices.default:80"),
                                 ("connection", "close")]),
    ]:
        stream = peer.request(headers, end=True)
        code = peer.wait(h2.events.StreamReset, stream).error_code
        expect(what, code, h2.errors.ErrorCodes.PROTOCOL_ERROR)
    many = [(f"x-{n}", "y" * 4000) for n in range(30)]
    stream = peer.connect(f"invoices.default:{args.port}", many)
    expect("headers without end", peer.status(stream), "431")
    stream = peer.connect(f"invoices.default:{args.port}")
    expect("and the connection goes on", peer.status(stream), "200")

    peer = Peer(args, args.stranger)
    stream = peer.connect(f"invoices.default:{args.port}")
    expect("a stranger", peer.status(stream), "403")


def not_let_in(args):
    for what, certificate, alpn in [
        ("nobody", None, ("h2",)),
        ("somebody of another trust domain", args.foreigner, ("h2",)),
        ("somebody without ALPN", args.certificate, None),
        ("somebody who speaks HTTP/1.1", args.certificate, ("http/1.1",)),
    ]:
        try:
            peer = Peer(args, certificate, alpn)
            stream = peer.connect(f"invoices.default:{args.port}")
            seen = peer.status(stream)
        except (ssl.SSLError, OSError, AssertionError) as error:
            seen = "refused"
            print("   ", what, "saw", error)
        expect(what, seen, "refused")


def rapid_reset(args):
    peer = Peer(args, args.certificate)
    try:
        for _ in range(200):
            for _ in range(50):
                stream = peer.connect(f"invoices.default:{args.port}")
                peer.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            peer.flush()
        while peer.pump():
            pass
    except (OSError, h2.exceptions.ProtocolError):
        # It was cut while we were writing: what it said is still to be read.
        try:
            while peer.pump():
                pass
        except (OSError, h2.exceptions.ProtocolError):
            pass
    calm = {None, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM}
    expect("ten thousand requests given up end the connection", peer.goaway in calm, True)
    peer = Peer(args, args.certificate)
    stream = peer.connect(f"invoices.default:{args.port}")
    expect("and nobody else's", peer.status(stream), "200")


def flood(args):
    """CONTINUATION frames without end (CVE-2024-27316), written by hand."""
    peer = Peer(args, args.certificate)
    frame = lambda kind, flags, stream, payload: (
        struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream)
        + payload)
    literal = b"\x00\x01a\x7f\xe1\x7e" + b"b" * 16_352  # one field of 16,352 bytes, not indexed
    ended = False
    try:
        peer.socket.sendall(frame(1, 0, 1, literal[:16_384]))
        for _ in range(1_000):
            peer.socket.sendall(frame(9, 0, 1, literal[:16_384]))
        while peer.pump():
            pass
        ended = True
    except (OSError, h2.exceptions.ProtocolError):
        ended = True
    expect("headers that never end cut the connection", ended, True)


def main():
    parser = argparse.ArgumentParser()
    for name in ("addr", "roots", "certificate", "stranger", "foreigner"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    for check in (tunnel, refusals, not_let_in, rapid_reset, flood):
        print(check.__name__)
        check(args)
    print("all checks passed")


if __name__ == "__main__":
    sys.exit(main())
