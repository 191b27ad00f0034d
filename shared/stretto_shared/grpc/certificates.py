"""The PEM files of one side of TLS, read again whenever they change, so that a rotation needs no restart.

Who rotates certificates (cert-manager and the kubelet) replaces files under a running process.
`WatchedCertificates.latest` looks at most once in `CHECK_EVERY_S` whether they changed, and gives what was last whole:
a certificate that belongs to its key, and authorities that parse. Files that are half written, missing or of two
generations leave the old ones in use, are logged, and are counted until they are mended.

It knows nothing of gRPC credentials; `tls.py` makes those.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from stretto_shared.errors import NotReady
from stretto_shared.grpc.metrics import Metrics

CHECK_EVERY_S = 1.0
_PEM_CERTIFICATE = re.compile(b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17  # DER tags (X.690)


@dataclass(frozen=True)
class CertificatePaths:
    """Where one side of TLS has its files; `certificate` and `key` come together.

    Args:
        side: `server` of a port, `client` of channels; a label of the metrics.
        certificate: The own certificate chain.
        key: Its private key.
        authorities: Who must have signed the other side's certificate.
    """

    side: Literal["server", "client"]
    certificate: Path | None
    key: Path | None
    authorities: Path | None

    @property
    def by_setting(self) -> dict[str, Path]:
        """The files that are set, by the settings that name them."""
        authorities = "tls_client_ca_path" if self.side == "server" else "tls_ca_path"
        named = {"tls_key_path": self.key, "tls_cert_path": self.certificate, authorities: self.authorities}
        return {field: path for field, path in named.items() if path is not None}


@dataclass(frozen=True)
class Certificates:
    """The contents of the files, all PEM, which belong together.

    Args:
        certificate: See `CertificatePaths`.
        key: See `CertificatePaths`.
        authorities: See `CertificatePaths`.
        expires_at_s: When the first certificate of the own chain expires, in seconds since 1970; None without one.
    """

    certificate: bytes | None
    key: bytes | None
    authorities: bytes | None
    expires_at_s: float | None


def read_certificates(paths: CertificatePaths) -> Certificates:
    """Read the files and check that they are whole.

    Raises:
        NotReady: If one cannot be read, is no PEM, or the certificate does not belong to the key.
    """
    contents = _read_all(paths)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if paths.certificate is not None and paths.key is not None:
        try:
            context.load_cert_chain(paths.certificate, paths.key, password=lambda: "")  # else it asks a terminal
        except (ssl.SSLError, OSError) as error:
            raise NotReady(
                f"tls_cert_path and tls_key_path: '{paths.certificate}' and '{paths.key}' are no certificate and its "
                f"key ({_reason(error)}). Give two PEM files that belong together; the key not encrypted."
            ) from error
    if paths.authorities is not None:
        try:
            context.load_verify_locations(cadata=contents[paths.authorities].decode("ascii", "ignore"))
        except (ssl.SSLError, ValueError) as error:
            field = next(name for name, path in paths.by_setting.items() if path == paths.authorities)
            raise NotReady(
                f"{field}: '{paths.authorities}' holds no certificates ({_reason(error)}). Give the path of a PEM file."
            ) from error
    if _read_all(paths) != contents:  # what was checked is what is used
        raise NotReady("The files of certificates changed while they were read. Read them again.")
    own = None if paths.certificate is None else contents[paths.certificate]
    return Certificates(
        certificate=own,
        key=None if paths.key is None else contents[paths.key],
        authorities=None if paths.authorities is None else contents[paths.authorities],
        expires_at_s=None if own is None else expiry_s(own),
    )


def expiry_s(chain: bytes) -> float:
    """When the first certificate of a PEM chain expires, in seconds since 1970."""
    found = _PEM_CERTIFICATE.findall(chain)
    return min(_expiry_of_der_s(ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))) for pem in found)


class WatchedCertificates:
    """What `latest` gives was whole when it was read. Safe from any thread: gRPC asks from its own.

    Args:
        paths: The files.
        metrics: Gets the time of expiry and the failures to read.
        log: Gets what was taken up, and why something was not.

    Raises:
        NotReady: If the files are not whole to begin with.
    """

    def __init__(self, paths: CertificatePaths, *, metrics: Metrics | None = None, log: Any = None) -> None:
        self._paths, self._log = paths, log
        self._lock = threading.Lock()
        self._stamp = _stamp(paths)
        self._current = read_certificates(paths)
        self._next_check_s = time.monotonic() + CHECK_EVERY_S
        self._last_failure = ""
        self._failures = None
        if metrics is not None:
            self._failures = _watched_by(metrics, self)

    @property
    def side(self) -> str:
        return self._paths.side

    def latest(self) -> Certificates:
        """The newest that were whole; the same object as long as they did not change."""
        with self._lock:
            now_s = time.monotonic()
            if now_s >= self._next_check_s:
                self._next_check_s = now_s + CHECK_EVERY_S
                self._take_up()
            return self._current

    def _take_up(self) -> None:
        stamp = _stamp(self._paths)
        if stamp == self._stamp:
            return
        try:
            fresh = read_certificates(self._paths)
        except NotReady as error:
            self._note_failure(error.message)
            return
        self._stamp, self._last_failure = stamp, ""
        if fresh == self._current:
            return
        self._current = fresh
        if self._log is not None:
            self._log.info("certificates_renewed", side=self.side, expires_at_s=fresh.expires_at_s)

    def _note_failure(self, message: str) -> None:
        """Count every try, and write a line for each new reason."""
        if self._failures is not None:
            self._failures.inc()
        if self._log is not None and message != self._last_failure:
            self._log.error("certificates_not_renewed", side=self.side, reason=message)
        self._last_failure = message


class CertificateMetrics:
    """The metrics of certificates; those of both sides of one process share them."""

    def __init__(self, metrics: Metrics) -> None:
        self.expiry = metrics.gauge(
            "stretto_tls_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires, in seconds since 1970",
            ("side",),
        )
        self.failures = metrics.counter(
            "stretto_tls_reload_failures", "Tries to take up changed certificates that found them not whole", ("side",)
        )


def _watched_by(metrics: Metrics, watched: WatchedCertificates) -> Any:
    """Show the expiry whenever somebody looks, which also takes up new files where no call comes; the failures."""
    made = CertificateMetrics(metrics)
    if watched.latest().expires_at_s is not None:
        made.expiry.labels(watched.side).set_function(lambda: watched.latest().expires_at_s or 0.0)
    return made.failures.labels(watched.side)


def _read_all(paths: CertificatePaths) -> dict[Path, bytes]:
    return {path: _read(field, path) for field, path in paths.by_setting.items()}


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotReady(f"{field}: cannot read '{path}' ({error.strerror}). Give the path of a PEM file.") from error


def _stamp(paths: CertificatePaths) -> tuple[object, ...]:
    """What changes when a file is written anew, or the link to it is set anew."""
    stamps: list[object] = []
    for path in paths.by_setting.values():
        try:
            known = path.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((known.st_ino, known.st_mtime_ns, known.st_size))
    return tuple(stamps)


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)


def _expiry_of_der_s(der: bytes) -> float:
    """`Certificate.tbsCertificate.validity.notAfter` (RFC 5280, 4.1); the standard library does not give it out."""
    certificate = next(_elements(der))[1]
    to_be_signed = next(_elements(certificate))[1]
    fields = [content for tag, content in _elements(to_be_signed) if tag != _VERSION]
    validity = fields[3]  # after serial number, signature and issuer
    tag, text = list(_elements(validity))[1]
    digits = text.decode("ascii")
    if tag == _UTC_TIME:
        digits = ("20" if int(digits[:2]) < 50 else "19") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            num_bytes = length & 0x7F
            length = int.from_bytes(der[at : at + num_bytes], "big")
            at += num_bytes
        yield tag, der[at : at + length]
        at += length
