#!/usr/bin/env bash
# Fuzzes for so many seconds a target, all of them or the named ones: scripts/fuzz.sh [SECONDS [TARGET...]]. It needs a C++
# compiler, and neither cargo-fuzz nor a nightly compiler: `cargo +nightly fuzz run TARGET` works as well, with sanitizers.
# What it finds is left in fuzz/artifacts; run the target's program with such a file to see it again.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(basename -s .rs fuzz_targets/*.rs)
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares"
# Names the target, so that the flags are not those of build scripts.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --locked --release --target "$host"
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    echo "== $target"
    case $target in
    config) seeds=(../config) ;;
    *) seeds=("seeds/$target") ;;
    esac
    status=0
    "target/$host/release/$target" -max_total_time="$seconds" -artifact_prefix="artifacts/$target/" -timeout=10 \
        -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 "corpus/$target" "${seeds[@]}" 2>&1 |
        grep -E '^(stat::number_of_executed_units|==|thread|SUMMARY|.*panicked|.*assert)' || status=${PIPESTATUS[0]}
    [ "$status" -eq 0 ] || { echo "$target failed; see fuzz/artifacts/$target" >&2; exit 1; }
done
