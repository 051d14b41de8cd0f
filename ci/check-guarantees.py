#!/usr/bin/env python3
"""Fails unless every promise of GUARANTEES.md has tests, and all of them ran and passed.

    check-guarantees.py GUARANTEES.md --results FOLDER [--left-out PACKAGE]...
    check-guarantees.py --self-test

FOLDER is what run-tests.py recorded in this run. A promise is a heading of the third level that begins with `G` and a
number, and somewhere below it, before the next heading, one or more paragraphs that begin with `Tests: `:

    ### G7 A checkpoint that was reported as completed is never lost

    What exactly is promised, and under which faults.

    Tests: `cutwater-coordinator log::tests::a_completed_slot_is_never_overwritten`,
    `cutwater-integration-tests kill::fifty_kills_change_no_byte`

Each test stands in backticks as `PACKAGE PATH`. PATH is what the test runner prints; the test of a file `tests/kill.rs`
has `kill::` before it, a unit test of a binary the binary's name. Doc tests can't be named: their names hold line
numbers. A paragraph of tests ends at an empty line and holds nothing but names in backticks, commas and `and`.

Refused: a file without promises; a number used twice; a promise without a test; a test that did not run, was ignored
or failed in any of its runs; a heading such as `## G7` that only looks like a promise; a paragraph of tests outside a
promise. Fenced code is passed over. With `--left-out PACKAGE` (a quick run) tests of that package are counted as left
out, in so many words, and not checked.
"""

import argparse
import difflib
import re
import sys
import unittest
from dataclasses import dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True  # no __pycache__ in the repository
import test_log

HEADING = re.compile(r"^#{1,6}\s")
PROMISE = re.compile(r"^### G(?P<number>[1-9]\d*) (?P<sentence>\S.*)$")
NEARLY = re.compile(r"^#{1,6}\s*G\s*\d")
ITEM = re.compile(r"`([^`]*)`")
NAME = re.compile(r"^(?P<package>[a-z][a-z0-9-]*) (?P<path>[A-Za-z_][\w:]*)$")


@dataclass
class Promise:
    number: int
    sentence: str
    line: int
    tests: list = field(default_factory=list)  # (package, path)


def read_promises(text):
    """Returns the promises of a document and what is wrong with its form."""
    promises, wrong = [], []
    current, fenced, listing = None, False, False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced, listing = not fenced, False
            continue
        if fenced:
            continue
        if HEADING.match(line):
            current, listing = None, False
            if found := PROMISE.match(line):
                current = Promise(int(found["number"]), found["sentence"].strip(), number)
                promises.append(current)
            elif NEARLY.match(line):
                wrong.append(f"line {number}: a promise is written `### G<number> <sentence>`, this is `{line}`")
            continue
        if line.startswith("Tests:"):
            listing = True
            line = line.removeprefix("Tests:")
            if current is None:
                wrong.append(f"line {number}: tests outside a promise")
        elif not line.strip():
            listing = False
        if listing and current is not None:
            read_items(line, number, current, wrong)
    seen = {}
    for promise in promises:
        if first := seen.get(promise.number):
            wrong.append(f"line {promise.line}: G{promise.number} is already taken by line {first.line}")
        seen.setdefault(promise.number, promise)
        if not promise.tests:
            wrong.append(f"line {promise.line}: G{promise.number} names no test")
    if not promises:
        wrong.append("no promise found: a promise is written `### G<number> <sentence>`")
    return promises, wrong


def read_items(line, number, promise, wrong):
    for item in ITEM.findall(line):
        if found := NAME.match(item):
            promise.tests.append((found["package"], found["path"]))
        else:
            wrong.append(f"line {number}: `{item}` is not of the form `package test::path`")
    rest = ITEM.sub("", line)
    if re.sub(r"\band\b|[,.\s]", "", rest):
        wrong.append(f"line {number}: a list of tests holds names in backticks only, not `{rest.strip()}`")


def judge(promises, run, left_out=()):
    """Returns what is wrong and the number of tests that were not looked at."""
    wrong, skipped = [], 0
    for promise in promises:
        for package, path in promise.tests:
            if package in left_out:
                skipped += 1
                continue
            results = run.results.get((package, path), [])
            if not results:
                near = difflib.get_close_matches(path, run.paths(package), n=1)
                if near:
                    hint = f"; did you mean `{package} {near[0]}`?"
                elif not run.paths(package):
                    hint = f"; no test of `{package}` ran at all"
                else:
                    hint = ""
                wrong.append(f"G{promise.number}: `{package} {path}` did not run to its end{hint}")
            elif any(result != "ok" for result in results):
                worst = next(result for result in results if result != "ok")
                wrong.append(f"G{promise.number}: `{package} {path}`: {worst}")
    return wrong, skipped


