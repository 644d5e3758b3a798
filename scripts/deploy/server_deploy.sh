#!/usr/bin/env bash
# Deploys an image tag, and goes back by itself when it is bad; `cutover deploy --help` has the rest.
# Usage: scripts/deploy/server_deploy.sh --image-tag sha-NEW
set -euo pipefail
# shellcheck source=scripts/find_cutover.sh
source "$(dirname "${BASH_SOURCE[0]}")/../find_cutover.sh"
exec "$cutover" deploy "$@"
