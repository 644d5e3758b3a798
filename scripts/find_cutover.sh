# shellcheck shell=bash
# Sourced by the scripts beside it: goes to the repository's root, where relative paths and the ledger begin, finds the
# config of the proxy, and sets `cutover` to the binary.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# The config/cutover.toml of a repository is an example, and here it would be found before the server's own.
if [ -z "${CUTOVER_CONFIG:-}" ] && [ ! -e cutover.toml ] && [ -e /etc/cutover/cutover.toml ]; then
    export CUTOVER_CONFIG=/etc/cutover/cutover.toml
fi

cutover=${CUTOVER_BIN:-$(command -v cutover || true)}
if [ -z "$cutover" ] && [ -x target/release/cutover ]; then
    cutover=$PWD/target/release/cutover
fi
if [ ! -x "$cutover" ]; then
    echo "${0##*/}: there is no cutover at ${cutover:-\$CUTOVER_BIN, in PATH or in target/release}." >&2
    echo "Install it to /usr/local/bin, or build it here (cargo build --release), or set CUTOVER_BIN." >&2
    exit 127
fi
