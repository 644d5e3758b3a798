# shellcheck shell=bash
# Sourced by the scripts beside it: goes to the repository's root, where the config and the ledger are found, and sets
# `cutover` to the binary.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

cutover=${CUTOVER_BIN:-$(command -v cutover || true)}
if [ -z "$cutover" ] && [ -x target/release/cutover ]; then
    cutover=$PWD/target/release/cutover
fi
if [ ! -x "$cutover" ]; then
    echo "${0##*/}: there is no cutover at ${cutover:-\$CUTOVER_BIN, in PATH or in target/release}." >&2
    echo "Install it to /usr/local/bin, or build it here (cargo build --release), or set CUTOVER_BIN." >&2
    exit 127
fi
