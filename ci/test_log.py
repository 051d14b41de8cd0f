"""What a run of `cargo test` said: used by run-tests.py, which records runs, and check-guarantees.py, which reads them.

A run leaves two files in a folder of results: `NAME.log`, the output as shown, and `NAME.json`, which test binary
belongs to which package and target. The log alone would not do: it names a binary `tests/properties.rs
(.../properties-913b...)`, and several packages may have a test file of that name.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
RUNNING = re.compile(r"^\s+Running (?:unittests )?\S+ \((?P<binary>.+)\)$")
DOC_TESTS = re.compile(r"^\s+Doc-tests (?P<crate>\S+)$")
TEST = re.compile(r"^test (?P<name>.+?)(?: - should panic)? \.\.\. (?P<result>ok|FAILED|ignored)(?:, .*)?$")
CLOSING = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")


@dataclass
class Run:
    """The tests of one or more logs."""

    # (package, test path) -> every result seen: the same path can exist in several targets or profiles.
    results: dict = field(default_factory=dict)
    passed: int = 0
    failed: int = 0
    ignored: int = 0
    binaries: int = 0

    def packages(self):
        return sorted({package for package, _ in self.results})

    def paths(self, package):
        return [path for named, path in self.results if named == package]

    def summary(self):
        return (
            f"{self.passed} passed, {self.failed} failed, {self.ignored} ignored, "
            f"in {self.binaries} test binaries and sets of doc tests"
        )


def read_folder(folder):
    """Reads every run recorded in `folder` into one."""
    run = Run()
    for log in sorted(Path(folder).glob("*.log")):
        binaries = json.loads(log.with_suffix(".json").read_text())
        read_log(log.read_text(errors="replace").splitlines(), binaries, run)
    return run


def read_log(lines, binaries, run):
    """Adds one log to `run`. `binaries` maps a binary's file name to `[package, prefix]`.

    A line that can't be read as a result is passed over, so a test whose line was torn apart counts as not passed:
    whoever asks for it is told no. Tests of a binary that `binaries` does not know are an error.
    """
    place = None
    for line in lines:
        line = COLOUR.sub("", line).rstrip()
        if found := RUNNING.match(line):
            name = Path(found["binary"]).name
            if name not in binaries:
                raise ValueError(f"the log ran {name}, which is not among the binaries built")
            place = binaries[name]
            run.binaries += 1
        elif DOC_TESTS.match(line):
            place = None  # counted, but named by line number, so that no promise can rest on one
            run.binaries += 1
        elif (found := TEST.match(line)) and place:
            package, prefix = place
            run.results.setdefault((package, prefix + found["name"]), []).append(found["result"])
        elif found := CLOSING.match(line):
            run.passed += int(found[1])
            run.failed += int(found[2])
            run.ignored += int(found[3])
    return run


def prefix_of(kind, target):
    """What stands before a test's own path, so that a name is unique in its package: nothing for a library, the
    target's name for everything else (`tests/kill.rs` -> `kill::`, the binary `flights` -> `flights::`)."""
    return "" if {"lib", "rlib", "proc-macro"} & set(kind) else f"{target}::"
