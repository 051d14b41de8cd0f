#!/usr/bin/env bash
# RocksDB as a static archive, which debug and release builds then only link: compiling it takes some 20 minutes of a core.
#
#   ci/rocksdb.sh --folder CACHE            prints the folder of the archive below CACHE, whether it is there or not
#   ci/rocksdb.sh --build CACHE             fills it if it is not there
#   ci/rocksdb.sh --build CACHE --from DIR  the same, from the target folder of a finished release build
#
# The folder holds librocksdb.a and include/. Its name has all that the archive depends on: the version of the bindings,
# which bring the sources, the C++ compiler and the features. It appears only when it is whole.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

features=lz4 # those of `rocksdb` in Cargo.toml that change the archive

fail() {
    echo "ci/rocksdb.sh: $*" >&2
    exit 1
}

# The C++ compiler, as the build script of the bindings chooses it.
compiler() {
    local path machine name
    path=$(command -v "${CXX:-c++}") || return 1
    machine=$("$path" -dumpmachine)
    name=$(basename "$(readlink -f "$path")")
    echo "$machine-${name#"$machine-"}-$("$path" -dumpfullversion -dumpversion)"
}

folder_in() {
    local version
    version=$(sed -n '/^name = "rust-librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
    [[ -n $version ]] || fail "Cargo.lock has no rust-librocksdb-sys"
    echo "$1/rocksdb/$version-$(compiler || echo none)-$features"
}

has_libclang() {
    [[ -n ${LIBCLANG_PATH:-} ]] || compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null ||
        ldconfig -p 2>/dev/null | grep -q 'libclang\(-[0-9]*\)\?\.so'
}

# Bindings are made anew in every build folder, so libclang is needed even where the archive is there.
install_tools() {
    local missing=()
    command -v clang >/dev/null || missing+=(clang)
    has_libclang || missing+=(libclang-dev)
    compiler >/dev/null || missing+=(g++)
    if ((${#missing[@]} == 0)); then return; fi
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        fail "not installed: ${missing[*]} (names of Debian); install them, or run this as root where there is apt-get"
    fi
    echo "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        fail "apt-get could not install ${missing[*]}"
}

# Copies archive and headers of a finished build. The bindings' own additions to the C interface are left out of the
# archive: whoever links it compiles them again.
collect() {
    local target=$1 into=$2 archives sources
    mapfile -t archives < <(find "$target/release/build" -path '*/rust-librocksdb-sys-*/out/librocksdb.a')
    ((${#archives[@]} == 1)) || fail "${#archives[@]} archives in $target, not one"
    sources=$(cargo metadata --locked --format-version 1 --features cutwater-rocksdb/rocksdb |
        python3 -c 'import json, sys
packages = json.load(sys.stdin)["packages"]
print(next(p["manifest_path"] for p in packages if p["name"] == "rust-librocksdb-sys").removesuffix("/Cargo.toml"))')
    cp "${archives[0]}" "$into/librocksdb.a"
    ar t "$into/librocksdb.a" | { grep c_api_extensions || true; } | xargs -r ar d "$into/librocksdb.a"
    cp -r "$sources/rocksdb/include" "$into/include"
    [[ -f $into/include/rocksdb/c.h ]] || fail "no headers in $sources"
}

build() {
    local folder target=${2:-}
    install_tools
    folder=$(folder_in "$1")
    if [[ ! -f $folder/librocksdb.a ]]; then
        part=$folder.part-$$
        trap 'rm -rf "$part"' EXIT
        mkdir -p "$part/whole"
        if [[ -z $target ]]; then
            target=$part/target
            env -u ROCKSDB_LIB_DIR -u ROCKSDB_INCLUDE_DIR -u ROCKSDB_STATIC CARGO_TARGET_DIR="$target" \
                cargo build --release --locked -p cutwater-rocksdb --features rocksdb
        fi
        collect "$target" "$part/whole"
        mv -T "$part/whole" "$folder" || [[ -f $folder/librocksdb.a ]] # another run may have been faster
    fi
    echo "$(basename "$folder"), $(du -h "$folder/librocksdb.a" | cut -f1)"
}

case "$#:${1:-}:${3:-}" in
2:--folder:) folder_in "$2" ;;
2:--build:) build "$2" ;;
4:--build:--from) build "$2" "$4" ;;
*) fail "see the first lines of this file for what it takes" ;;
esac
