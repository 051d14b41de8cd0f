#!/usr/bin/env python3
"""Runs `cargo test` within a time limit, shows its output as it is, and records it for check-guarantees.py.

    run-tests.py --results FOLDER --name NAME --limit SECONDS -- ARGUMENTS OF CARGO TEST

The tests get a process group of their own and no stdin. When the time is up, or this script is told to stop, the whole
group is killed, so that no child of a test is left behind. Succeeds only if every test passed and there was one.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

sys.dont_write_bytecode = True  # no __pycache__ in the repository
import test_log


def main():
    parser = argparse.ArgumentParser(description="cargo test, bounded and recorded")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--limit", type=int, required=True, help="seconds, for building and running each")
    parser.add_argument("arguments", nargs="+")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)

    names = {package["id"]: package["name"] for package in cargo_metadata()["packages"]}
    binaries = {}

    def note_binary(line):
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message.get("executable") and message["profile"]["test"]:
            target = message["target"]
            place = [names[message["package_id"]], test_log.prefix_of(target["kind"], target["name"])]
            binaries[Path(message["executable"]).name] = place

    build = ["cargo", "test", *options.arguments, "--no-run", "--message-format=json-render-diagnostics"]
    code = bounded(build, options.limit, note_binary, errors=None)
    if code != 0:
        sys.exit("the tests did not build")
    (options.results / f"{options.name}.json").write_text(json.dumps(binaries, indent=1))

    with (options.results / f"{options.name}.log").open("w") as log:

        def show(line):
            print(line, end="", flush=True)
            log.write(line)

        test = ["cargo", "test", *options.arguments, "--no-fail-fast"]
        code = bounded(test, options.limit, show, errors=subprocess.STDOUT)

    run = test_log.Run()
    lines = (options.results / f"{options.name}.log").read_text(errors="replace").splitlines()
    print(f"\n{options.name}: {test_log.read_log(lines, binaries, run).summary()}")
    if code == 0 and run.passed == 0:
        sys.exit("cargo was content, but no test ran")
    sys.exit(1 if code != 0 or run.failed else 0)


def cargo_metadata():
    command = ["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def bounded(command, limit, each_line, errors):
    """Runs `command` in a process group of its own and hands on its lines; returns its exit code."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        errors="replace",
        start_new_session=True,
    )

    def kill(reason):
        print(f"\n{reason}: killing {' '.join(command[:2])} and its children", file=sys.stderr, flush=True)
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def stop(number, _frame):
        kill(signal.Signals(number).name)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    timer = threading.Timer(limit, kill, [f"the limit of {limit} s has passed"])
    timer.daemon = True
    timer.start()
    try:
        for line in child.stdout:
            each_line(line)
        return child.wait()
    finally:
        timer.cancel()


if __name__ == "__main__":
    main()
