"""A SPIFFE provider: the published Workload API on gRPC's own stack, certificates as SPIRE makes them.

Arguments: socket, SPIFFE ID, file for the bundle (PEM). One command per line on standard input, answered by `ok`:
`leaf` (another certificate, under the newest root), `root` (another root, which signs nothing yet), `deny`, `allow`.
"""

import datetime
import sys
import threading
from concurrent import futures

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from spiffe._proto import workload_pb2, workload_pb2_grpc

SOCKET, ID, BUNDLE = sys.argv[1:4]
DOMAIN = ID.split("/")[2]


def name():
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIFFE"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, str(x509.random_serial_number())),
        ]
    )


def certificate(key, subject, issuer, issuer_key, uri, ca):
    now = datetime.datetime.now(datetime.timezone.utc)
    bits = dict.fromkeys(
        [
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ],
        False,
    )
    for bit in ["key_cert_sign", "crl_sign"] if ca else ["digital_signature"]:
        bits[bit] = True
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=10))
        .not_valid_after(now + datetime.timedelta(hours=24 if ca else 1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**bits), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if not ca:
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        built = built.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return built.sign(issuer_key, hashes.SHA256())


def der(made):
    return made.public_bytes(serialization.Encoding.DER)


class Root:
    def __init__(self):
        self.key, self.name = ec.generate_private_key(ec.SECP384R1()), name()
        self.made = certificate(self.key, self.name, self.name, self.key, f"spiffe://{DOMAIN}", True)


class Provider(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    def __init__(self):
        self.changed = threading.Condition()
        self.version, self.denied, self.roots = 0, False, [Root()]
        self.leaf()

    def leaf(self):
        """As SPIRE with an upstream authority: an intermediate goes along."""
        root = self.roots[-1]
        middle_key, middle_name = ec.generate_private_key(ec.SECP256R1()), name()
        middle = certificate(middle_key, middle_name, root.name, root.key, f"spiffe://{DOMAIN}", True)
        key = ec.generate_private_key(ec.SECP256R1())
        made = certificate(key, name(), middle_name, middle_key, ID, False)
        secret = key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.svid = {"spiffe_id": ID, "x509_svid": der(made) + der(middle), "x509_svid_key": secret}
        self.tell()

    def response(self):
        bundle = b"".join(der(root.made) for root in self.roots)
        svid = workload_pb2.X509SVID(bundle=bundle, **self.svid)
        return workload_pb2.X509SVIDResponse(svids=[svid])

    def tell(self):
        pem = b"".join(root.made.public_bytes(serialization.Encoding.PEM) for root in self.roots)
        with open(BUNDLE, "wb") as file:
            file.write(pem)
        with self.changed:
            self.version += 1
            self.changed.notify_all()

    def FetchX509SVID(self, request, context):
        if dict(context.invocation_metadata()).get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        sent = 0
        while context.is_active():
            with self.changed:
                self.changed.wait_for(lambda: self.version > sent, timeout=0.5)
                version, denied, state = self.version, self.denied, self.response()
            if denied:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
            if version > sent:
                sent = version
                yield state

    def obey(self, command):
        if command == "leaf":
            self.leaf()
        elif command == "root":
            self.roots.append(Root())
            self.tell()
        elif command in ("deny", "allow"):
            self.denied = command == "deny"
            self.tell()
        else:
            sys.exit(f"unknown command {command}")


provider = Provider()
server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(provider, server)
if server.add_insecure_port(f"unix:{SOCKET}") == 0:
    sys.exit("no socket")
server.start()
print("ok", flush=True)
for line in sys.stdin:
    provider.obey(line.strip())
    print("ok", flush=True)
# The test has ended, or has let go of it.
server.stop(None)
