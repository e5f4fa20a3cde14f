#!/usr/bin/env bash
# Brings results from the bucket to OUT, without checkpoints. With PARTS=N: those of all N parts, put together by `kdjax merge`.
#
#   tpu_scripts/fetch.sh [--dry-run] [FILE] [NAME=value ...]
#
# Settings: PROJECT ZONE NAME ACCELERATOR BUCKET; OUT, else runs/STUDY. A part (PART=I/N) comes to OUT.part-I-of-N.
set -euo pipefail
# shellcheck source=tpu_scripts/lib.sh
source "$(dirname "$0")/lib.sh"
begin "$@"

if [[ -z $PARTS ]]; then
  fetch || stop "$FAILED" "$MESSAGE"
  exit
fi
[[ -z $PART ]] || die "PART is '$PART' and PARTS '$PARTS', expected one of them"
command -v kdjax >/dev/null || $DRY_RUN || die "kdjax is not installed here, expected it to put the parts together: pip install ."
directories=()
for ((part = 1; part <= PARTS; part++)); do
  directories+=("$OUT.part-$part-of-$PARTS")
  local_do mkdir -p "${directories[-1]}"
  must cloud storage rsync --recursive --exclude='.*checkpoints/.*' "gs://$BUCKET/$STUDY.part-$part-of-$PARTS" "${directories[-1]}"
done
local_do kdjax merge "${directories[@]}" --out "$OUT"
