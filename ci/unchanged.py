#!/usr/bin/env python3
"""Lets cargo see what has not changed since the last run of the checks in another clone at the same path.

Cargo builds a crate anew if one of its files is newer than what was built, and in a fresh clone all files are. `begin` gives
each file that has the content that it had in the last run the time that it had then, in a clone that was not there before;
whatever has changed stays new. It does nothing if anything has been built into the same folder since that run has ended, or if it
never ended: then the last content is not known.

    unchanged.py begin TARGET      before the first build; TARGET is cargo's folder
    unchanged.py end TARGET        after the last
    unchanged.py --self-test
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path


def git(*arguments):
    return subprocess.run(["git", *arguments], check=True, stdout=subprocess.PIPE).stdout


def tracked():
    """The files of the clone, each with the sum of its content."""
    names = [os.fsdecode(name) for name in git("ls-files", "-z").split(b"\0") if name]
    files = [name for name in names if os.path.isfile(name) and not os.path.islink(name)]
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files}


def clone():
    """What tells this clone from others, and whether it has just got that."""
    mark = Path(os.fsdecode(git("rev-parse", "--git-dir").strip())) / "cutwater-clone"
    if mark.exists():
        return mark.read_text(), False
    mark.write_text(uuid.uuid4().hex)
    return mark.read_text(), True


def last_build(target):
    """When cargo last began to build something, in nanoseconds."""
    stamps = Path(target).glob("*/.fingerprint/*/invoked.timestamp")
    return max((stamp.stat().st_mtime_ns for stamp in stamps), default=0)


def state_of(target):
    here = hashlib.sha256(os.getcwd().encode()).hexdigest()[:16]
    return Path(target) / "unchanged" / f"{here}.json"


def write(path, state):
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(f".{os.getpid()}")
    whole.write_text(json.dumps(state))
    whole.replace(path)


def read(path):
    try:
        state = json.loads(path.read_text())
        return state if isinstance(state["files"], dict) and state["ended"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def begin(target):
    path, files, (_, is_new) = state_of(target), tracked(), clone()
    last, same = read(path), 0
    if is_new and last is not None and last_build(target) <= last["ended"]:
        for name, content in files.items():
            before = last["files"].get(name)
            if before is not None and before[0] == content:
                os.utime(name, ns=(before[1], before[1]))
                same += 1
    now = {name: [content, os.stat(name).st_mtime_ns] for name, content in files.items()}
    write(path, {"files": now, "ended": None})
    return same, len(files)


def end(target):
    path = state_of(target)
    if not path.exists():
        return  # it never began
    state = json.loads(path.read_text())
    # Whoever changed a file meanwhile has built it, or has not: nobody knows.
    still = {name: [content, os.stat(name).st_mtime_ns] for name, content in tracked().items()}
    write(path, {"files": still, "ended": time.time_ns() if still == state["files"] else None})


def self_test():
    home = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        target, repository, work = Path(folder, "target"), Path(folder, "repository"), Path(folder, "work")
        stamp = target / "debug" / ".fingerprint" / "crate-1" / "invoked.timestamp"
        stamp.parent.mkdir(parents=True)

        def run(*arguments, at=repository):
            identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
            subprocess.run(["git", *identity, *arguments], cwd=at, check=True, stdout=subprocess.DEVNULL)

        def commit(**content):
            for name, text in content.items():
                (repository / name).write_text(text)
            run("add", "-A")
            run("commit", "-qm", "change")

        def in_clone(content, ends=True):
            """What `begin` does in a fresh clone, which then has this content; the times of its files."""
            os.chdir(folder)
            subprocess.run(["rm", "-rf", work], check=True)
            run("clone", "-q", repository, work, at=folder)
            os.chdir(work)
            same, _ = begin(target)
            assert {name: Path(name).read_text() for name in content} == content
            stamp.write_text("built")
            if ends:
                end(target)
            return same, {name: os.stat(name).st_mtime_ns for name in content}

        repository.mkdir()
        run("init", "-q")
        commit(a="1", b="1")
        same, first = in_clone({"a": "1", "b": "1"})
        assert same == 0, "nothing is known at first"
        commit(b="2")
        same, second = in_clone({"a": "1", "b": "2"})
        assert same == 1 and second["a"] == first["a"] and second["b"] > first["b"]
        commit(b="1")
        same, third = in_clone({"a": "1", "b": "1"})
        assert same == 1 and third["a"] == first["a"] and third["b"] > second["b"], "what was there before is new again"
        same, _ = in_clone({"a": "1", "b": "1"}, ends=False)
        assert same == 2
        same, fourth = in_clone({"a": "1", "b": "1"})
        assert same == 0 and fourth["a"] > third["a"], "the run before has not ended"
        stamp.write_text("by somebody else")
        os.utime(stamp, ns=(time.time_ns() + 1, time.time_ns() + 1))
        assert in_clone({"a": "1", "b": "1"})[0] == 0, "something was built since"
        begin(target)
        Path("a").write_text("3")
        end(target)
        assert in_clone({"a": "1", "b": "1"})[0] == 0, "a file was changed meanwhile"
        Path("a").write_text("4")
        begin(target)
        end(target)
        os.utime("a", ns=(5, 5))
        begin(target)
        assert os.stat("a").st_mtime_ns == 5, "a clone that was there before is left alone"
        state_of(target).write_text("damaged")
        assert in_clone({"a": "1", "b": "1"})[0] == 0, "a damaged file is as none"
        os.chdir(home)
    print("unchanged.py: self-test passed")


def main():
    match sys.argv[1:]:
        case ["--self-test"]:
            self_test()
        case ["begin", target]:
            same, all_files = begin(target)
            print(f"{same} of {all_files} files are as they were in the last clone here")
        case ["end", target]:
            end(target)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
