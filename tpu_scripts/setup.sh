#!/usr/bin/env bash
# Hands code, recipe and inputs over, and installs them on every worker of a slice.
#
#   tpu_scripts/setup.sh [--dry-run] [FILE] [NAME=value ...]
#
# Settings: PROJECT ZONE NAME ACCELERATOR BUCKET CONFIG, and the others of tpu_scripts/slice.env.example.
set -euo pipefail
# shellcheck source=tpu_scripts/lib.sh
source "$(dirname "$0")/lib.sh"
begin "$@"
need CONFIG

find_slice
hand_over
set_up || stop "$FAILED" "$MESSAGE"
