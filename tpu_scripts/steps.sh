# The steps of a slice's life, each as one function; the scripts call them one by one, watch.sh all of them. Sourced by lib.sh.
# shellcheck shell=bash

# Dry runs follow what happens when nothing goes wrong: there is no slice, then it is there; no job, then it has ended well.
PRETEND=absent
PRETEND_JOB=idle

# create_slice: asks for the slice until it is there, at most WAIT_HOURS; what is lost is deleted first. Billing begins then.
create_slice() {
  local pause=$BACKOFF before=$SECONDS
  while :; do
    look || SLICE=unknown
    case $SLICE in
      active) return ;;
      unknown) pause=$POLL ;;
      waiting) say "$NAME: $DETAIL" && pause=$POLL ;;
      refused) give_up "$FAILED" "$NAME was refused: $DETAIL" ;;
      lost)
        say "$NAME: $DETAIL; deleting it, to ask again"
        backend_delete || stop "$FAILED" "$NAME cannot be deleted: $MESSAGE"
        ;;
      absent) ask_for_slice ;;
    esac
    if ((SECONDS - before >= WAIT_SECONDS)) && ! $DRY_RUN; then
      give_up "$TRY_AGAIN" "no capacity for $ACCELERATOR in $ZONE within $WAIT_HOURS hours ($DETAIL); run it again, or try another zone"
    fi
    $DRY_RUN || nap "$pause"
    pause=$(longer "$pause")
  done
}

# look: backend_state; status 1 if the cloud cannot be asked for now, which passes. The end if it does not answer us at all.
look() {
  backend_state && return
  [[ $FAULT != refused ]] || stop "$FAILED" "the state of $NAME cannot be found out: $MESSAGE"
  DETAIL=$MESSAGE
  say "$MESSAGE; looking again"
  return 1
}

# give_up STATUS MESSAGE: withdraws the request, so that no slice comes when nobody looks.
give_up() {
  tear_down
  stop "$1" "$2"
}

ask_for_slice() {
  say "asking for $NAME, $ACCELERATOR in $ZONE$([[ $SPOT == 0 ]] || echo ', spot')"
  if backend_create; then
    PRETEND=ACTIVE
    return
  fi
  DETAIL=$MESSAGE
  case $FAULT in
    capacity | passing) say "$MESSAGE; asking again" ;;
    exists) ;;
    *)
      backend_delete || true # a group may have come halfway
      stop "$FAILED" "$NAME was refused: $DETAIL"
      ;;
  esac
}

# find_slice: for scripts that need one.
find_slice() {
  PRETEND=ACTIVE
  backend_state || stop "$FAILED" "the state of $NAME cannot be found out: $MESSAGE"
  [[ $SLICE == active ]] || stop "$FAILED" "$NAME is not ready ($DETAIL), expected a slice made by create.sh"
}

