#!/usr/bin/env bash
# One study on several slices: watch.sh for each of PARTS parts of its runs, on slices NAME-1, NAME-2, ... at once, and the parts put
# together in OUT. The same command goes on with what is not finished. Then `kdjax compare CONFIG --out OUT` writes the report.
#
#   tpu_scripts/spread.sh [--dry-run] PARTS=N [FILE] [NAME=value ...] [-- --SETTING VALUE ...]
#
# Settings: PARTS, and those of watch.sh; MAX_HOURS is of each slice. Exit status: the gravest of the parts', as watch.sh.
set -euo pipefail
here=$(dirname "$0")
# shellcheck source=tpu_scripts/lib.sh
source "$here/lib.sh"
begin "$@"
need CONFIG MAX_HOURS PARTS
[[ -z $PART ]] || die "PART is '$PART', expected none: this script makes the parts"

words=()
for word in "$@"; do
  [[ $word != -- ]] || break
  words+=("$word")
done

pids=()
trap 'rm -rf "$TEMPORARY"; ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for ((part = 1; part <= PARTS; part++)); do
  own=(PARTS= PART="$part/$PARTS" NAME="$NAME-$part" STUDY="$STUDY" OUT="$OUT" STATE="$STATE/part-$part")
  if $DRY_RUN; then
    "$here/watch.sh" "${words[@]}" "${own[@]}" -- "${EXTRA[@]}"
  else
    "$here/watch.sh" "${words[@]}" "${own[@]}" -- "${EXTRA[@]}" 2> >(sed -u "s/^/[$part] /" >&2) &
    pids+=($!)
  fi
done
gravest=0
for pid in "${pids[@]}"; do
  status=0
  wait "$pid" || status=$?
  case $status in
    0) ;;
    "$TRY_AGAIN") ((gravest)) || gravest=$status ;;
    *) [[ $gravest == "$BAD_INPUT" ]] || gravest=$status ;;
  esac
done
pids=()
((gravest == 0)) || stop "$gravest" "not all of $PARTS parts are finished; the same command goes on"
"$here/fetch.sh" "${words[@]}" PARTS="$PARTS" STUDY="$STUDY" OUT="$OUT" STATE="$STATE"
