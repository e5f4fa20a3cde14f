#!/usr/bin/env bash
# Asks for a slice and waits until it is there: at most WAIT_HOURS, then the request is withdrawn.
#
#   tpu_scripts/create.sh [--dry-run] [FILE] [NAME=value ...]
#
# Settings: PROJECT ZONE NAME ACCELERATOR BUCKET MAX_HOURS, and the others of tpu_scripts/slice.env.example.
set -euo pipefail
# shellcheck source=tpu_scripts/lib.sh
source "$(dirname "$0")/lib.sh"
begin "$@"
need MAX_HOURS

create_slice
say "$NAME is ready; it costs money until teardown.sh"
