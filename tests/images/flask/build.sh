#!/usr/bin/env bash
# Builds `cutover-postgres:test` and `cutover-flask:sha-1` to `sha-4`: a real Flask application with Flask-Migrate, and the
# real PostgreSQL it stores its notes in. The root file system is this machine's own Debian packages, so no registry of
# images is needed; the application's wheels come from the package index. What is there already is not built again.
set -euo pipefail
cd "$(dirname "$0")"
shopt -s nullglob
clusters=(/usr/lib/postgresql/*/bin/initdb)
[ ${#clusters[@]} -gt 0 ] || { echo "needs the Debian package postgresql" >&2; exit 1; }
command -v dpkg >/dev/null || { echo "needs Debian's packages" >&2; exit 1; }
postgres=$(basename "$(dirname "$(dirname "${clusters[-1]}")")")
python=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
packages=(
    base-files coreutils dash libc6 libc-bin media-types tzdata
    python3-minimal "python$python-minimal" "libpython$python-minimal" "libpython$python-stdlib"
    "postgresql-$postgres" "postgresql-client-$postgres"
)
recipe=$({ dpkg-query -W "${packages[@]}"; cat build.sh requirements.txt; } | sha256sum | cut -c 1-16)
base=cutover-flask-base:$recipe

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# Everything the packages own, but manuals and the compiler of PostgreSQL, and every library that it is linked with.
list_files() {
    dpkg -L "${packages[@]}" | grep '^/' | grep -Ev '^/usr/share/(doc|man|locale|lintian|info)/|/(bitcode|llvmjit)|^/\.$' |
        while read -r path; do [ -d "$path" ] && [ ! -L "$path" ] || echo "$path"; done | sort -u >"$root/own"
    cat "$root/own"
    # Scripts are linked with nothing, which ldd takes for a failure.
    { grep -E '/s?bin/|\.so' "$root/own" | xargs ldd 2>/dev/null || true; } | grep -oE '/[^ ]+' | sort -u |
        while read -r library; do printf '%s\n%s\n' "$library" "$(realpath "$library")"; done
}

build_base() {
    local tree=$root/tree
    mkdir -p "$tree"/{etc,run,tmp,app/lib,usr/bin,usr/sbin,usr/lib,usr/lib64,var/lib/postgresql}
    list_files | sort -u | tar -C / --no-recursion --ignore-failed-read -cf - -T - 2>/dev/null | tar -C "$tree" -xf -
    ln -sfn /run "$tree/var/run"
    chmod 1777 "$tree/tmp"
    printf 'root:x:0:0::/:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n' >"$tree/etc/passwd"
    printf 'root:x:0:\npostgres:x:70:\n' >"$tree/etc/group"
    python3 -m pip install --quiet --disable-pip-version-check --no-compile --only-binary :all: \
        --python-version "$python" --target "$tree/app/lib" --requirement requirements.txt
    printf '#!/bin/sh\nexec python3 -m flask "$@"\n' >"$tree/usr/bin/flask"
    chmod 755 "$tree/usr/bin/flask"
    tar -C "$tree" -c . | docker import \
        --change "ENV PATH=/usr/lib/postgresql/$postgres/bin:/usr/bin:/bin LANG=C.UTF-8 PYTHONPATH=/app/lib" \
        - "$base" >/dev/null
}

docker image inspect "$base" >/dev/null 2>&1 || build_base
docker build --quiet --tag cutover-postgres:test --build-arg "BASE=$base" --target postgres . >/dev/null
for release in 1 2 3 4; do
    docker build --quiet --tag "cutover-flask:sha-$release" --build-arg "BASE=$base" --build-arg "RELEASE=$release" \
        --target api . >/dev/null
done
