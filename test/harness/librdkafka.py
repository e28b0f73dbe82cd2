"""The newest librdkafka, instead of Debian's: the library that the tests' own client brings along, which comes
without headers, and the headers of a package that comes with librdkafka's source."""

import hashlib
import importlib.util
import io
import os
import pathlib
import tarfile
import tempfile
import urllib.request

from harness import paths

# Not newer than the library: what is declared must be there.
HEADERS = "2.12.1"
SOURCE = f"https://static.crates.io/crates/rdkafka-sys/rdkafka-sys-4.10.0+{HEADERS}.crate"
SHA256 = "e234cf318915c1059d4921ef7f75616b5219b10b46e9f3a511a15eb4b56a3f77"


def wanted():
    return os.environ.get("LIBRDKAFKA") == "newest"


def library():
    """Where the tests' own client has it."""
    client = pathlib.Path(importlib.util.find_spec("confluent_kafka").origin).parent
    path, = client.with_name("confluent_kafka.libs").glob("librdkafka-*.so.1")
    return path


def include_directory():
    """A directory with librdkafka/rdkafka.h in it; fetched once."""
    directory = paths.CACHE / f"librdkafka-{HEADERS}"
    if not directory.exists():
        with urllib.request.urlopen(SOURCE, timeout=120) as answer:
            package = answer.read()
        if hashlib.sha256(package).hexdigest() != SHA256:
            raise RuntimeError(f"{SOURCE} is not the file that it was")
        part = pathlib.Path(tempfile.mkdtemp(prefix="librdkafka.", dir=paths.CACHE))
        (part / "librdkafka").mkdir()
        with tarfile.open(fileobj=io.BytesIO(package)) as archive:
            for member in archive:
                if member.name.endswith("/librdkafka/src/rdkafka.h"):
                    (part / "librdkafka" / "rdkafka.h").write_bytes(archive.extractfile(member).read())
        part.chmod(0o755)
        part.rename(directory)
    return directory
