"""What aioquic's client and server have in common."""

import asyncio
import ssl

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection, Setting
from aioquic.quic.configuration import QuicConfiguration


class H3(H3Connection):
    """aioquic announces HTTP datagrams only together with WebTransport, which is not wanted here."""

    def _get_local_settings(self):
        return super()._get_local_settings() | {Setting.H3_DATAGRAM: 1}


def configuration(is_client, args):
    config = QuicConfiguration(
        is_client=is_client,
        alpn_protocols=["h3"],
        max_datagram_frame_size=65536,
        server_name="localhost" if is_client else None,
        verify_mode=ssl.CERT_REQUIRED,
    )
    config.load_verify_locations(args.ca)
    config.load_cert_chain(args.cert, args.key)
    return config


def varint(value):
    for size, prefix in ((1, 0), (2, 1), (4, 2), (8, 3)):
        if value < 1 << (8 * size - 2):
            return (value | prefix << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(value)


class Protocol(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3(self._quic)

    def quic_event_received(self, event):
        for http_event in self.http.handle_event(event):
            self.http_event_received(http_event)
        self.other_event_received(event)

    def http_event_received(self, event):
        raise NotImplementedError

    def other_event_received(self, event):
        pass


async def within(awaitable):
    return await asyncio.wait_for(awaitable, 20)
