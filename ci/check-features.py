#!/usr/bin/env python3
"""Checks the facade without default features and with each of its features alone, warnings as errors.

Features are read from the manifest, so that a new one is checked from its first day. With `--list` it only names them;
`--without FEATURE` leaves one out.
"""

import json
import subprocess
import sys

FACADE = "cutwater"


def main():
    command = ["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    facade = next(package for package in metadata["packages"] if package["name"] == FACADE)
    features = sorted(name for name in facade["features"] if name != "default")
    print(f"features of {FACADE}: {', '.join(features) or 'none yet'}", flush=True)
    if sys.argv[1:] == ["--list"]:
        return
    if sys.argv[1:2] == ["--without"]:
        features.remove(sys.argv[2])
        print(f"left out: {sys.argv[2]}", flush=True)
    failed = []
    for feature in [None, *features]:
        name = f"only the feature {feature}" if feature else "no features"
        chosen = ["--features", feature] if feature else []
        print(f"-- {FACADE} with {name}", flush=True)
        clippy = ["cargo", "clippy", "--locked", "-p", FACADE, "--no-default-features", *chosen, "--", "-D", "warnings"]
        if subprocess.run(clippy).returncode != 0:
            failed.append(name)
    if failed:
        sys.exit(f"{FACADE} fails with {'; '.join(failed)}")


if __name__ == "__main__":
    main()
