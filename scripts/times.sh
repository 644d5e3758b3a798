#!/usr/bin/env bash
# Prints how long the way from a clone to a result takes on this machine: to the demo's first result, to the end of the
# tests, and after a change of one line. It measures a clean clone of the last commit, in a folder that it removes. Nothing
# is asserted: figures depend on the machine and on its load, so both are printed, and the processor time beside the time.
#
# usage: scripts/times.sh [--release]    --release adds the build that is shipped
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export CARGO_TERM_COLOR=never CARGO_TARGET_DIR=$folder/clone/target

say() {
    printf '%-44s %8s %8s\n' "$@"
}

# timed WHAT COMMAND...: runs it; what it says is shown when it fails, and is in $folder/said.
timed() {
    local what=$1 TIMEFORMAT='%R %U %S' real user sys code=0
    shift
    { time "$@" >"$folder/said" 2>&1 || code=$?; } 2>"$folder/time"
    read -r real user sys <"$folder/time"
    say "$what" "$real" "$(awk "BEGIN { print $user + $sys }")"
    if [ "$code" -ne 0 ]; then
        cat "$folder/said"
        echo "  it ended with exit code $code"
    fi
}

# The demo by the first command of the README; notes when it begins, and when it has its first figures.
demo() {
    local began=$EPOCHREALTIME line
    cargo run --locked -- demo | while IFS= read -r line; do
        case $line in
        "cutover demo:"*) echo "$began $EPOCHREALTIME" >"$folder/begins" ;;
        *" requests, "*) [ -e "$folder/result" ] || echo "$began $EPOCHREALTIME" >"$folder/result" ;;
        esac
        printf '%s\n' "$line"
    done
}

since_began() {
    awk '{ printf "%.1f", $2 - $1 }' "$1" 2>/dev/null || echo never
}

# A statement more in the first async function of the proxy.
edit() {
    local file
    file=$(grep -rlE '^ *(pub(\([a-z]+\))? )?async fn .*\{$' src/proxy | sort | head -n 1)
    sed -i -E "0,/^ *(pub(\([a-z]+\))? )?async fn .*\{\$/s//&\nstd::hint::black_box($1);/" "$file"
}

printf '%s cores, load %s, %s\n' "$(nproc)" "$(cut -d ' ' -f 1-3 /proc/loadavg)" "$(cargo --version)"
say "" "seconds" "CPU"
timed "clone" git clone --quiet . "$folder/clone"
cd "$folder/clone"
timed "download of the dependencies, or none" cargo fetch --locked
timed "cargo run -- demo, to its end" demo
say "  of it, until the demo begins" "$(since_began "$folder/begins")" ""
say "  of it, until its first figures" "$(since_began "$folder/result")" ""
timed "cargo test --no-run, after the demo" cargo test --locked --no-run
timed "cargo test" cargo test --locked
grep -E '^test result:|^SKIPPED' "$folder/said" | sed 's/^/  /' || true
edit 1
timed "cargo build, after a line of src/proxy" cargo build --locked
edit 2
timed "cargo test --no-run, after another one" cargo test --locked --no-run
if [ "${1:-}" = --release ]; then
    timed "cargo build --release" cargo build --locked --release
fi
printf 'load at the end %s\n' "$(cut -d ' ' -f 1-3 /proc/loadavg)"
