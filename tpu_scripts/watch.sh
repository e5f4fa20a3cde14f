#!/usr/bin/env bash
# A study from nothing to its results: creates the slice, sets it up, launches, and watches. A slice that is preempted or dies is
# made again and the study goes on from its last checkpoint. Ends when every run has spent its budget, or after MAX_HOURS of slices:
# then it saves, fetches and deletes the slice (KEEP=1: leaves it). The same command goes on with whatever is there.
#
#   tpu_scripts/watch.sh [--dry-run] [FILE] [NAME=value ...] [-- --SETTING VALUE ...]
#
# Settings: PROJECT ZONE NAME ACCELERATOR BUCKET CONFIG MAX_HOURS, and the others of tpu_scripts/slice.env.example.
# Exit status: 0 done, 2 bad input, 75 stopped before the end (run it again), 1 anything else.
set -euo pipefail
# shellcheck source=tpu_scripts/lib.sh
source "$(dirname "$0")/lib.sh"
begin "$@"
need CONFIG MAX_HOURS

# Seconds for which slices were there, all of them together, also before this script was started.
billed() {
  local before=0 since=""
  [[ ! -f $STATE/billed ]] || before=$(<"$STATE/billed")
  [[ ! -f $STATE/since ]] || since=$(<"$STATE/since")
  echo $((before + (${since:+EPOCHSECONDS - }${since:-0})))
}

begin_bill() { $DRY_RUN || [[ -f $STATE/since ]] || { mkdir -p "$STATE" && echo "$EPOCHSECONDS" >"$STATE/since"; }; }

end_bill() {
  $DRY_RUN || [[ ! -f $STATE/since ]] || { billed >"$STATE/billed.new" && mv "$STATE/billed.new" "$STATE/billed" && rm "$STATE/since"; }
}

# finish STATUS MESSAGE: results and logs come home, the slice goes.
finish() {
  local status=$1 message=$2
  if ! fetch; then
    message+="; fetching failed, fetch.sh tries again: $MESSAGE"
    ((status)) || status=$FAILED
  fi
  if [[ $KEEP == 1 ]]; then
    say "KEEP=1: $NAME is left and costs money until teardown.sh"
  else
    tear_down
    end_bill
  fi
  trap 'rm -rf "$TEMPORARY"' EXIT
  ((status == 0)) || stop "$status" "$message"
  say "$message"
  exit 0
}

# lose WHY: the slice is given up; the next round makes another.
lose() {
  say "$1; deleting $NAME, to make it again"
  backend_delete || stop "$FAILED" "$NAME cannot be deleted and costs money: $MESSAGE"
  end_bill
  unreachable=0
}

# out_of_reach WHY: may pass; what lasts for UNREACHABLE rounds is a lost slice.
out_of_reach() {
  say "$1"
  ((++unreachable < UNREACHABLE)) || lose "out of reach $UNREACHABLE times"
}

count_failure() {
  ((++failures <= RESTARTS)) || finish "$FAILED" "given up after $RESTARTS restarts: $1; logs are in $STATE/logs"
  say "$1; restart $failures of $RESTARTS"
}

# step FUNCTION: set_up or launch; status 1 if it did not succeed, which has been counted.
step() {
  "$1" && return
  case $FAULT in
    ssh | passing) out_of_reach "$MESSAGE" ;;
    *) count_failure "$MESSAGE" ;;
  esac
  return 1
}

# round: looks once, and does what is to be done.
round() {
  look || return 0
  if (($(billed) >= MAX_SECONDS)); then
    [[ $SLICE != active ]] || halt
    finish "$TRY_AGAIN" "stopped after MAX_HOURS=$MAX_HOURS hours of slices; more hours and the same command go on"
  fi
  if [[ $SLICE == active ]]; then
    job_state
  elif [[ -f $STATE/since && $SLICE == waiting ]]; then
    out_of_reach "$NAME: $DETAIL"
    return
  else
    [[ ! -f $STATE/since ]] || lose "$NAME is lost: $DETAIL"
    create_slice
    JOB=idle LINE=""
  fi
  begin_bill
  case $JOB in
    running)
      unreachable=0
      [[ $LINE == "$told" ]] || say "$LINE"
      told=$LINE
      ;;
    idle) step set_up && step launch || true ;;
    finished) finish 0 "finished: $LINE" ;;
    bad_input) finish "$BAD_INPUT" "$LINE" ;;
    unreachable) out_of_reach "$LINE" ;;
    stopped)
      say "$LINE; it saved, going on"
      halt
      step launch || true
      ;;
    failed)
      count_failure "$LINE"
      halt
      step launch || true
      ;;
  esac
}

SLICE=absent
trap 'rm -rf "$TEMPORARY"; [[ $SLICE == absent ]] || say "$NAME may still be there: the same command goes on, teardown.sh deletes it"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
failures=0 unreachable=0 told=""
hand_over
while :; do
  round
  $DRY_RUN || nap "$POLL"
done
