#!/usr/bin/env python3
"""Fails if what users get by default has grown too large or brings C++ along; prints the figure.

Counted are the crates that `cutwater` with its default features builds for x86_64 Linux, build dependencies and our own
crates included, tests excluded. C++ is looked for twice: by the names of crates known to bring it (and of CMake, which
may), and in the build scripts of all others, for the calls that switch a C compiler to C++.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

FACADE = "cutwater"
TARGET = "x86_64-unknown-linux-gnu"
BRING_CPP = {
    "autocxx", "cmake", "cxx", "cxx-build", "duckdb", "leveldb-sys", "libduckdb-sys", "librocksdb-sys",
    "link-cplusplus", "rdkafka-sys", "rocksdb", "rust-librocksdb-sys", "rust-rocksdb", "snmalloc-sys", "speedb",
}  # fmt: skip
CPP_CALL = re.compile(r"\.cpp\s*\(\s*true|\.cpp_link_stdlib\s*\(")


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description="the facade's dependency tree stays small and free of C++")
    parser.add_argument("--limit", type=int, default=110)
    limit = parser.parse_args().limit

    tree = ("tree", "--locked", "-p", FACADE, "-e", "normal,build", "--target", TARGET, "--prefix", "none")
    # A line is "name vVERSION", perhaps with "(proc-macro)", a path or "(*)" behind it.
    crates = sorted({tuple(line.split()[:2]) for line in cargo(*tree).splitlines() if line.strip()})
    ours = [name for name, _ in crates if name == FACADE or name.startswith(FACADE + "-")]
    if FACADE not in ours or len(crates) == len(ours):
        sys.exit(f"cargo tree named {len(crates)} crates, {len(ours)} of them ours: that can't be read right")

    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET))
    packages = {(package["name"], "v" + package["version"]): package for package in metadata["packages"]}
    wrong = []
    for crate in crates:
        if crate[0] in BRING_CPP:
            wrong.append(f"{' '.join(crate)} brings C++ or CMake")
            continue
        for target in packages[crate]["targets"]:
            if "custom-build" in target["kind"] and CPP_CALL.search(Path(target["src_path"]).read_text()):
                wrong.append(f"the build script of {' '.join(crate)} asks for C++")
    if len(crates) > limit:
        wrong.append(f"{len(crates)} crates are more than {limit}; see `cargo tree -p {FACADE} -e normal,build`")
    print(f"{FACADE} resolves to {len(crates)} crates by default, {len(ours)} of them ours; the limit is {limit}")
    if wrong:
        sys.exit("\n".join(wrong))
    print("none of them compiles C++")


if __name__ == "__main__":
    main()
