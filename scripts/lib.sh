# Shared by the scripts: steps with their times, and Debian packages fetched only when something is missing.
# Source it; it needs `set -euo pipefail` and leaves the shell in the workspace's directory.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.."
step_start=$SECONDS

# step TEXT: says what begins, with the time since the script began.
step() {
    printf '\n== [%4d s] %s\n' "$((SECONDS - step_start))" "$*"
}

# die TEXT: one line, and the end.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || die "network namespaces and TAPs need root: run it as root, or with sudo"
}

need_rust() {
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    command -v cargo >/dev/null || die "no cargo on this machine: install Rust 1.95 or later (https://rustup.rs)"
}

need_tun() {
    [ -e /dev/net/tun ] || modprobe tun 2>/dev/null || true
    [ -e /dev/net/tun ] || die "no /dev/net/tun: modprobe tun, or give the container --device /dev/net/tun"
}

# need_packages PACKAGE...: installs those that are not.
need_packages() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    step "installing ${missing[*]}"
    apt-get update -qq || die "apt-get update failed: is there a network, and a Debian mirror in /etc/apt?"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get install ${missing[*]} failed"
}

# unpack DIRECTORY PACKAGE...: those and all that they depend on, as on a machine with nothing installed, into DIRECTORY.new.
unpack() {
    local directory=$1 archives
    shift
    archives=$(mktemp -d)
    mkdir -p "$archives/partial" "$directory.new"
    : >"$archives/status"
    apt-get update -qq || die "apt-get update failed: is there a network, and a Debian mirror in /etc/apt?"
    apt-get -y -qq --no-install-recommends -o "Dir::State::status=$archives/status" -o "Dir::Cache::archives=$archives" \
        -o APT::Sandbox::User=root --download-only install "$@" >/dev/null || die "cannot download $*"
    local package
    for package in "$archives"/*.deb; do
        dpkg-deb -x "$package" "$directory.new"
    done
    rm -rf "$archives"
}

# What every guest in QEMU needs: a linker and a C library for cargo, and the guest's parts.
guest_packages=(gcc libc6-dev binutils qemu-system-x86 busybox-static iproute2)