# hand_over: the committed code, the recipe and what it reads go to the bucket, once for all workers.
hand_over() {
  need CONFIG
  local commit path source
  [[ -e $SOURCE/.git ]] || die "SOURCE is '$SOURCE', expected a git checkout of kdjax: the workers install its last commit"
  [[ -z $(git -C "$SOURCE" status --porcelain --untracked-files=no) ]] ||
    die "$SOURCE has changes that are not committed, expected none: the workers install its last commit"
  commit=$(git -C "$SOURCE" rev-parse --short=12 HEAD)
  source=$STATE/kdjax-$commit.tar.gz
  [[ $source == /* ]] || source=$PWD/$source # git looks from the checkout
  local_do mkdir -p "$STATE"
  [[ -f $source ]] || local_do git -C "$SOURCE" archive --format=tar.gz --prefix=kdjax/ --output="$source" HEAD
  must cloud storage cp "$source" "$SHELF/kdjax.tar.gz"
  must cloud storage cp "$(dirname "${BASH_SOURCE[0]}")/worker.sh" "$SHELF/worker.sh"
  must cloud storage cp "$CONFIG" "$SHELF/recipe.yaml"
  for path in $INPUTS; do
    if [[ -d $path ]]; then
      must cloud storage rsync --recursive "$path" "$STORE/$path"
    elif [[ -e $path ]]; then
      must cloud storage cp "$path" "$STORE/$path"
    else
      must cloud storage ls "$STORE/$path" # not here, so it has to be there
    fi
  done
}

# must FUNCTION WORDS ...: what the rest depends on.
must() { try "$@" || stop "$FAILED" "$MESSAGE"; }

# set_up: Python, kdjax and the inputs on every worker. What is there already is left. Status 1 if a worker fails.
set_up() {
  local worker
  say "setting up ${#WORKERS[@]} worker(s)"
  # One at a time: the first connection makes SSH keys, and a new machine refuses connections for a while.
  for worker in "${WORKERS[@]}"; do
    try backend_ssh "$worker" true || { MESSAGE="worker $worker: $MESSAGE" && return 1; }
  done
  everywhere "mkdir -p kdjax && gcloud storage cp $SHELF/worker.sh kdjax/worker.sh && bash kdjax/worker.sh set_up $SHELF $([[ -z $INPUTS ]] && echo - || echo "$STORE") $PYTHON" || return 1
  $DRY_RUN || say "set up: ${FROM[0]##*$'\n'}"
}

# launch: the same kdjax command on every worker, in the background of each. Status 1 if a worker fails.
launch() {
  local words=(compare recipe.yaml --out out) line
  [[ -z $PART ]] || words=(train recipe.yaml --out out --part "$PART")
  printf -v line '%q ' "${words[@]}" --train.checkpoint.directory "$RUNS" "${EXTRA[@]}"
  everywhere "bash kdjax/worker.sh start $RUNS $SHELF ${line% }" || return 1
  PRETEND_JOB=finished
  say "started on ${#WORKERS[@]} worker(s): kdjax ${line% }"
}

# job_state -> JOB: idle, running, finished, stopped (run it again), bad_input, failed or unreachable; LINE says more.
job_state() {
  local n state status line seen=" " ATTEMPTS=2
  everywhere "bash kdjax/worker.sh status" || true
  if $DRY_RUN; then
    JOB=$PRETEND_JOB LINE="as a dry run supposes"
    return
  fi
  JOB=running LINE=""
  for n in "${!WORKERS[@]}"; do
    case ${KIND[n]} in
      "") ;;
      ssh | passing) JOB=unreachable LINE="worker ${WORKERS[n]} cannot be reached" && return ;;
      *) FROM[n]="idle" ;; # no worker.sh: a machine that was not set up
    esac
    read -r state status line <<<"${FROM[n]##*$'\n'}" || true
    [[ $state != exited ]] || state=exited-$status
    [[ $state != exited-2 || $line != *"processes cannot be joined"* ]] || state=alone # the others, not what was put in
    seen+="$state "
    # The first worker speaks for all, unless one ended worse.
    [[ $n != 0 && $state =~ ^(running|exited-0)$ ]] || LINE="worker ${WORKERS[n]}: ${line:-nothing said yet}"
    case $state in
      exited-2) JOB=bad_input && return ;;
      exited-0 | running | idle | exited-75) ;;
      *) JOB=failed LINE="worker ${WORKERS[n]} ended with status $status: $line" ;;
    esac
  done
  [[ $JOB == running ]] || return 0
  case $seen in
    *" exited-75 "*) JOB=stopped ;;
    *" idle "*) JOB=idle ;;
    *" running "*) ;;
    *) JOB=finished ;;
  esac
}

# halt: SIGTERM to kdjax on every worker, and time to save.
halt() { everywhere "bash kdjax/worker.sh stop $STOP_SECONDS" || say "$MESSAGE"; }

# fetch: results to LOCAL, without checkpoints; logs of the workers to STATE. Status 1 if there are no results to be had.
fetch() {
  local_do mkdir -p "$LOCAL" "$STATE/logs"
  try cloud storage rsync --recursive "$SHELF/logs" "$STATE/logs" || say "no logs: $MESSAGE"
  try cloud storage rsync --recursive --exclude='.*checkpoints/.*' "$RUNS" "$LOCAL" || return 1
  say "fetched to $LOCAL"
}

# tear_down: nothing of the slice is left, or a line says that something is.
tear_down() {
  backend_delete || stop "$FAILED" "$NAME cannot be deleted and costs money: $MESSAGE"
  PRETEND=absent
  backend_state || stop "$FAILED" "whether $NAME is deleted cannot be found out, look at the console: $MESSAGE"
  [[ $SLICE == absent ]] || stop "$FAILED" "$NAME is still there ($DETAIL) and costs money: run teardown.sh again"
  say "$NAME is deleted"
}