def main():
    parser = argparse.ArgumentParser(description="every promise has tests, and they passed")
    parser.add_argument("document", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--left-out", action="append", default=[], metavar="PACKAGE")
    options = parser.parse_args()
    if not options.document.is_file():
        sys.exit(f"{options.document}: no such file")
    run = test_log.read_folder(options.results)
    promises, wrong = read_promises(options.document.read_text())
    broken, skipped = judge(promises, run, options.left_out)
    for sentence in wrong + broken:
        print(f"{options.document}: {sentence}", file=sys.stderr)
    if wrong or broken:
        sys.exit(f"{len(wrong) + len(broken)} things to mend")
    named = sum(len(promise.tests) for promise in promises)
    print(f"{len(promises)} promises name {named} tests: {named - skipped} passed in this run, {skipped} left out")
    print(f"of all tests: {run.summary()}")


class SelfTest(unittest.TestCase):
    BINARIES = {
        "cutwater_barrier-11": ["cutwater-barrier", ""],
        "kill-22": ["cutwater-integration-tests", "kill::"],
        "kill-33": ["cutwater-other", "kill::"],
    }
    LOG = """\
    Finished `test` profile [unoptimized + debuginfo] target(s) in 0.05s
     Running unittests src/lib.rs (/t/debug/deps/cutwater_barrier-11)

running 5 tests
test aligner::tests::good ... ok
test aligner::tests::bad ... FAILED
test aligner::tests::later ... ignored, needs a disk
test aligner::tests::loud - should panic ... ok
test aligner::tests::torn ... a word of a child
ok

test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s

\x1b[32m     Running\x1b[0m tests/kill.rs (target/debug/deps/kill-22)
test fifty ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.24s

     Running tests/kill.rs (target/debug/deps/kill-33)
test fifty ... FAILED
test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.24s

   Doc-tests cutwater_barrier
test crates/barrier/src/lib.rs - (line 6) ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
"""

    def run_of_log(self):
        return test_log.read_log(self.LOG.splitlines(), self.BINARIES, test_log.Run())

    def complaints(self, text, left_out=()):
        promises, wrong = read_promises(text)
        return wrong + judge(promises, self.run_of_log(), left_out)[0]

    def assert_refused(self, text, reason):
        found = self.complaints(text)
        self.assertEqual(len(found), 1, found)
        self.assertIn(reason, found[0])

    def test_counts_are_those_of_the_closing_lines(self):
        run = self.run_of_log()
        self.assertEqual((run.passed, run.failed, run.ignored, run.binaries), (5, 2, 1, 4))

    def test_an_unknown_binary_is_an_error(self):
        with self.assertRaises(ValueError):
            test_log.read_log(self.LOG.splitlines(), {}, test_log.Run())

    def test_promises_with_passing_tests_are_accepted(self):
        text = (
            "# Guarantees\n### G1 One\nprose `code`\n\nTests: `cutwater-barrier aligner::tests::good`,\n"
            "`cutwater-integration-tests kill::fifty`\n\nmore `prose`\n"
            "### G2 Two\nTests: `cutwater-barrier aligner::tests::loud`.\n"
        )
        self.assertEqual(self.complaints(text), [])

    def test_what_is_refused(self):
        one = "### G1 One\n\nTests: `cutwater-barrier aligner::tests::good`\n"
        cases = [
            ("nothing here\n", "no promise found"),
            ("```\n" + one + "```\n", "no promise found"),
            (one + one, "already taken by line 1"),
            (one + "### G2 Two\nprose\n", "G2 names no test"),
            (one + "## G2 Two\n", "`### G<number> <sentence>`"),
            ("Tests: `cutwater-barrier aligner::tests::good`\n" + one, "outside a promise"),
            (one.replace("good", "bad"), "FAILED"),
            (one.replace("good", "later"), "ignored"),
            (one.replace("good", "torn"), "did not run to its end"),
            (one.replace("good", "goods"), "did you mean `cutwater-barrier aligner::tests::good`?"),
            (one.replace("cutwater-barrier", "cutwater-nothing"), "no test of `cutwater-nothing` ran"),
            ("### G1 One\nTests: `cutwater-other kill::fifty`\n", "FAILED"),
            (one.replace("good`", "good` or so"), "names in backticks only"),
            (one.replace("good`", "good`, `cutwater-barrier`"), "not of the form"),
        ]
        for text, reason in cases:
            with self.subTest(text):
                self.assert_refused(text, reason)

    def test_a_package_left_out_is_counted_as_such(self):
        text = "### G1 One\nTests: `cutwater-integration-tests kill::unknown`\n"
        promises, wrong = read_promises(text)
        self.assertEqual(wrong, [])
        self.assertEqual(judge(promises, self.run_of_log(), ["cutwater-integration-tests"]), ([], 1))


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        unittest.main(argv=sys.argv[:1])
    main()
