#!/usr/bin/env bash
# Starts the study, or goes on with it, on every worker of a slice that is set up; returns at once.
#
#   tpu_scripts/launch.sh [--dry-run] [FILE] [NAME=value ...] [-- --SETTING VALUE ...]
#
# Settings: PROJECT ZONE NAME ACCELERATOR BUCKET; PART=I/N for one part of the study's runs. After --: settings of the recipe.
set -euo pipefail
# shellcheck source=tpu_scripts/lib.sh
source "$(dirname "$0")/lib.sh"
begin "$@"

find_slice
launch || stop "$FAILED" "$MESSAGE"
