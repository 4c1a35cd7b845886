"""libcurl with ngtcp2 and nghttp3 as a client of our server. Every check that fails is an exception."""

import argparse
import io

from curl_cffi import Curl, CurlError, CurlHttpVersion, CurlInfo, CurlOpt


class Session:
    def __init__(self, args):
        self.args = args
        self.curl = Curl()

    def fetch(self, path, headers=(), body=None, with_certificate=True):
        """One exchange: status, header lines, content."""
        out, head = io.BytesIO(), io.BytesIO()
        curl = self.curl
        curl.reset()
        curl.setopt(CurlOpt.URL, f"https://localhost:{self.args.port}{path}".encode())
        curl.setopt(CurlOpt.RESOLVE, [f"localhost:{self.args.port}:127.0.0.1"])
        curl.setopt(CurlOpt.HTTP_VERSION, CurlHttpVersion.V3ONLY)
        curl.setopt(CurlOpt.CAINFO, self.args.ca.encode())
        if with_certificate:
            curl.setopt(CurlOpt.SSLCERT, self.args.cert.encode())
            curl.setopt(CurlOpt.SSLKEY, self.args.key.encode())
        curl.setopt(CurlOpt.TIMEOUT, 20)
        curl.setopt(CurlOpt.HTTPHEADER, [h.encode() for h in headers])
        curl.setopt(CurlOpt.WRITEDATA, out)
        curl.setopt(CurlOpt.HEADERDATA, head)
        if body is not None:
            curl.setopt(CurlOpt.POST, 1)
            curl.setopt(CurlOpt.POSTFIELDSIZE, len(body))
            curl.setopt(CurlOpt.COPYPOSTFIELDS, body)
        curl.perform()
        status = curl.getinfo(CurlInfo.RESPONSE_CODE)
        version = curl.getinfo(CurlInfo.HTTP_VERSION)
        assert version == 30, f"spoke HTTP version {version}"
        return status, head.getvalue().decode().splitlines(), out.getvalue()


def main(args):
    session = Session(args)
    for number in range(100):
        status, head, body = session.fetch(f"/get/{number}?a=b", [f"x-number: {number}", "cookie: a=1"])
        assert (status, body) == (200, b""), (status, head, body)
        assert f"x-path: /get/{number}" in head, head

    sent = bytes(range(256)) * 4096
    status, head, body = session.fetch("/post", body=sent)
    assert status == 200 and body == sent, f"{status}: {len(body)} bytes came back"
    assert "x-method: POST" in head, head

    status, head, _ = session.fetch("/early-hints")
    assert status == 200, head
    assert any(line.startswith("HTTP/3 103") for line in head), head
    assert "link: </style.css>" in head, head

    status, head, _ = session.fetch("/", ["x-large: " + "v" * 100_000])
    assert status == 431, head
    status, _, _ = session.fetch("/after")
    assert status == 200, "the connection did not survive"

    try:
        Session(args).fetch("/", with_certificate=False)
    except CurlError:
        pass
    else:
        raise AssertionError("a client without a certificate was served")
    print("all checks passed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--ca", "--cert", "--key"):
        parser.add_argument(name, required=True)
    parser.add_argument("--port", type=int, required=True)
    main(parser.parse_args())
