#!/usr/bin/env bash
# Goes back to the release before this one, or to a tag; `cutover rollback --help` has the rest.
# Usage: scripts/deploy/server_rollback.sh [--to-tag sha-PREVIOUS]
set -euo pipefail
# shellcheck source=scripts/find_cutover.sh
source "$(dirname "${BASH_SOURCE[0]}")/../find_cutover.sh"
exec "$cutover" rollback "$@"
