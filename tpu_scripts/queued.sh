# Slices as queued resources of the Cloud TPU API: v5e, v5p, v6e. Sourced by lib.sh; group.sh has the same functions.
# shellcheck shell=bash

PLACE=(--project="$PROJECT" --zone="$ZONE")

# Asks for the slice; it comes when there is capacity.
backend_create() {
  local flags=(--node-id="$NAME" "${PLACE[@]}" --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME")
  [[ $SPOT == 0 ]] || flags+=(--spot)
  [[ -z $NETWORK ]] || flags+=(--network="$NETWORK")
  [[ -z $SUBNETWORK ]] || flags+=(--subnetwork="$SUBNETWORK")
  [[ -z $SERVICE_ACCOUNT ]] || flags+=(--service-account="$SERVICE_ACCOUNT")
  [[ $INTERNAL_IP == 0 ]] || flags+=(--internal-ips)
  cloud compute tpus queued-resources create "$NAME" "${flags[@]}" --quiet
}

# What became of it -> SLICE: absent, waiting, active, lost (delete it and ask again) or refused; DETAIL says more.
# Status 1 if that cannot be found out.
backend_state() {
  local state error
  if ! try cloud compute tpus queued-resources describe "$NAME" "${PLACE[@]}" --format='value(state.state,state.failedData.error.message)'; then
    [[ $FAULT == missing ]] || return 1
    SLICE=absent DETAIL="no such slice"
    return
  fi
  $DRY_RUN && ANSWER=$PRETEND
  IFS=$'\t' read -r state error <<<"$ANSWER" || true
  DETAIL="$state${error:+: $error}"
  case $state in
    absent) SLICE=absent ;;
    ACTIVE) node_state ;;
    FAILED) if [[ $(kind_of 1 "$error") == refused ]]; then SLICE=refused; else SLICE=lost; fi ;;
    SUSPENDING | SUSPENDED | DELETING) SLICE=lost ;;
    *) SLICE=waiting ;;
  esac
}

# A request can be ACTIVE while its node is not there any more, or not yet.
node_state() {
  if ! try cloud compute tpus tpu-vm describe "$NAME" "${PLACE[@]}" --flatten='networkEndpoints[]' --format='value(state,networkEndpoints.ipAddress)'; then
    [[ $FAULT == missing ]] || return 1
    SLICE=lost DETAIL="the request is ACTIVE, its node is gone"
    return
  fi
  if $DRY_RUN; then
    ANSWER=$(yes READY | head -n "$HOSTS")
  fi
  mapfile -t WORKERS < <(seq 0 $(($(wc -l <<<"$ANSWER") - 1)))
  DETAIL=${ANSWER%%[[:space:]]*}
  case $DETAIL in
    READY) SLICE=active ;;
    PREEMPTED | TERMINATED | STOPPING | STOPPED | DELETING | HIDING | HIDDEN | UNKNOWN) SLICE=lost ;;
    *) SLICE=waiting ;;
  esac
}

# backend_ssh WORKER COMMAND
backend_ssh() {
  local flags=(--worker="$1" "${PLACE[@]}")
  [[ $INTERNAL_IP == 0 ]] || flags+=(--internal-ip)
  cloud compute tpus tpu-vm ssh "$NAME" "${flags[@]}" --command="$2" --quiet
}

# Deletes the request and its node; nothing there is fine.
backend_delete() {
  try cloud compute tpus queued-resources delete "$NAME" "${PLACE[@]}" --force --quiet || [[ $FAULT == missing ]]
}
