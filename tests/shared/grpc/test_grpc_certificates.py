"""The files of certificates: what is whole, and when it expires."""

from __future__ import annotations

import datetime

import pytest
from authority import Authority
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from stretto_shared.errors import NotReady
from stretto_shared.grpc.certificates import CertificatePaths, expiry_s, read_certificates


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


@pytest.mark.parametrize("year", [2027, 2049, 2050, 2071])  # written in two ways: before 2050, and from then on
def test_the_expiry_is_what_another_reader_of_certificates_says(authority, year):
    cert_path, _ = authority.issue("a", until=datetime.datetime(year, 3, 4, 5, 6, 7, tzinfo=datetime.UTC))
    pem = cert_path.read_bytes()
    assert expiry_s(pem) == x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()


def test_a_chain_expires_with_its_first_certificate_that_does(authority):
    late, soon = (authority.issue(name, days=days)[0].read_bytes() for name, days in (("late", 9), ("soon", 2)))
    assert expiry_s(late + soon) == expiry_s(soon + late) == expiry_s(soon) < expiry_s(late)


def test_what_belongs_together_is_read_as_it_is(authority):
    cert_path, key_path = authority.issue("a")
    read = read_certificates(CertificatePaths("server", cert_path, key_path, authority.ca_path))
    assert (read.certificate, read.key) == (cert_path.read_bytes(), key_path.read_bytes())
    assert (read.authorities, read.expires_at_s) == (authority.ca_path.read_bytes(), expiry_s(cert_path.read_bytes()))
    alone = read_certificates(CertificatePaths("client", None, None, authority.ca_path))
    assert (alone.certificate, alone.key, alone.expires_at_s) == (None, None, None)


def test_a_certificate_with_another_key_is_named(authority):
    cert_path, _ = authority.issue("a")
    _, key_path = authority.issue("b")
    with pytest.raises(NotReady, match=r"a\.crt' and '.*b\.key' are no certificate and its key"):
        read_certificates(CertificatePaths("server", cert_path, key_path, None))


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(authority):
    cert_path, key_path = authority.issue("a")
    key = serialization.load_pem_private_key(key_path.read_bytes(), None)
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(NotReady, match="the key not encrypted"):
        read_certificates(CertificatePaths("server", cert_path, key_path, None))


@pytest.mark.parametrize("content", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nhalf", "ä".encode()])
@pytest.mark.parametrize(("side", "field"), [("server", "tls_client_ca_path"), ("client", "tls_ca_path")])
def test_authorities_that_are_none_are_named_by_their_setting(tmp_path, content, side, field):
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(NotReady, match=rf"{field}: '.*ca\.pem' holds no certificates"):
        read_certificates(CertificatePaths(side, None, None, tmp_path / "ca.pem"))


def test_files_that_change_while_they_are_read_are_not_taken(authority, monkeypatch):
    cert_path, key_path = authority.issue("a")
    paths = CertificatePaths("server", cert_path, key_path, authority.ca_path)
    new = authority.ca_path.read_bytes() + authority.ca_path.read_bytes()
    from stretto_shared.grpc import certificates

    read_all, reads = certificates._read_all, []

    def read_and_change(given):
        reads.append(read_all(given))
        authority.ca_path.write_bytes(new)
        return reads[-1]

    monkeypatch.setattr(certificates, "_read_all", read_and_change)
    with pytest.raises(NotReady, match="changed while they were read"):
        read_certificates(paths)
    assert read_certificates(paths).authorities == new
