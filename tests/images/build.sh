#!/usr/bin/env bash
# Builds the image `cutover-sample:base` FROM scratch, out of a static build of this repository's own binary, whose
# hidden verb `sample-app` is the application that the tests of `cutover deploy` deploy. Needs no registry.
set -euo pipefail
cd "$(dirname "$0")/../.."
# With a target of its own the static build shares nothing with the usual one, and invalidates nothing of it.
target=x86_64-unknown-linux-gnu
RUSTFLAGS='-C target-feature=+crt-static' CARGO_PROFILE_DEV_STRIP=symbols CARGO_PROFILE_DEV_DEBUG=0 \
    cargo build --quiet --locked --bin cutover --target "$target"
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
ln "${CARGO_TARGET_DIR:-target}/$target/debug/cutover" "$context/cutover" 2>/dev/null ||
    cp "${CARGO_TARGET_DIR:-target}/$target/debug/cutover" "$context/cutover"
cat >"$context/Dockerfile" <<'END'
FROM scratch
COPY cutover /cutover
EXPOSE 8000
ENTRYPOINT ["/cutover", "sample-app"]
END
docker build --quiet --tag cutover-sample:base "$context" >/dev/null
