#!/usr/bin/env bash
# The smoke test of a color. It is written to the ledger; `cutover smoke --help` has the rest.
# Usage: scripts/smoke/smoke_test.sh URL [--expect-version VERSION]
set -euo pipefail
# shellcheck source=scripts/find_cutover.sh
source "$(dirname "${BASH_SOURCE[0]}")/../find_cutover.sh"
exec "$cutover" smoke "$@"
