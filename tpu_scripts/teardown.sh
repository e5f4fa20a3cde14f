#!/usr/bin/env bash
# Deletes a slice and all that belongs to it; the bucket stays. Nothing there is fine.
#
#   tpu_scripts/teardown.sh [--dry-run] [FILE] [NAME=value ...]
#
# Settings: PROJECT ZONE NAME ACCELERATOR BUCKET.
set -euo pipefail
# shellcheck source=tpu_scripts/lib.sh
source "$(dirname "$0")/lib.sh"
begin "$@"

tear_down
