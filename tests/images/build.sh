#!/usr/bin/env bash
# Builds the image `cutover-sample:base` FROM scratch: this repository's own binary, whose hidden verb `sample-app` is the
# application that the tests of `cutover deploy` deploy, and the few libraries of this machine that it is linked with. A
# static build would do without them, and would compile every dependency once more. Needs no registry.
#
# usage: build.sh [BINARY]    the binary, where it is built already
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=${1:-}
if [ -z "$binary" ]; then
    cargo build --quiet --locked --bin cutover
    binary=${CARGO_TARGET_DIR:-target}/debug/cutover
fi
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir "$context/root"
strip -o "$context/root/cutover" "$binary"
# The loader is asked for by an absolute path, and finds the libraries beside it or where it found them here.
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
    install -D "$library" "$context/root$library"
done
cat >"$context/Dockerfile" <<'END'
FROM scratch
COPY root /
EXPOSE 8000
ENTRYPOINT ["/cutover", "sample-app"]
END
docker build --quiet --tag cutover-sample:base "$context" >/dev/null
