"""Certificates for tests, made with openssl: authorities, and what they sign."""

import subprocess

DAY = 86400


class Authority:
    """A private certificate authority in a directory."""

    def __init__(self, directory, name):
        self.directory = directory
        self.name = name
        self.key = directory / f"{name}.key"
        self.certificate = directory / f"{name}.crt"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-subj", f"/CN={name}", "-days", "30", "-keyout", self.key, "-out", self.certificate)

    @property
    def pem(self):
        return self.certificate.read_text()

    def issue(self, name, alternative_names=None, expired=False, password=None):
        """A Certificate for a common name; alternative_names as in "DNS:localhost"."""
        return Certificate(self, name, alternative_names, expired, password)


class Certificate:
    """key and certificate as PEM text; the key is PKCS#8, as Java wants it."""

    def __init__(self, authority, name, alternative_names, expired, password):
        stem = authority.directory / f"{authority.name}-{name}"
        request, key, certificate = (stem.with_suffix(suffix) for suffix in (".csr", ".pem", ".crt"))
        extensions = stem.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={alternative_names}\n" if alternative_names else "")
        cipher = ["-aes-256-cbc", "-pass", f"pass:{password}"] if password else []
        _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", *cipher, "-out", key)
        unlock = ["-passin", f"pass:{password}"] if password else []
        _openssl("req", "-new", "-key", key, *unlock, "-subj", f"/CN={name}", "-out", request)
        if expired:  # x509 of OpenSSL 3.0 knows no dates, ca does
            _openssl_ca(authority, request, extensions, certificate, "20200101000000Z", "20200201000000Z")
        else:
            _openssl("x509", "-req", "-in", request, "-CA", authority.certificate, "-CAkey", authority.key,
                     "-CAcreateserial", "-days", "30", "-extfile", extensions, "-out", certificate)
        self.key = key.read_text()
        self.certificate = certificate.read_text()

    def keystore(self, path):
        """Writes the file that Kafka takes as a keystore of type PEM."""
        path.write_text(self.key + self.certificate)
        return path


def _openssl_ca(authority, request, extensions, certificate, start, end):
    database = authority.directory / f"{authority.name}.index"
    database.touch()
    settings = authority.directory / f"{authority.name}.cnf"
    settings.write_text(f"[ca]\ndefault_ca = ours\n[ours]\ndatabase = {database}\nrand_serial = yes\n"
                        f"new_certs_dir = {authority.directory}\ndefault_md = sha256\npolicy = any\n"
                        "[any]\ncommonName = supplied\n")
    _openssl("ca", "-batch", "-config", settings, "-cert", authority.certificate, "-keyfile", authority.key,
             "-startdate", start, "-enddate", end, "-extfile", extensions, "-in", request, "-out", certificate,
             "-notext")


def _openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
