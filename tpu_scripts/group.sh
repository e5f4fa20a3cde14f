# Slices as managed instance groups of Compute Engine with a workload policy: TPU7x. The same functions as queued.sh.
# shellcheck shell=bash

PLACE=(--project="$PROJECT" --zone="$ZONE")

# Asks for the slice: a policy (the topology of several hosts), a template and a group, which comes when there is capacity for
# all of it. Compute Engine stops the machines itself 15 minutes after MAX_HOURS, should nobody watch any more.
backend_create() {
  create_all && return
  [[ $FAULT == exists ]] && backend_delete && create_all # what was left of an earlier slice may have other settings
}

create_all() {
  local flags=(
    --project="$PROJECT" --machine-type=tpu7x-standard-4t
    --image-family="$IMAGE_FAMILY" --image-project=ubuntu-os-accelerator-images
    --boot-disk-type=hyperdisk-balanced --boot-disk-size="${DISK_GB}GB"
    --maintenance-policy=TERMINATE --instance-termination-action=STOP --max-run-duration="$((MAX_SECONDS + 900))s"
    --scopes=cloud-platform
  )
  [[ $SPOT == 0 ]] || flags+=(--provisioning-model=SPOT)
  [[ -z $NETWORK ]] || flags+=(--network="$NETWORK")
  [[ -z $SUBNETWORK ]] || flags+=(--region="$REGION" --subnet="$SUBNETWORK")
  [[ -z $SERVICE_ACCOUNT ]] || flags+=(--service-account="$SERVICE_ACCOUNT")
  [[ $INTERNAL_IP == 0 ]] || flags+=(--no-address)
  local group=(--size="$HOSTS" --template="$NAME" --target-size-policy-mode=bulk --default-action-on-vm-failure=do-nothing)
  if ((HOSTS > 1)); then
    cloud compute resource-policies create workload-policy "$NAME" --project="$PROJECT" --region="$REGION" \
      --type=HIGH_THROUGHPUT --accelerator-topology="$TOPOLOGY" --quiet || return 1
    group+=(--workload-policy="projects/$PROJECT/regions/$REGION/resourcePolicies/$NAME")
  fi
  cloud compute instance-templates create "$NAME" "${flags[@]}" --quiet &&
    cloud compute instance-groups managed create "$NAME" "${PLACE[@]}" "${group[@]}" --quiet
}

# As in queued.sh. A group has a line for each of its machines: name, status, and why the last attempt failed.
backend_state() {
  local name status error
  if ! try cloud compute instance-groups managed list-instances "$NAME" "${PLACE[@]}" --format='value[separator=|](instance.basename(),instanceStatus,lastAttempt.errors.errors[0].code)'; then
    [[ $FAULT == missing ]] || return 1
    SLICE=absent DETAIL="no such slice"
    return
  fi
  if $DRY_RUN; then
    [[ $PRETEND != absent ]] || { SLICE=absent && return; }
    ANSWER=$(for ((n = 0; n < HOSTS; n++)); do echo "$NAME-$n|RUNNING|"; done)
  fi
  WORKERS=() SLICE=active DETAIL=RUNNING
  while IFS='|' read -r name status error; do
    [[ -z $name ]] || WORKERS+=("$name")
    case $status in
      RUNNING) continue ;;
      TERMINATED | STOPPING | STOPPED | SUSPENDING | SUSPENDED | DEPROVISIONING) SLICE=lost ;;
      *)
        [[ $SLICE == lost ]] || SLICE=waiting
        [[ -z $error || $(kind_of 1 "$error") != refused ]] || SLICE=refused
        ;;
    esac
    DETAIL="${name:-no machine yet} ${status:-not created}${error:+: $error}"
  done <<<"$ANSWER"
  ((${#WORKERS[@]} >= HOSTS)) || [[ $SLICE != active ]] || SLICE=waiting
}

# backend_ssh WORKER COMMAND
backend_ssh() {
  local flags=("${PLACE[@]}")
  [[ $INTERNAL_IP == 0 ]] || flags+=(--internal-ip)
  cloud compute ssh "$1" "${flags[@]}" --command="$2" --quiet
}

# As in queued.sh: the group with its machines, then the template and the policy, which cost nothing.
backend_delete() {
  gone cloud compute instance-groups managed delete "$NAME" "${PLACE[@]}" --quiet &&
    gone cloud compute instance-templates delete "$NAME" --project="$PROJECT" --quiet &&
    { ((HOSTS == 1)) || gone cloud compute resource-policies delete "$NAME" --project="$PROJECT" --region="$REGION" --quiet; }
}

# gone FUNCTION WORDS ...: deletes something that may not be there.
gone() { try "$@" || [[ $FAULT == missing ]]; }
