# Sourced by every script here: settings, messages, and running commands once, again, or only in words (--dry-run).
# shellcheck shell=bash

if ((BASH_VERSINFO[0] < 5)); then
  echo "${0##*/}: bash is version $BASH_VERSION, expected 5 or newer (on a Mac: brew install bash)" >&2
  exit 2
fi

# A setting comes from the command line (NAME=value), else from the settings file, else from the environment, else from here.
declare -A DEFAULTS=(
  [PROJECT]="" [ZONE]="" [NAME]="" [ACCELERATOR]="" [BUCKET]="" [CONFIG]="" [STUDY]="" [OUT]="" [INPUTS]="" [PART]=""
  [SPOT]=0 [RUNTIME]="" [TOPOLOGY]="" [IMAGE_FAMILY]="ubuntu-accel-2404-amd64-tpu-tpu7x" [DISK_GB]=200 [PYTHON]=3.12
  [NETWORK]="" [SUBNETWORK]="" [SERVICE_ACCOUNT]="" [INTERNAL_IP]=0
  [MAX_HOURS]="" [WAIT_HOURS]=24 [KEEP]=0 [RESTARTS]=3 [POLL]=60 [BACKOFF]=5 [ATTEMPTS]=6 [UNREACHABLE]=5 [STOP_SECONDS]=600
  [PARTS]="" [SOURCE]="" [STATE]=""
)
readonly BAD_INPUT=2 FAILED=1 TRY_AGAIN=75

DRY_RUN=false
EXTRA=()     # settings of the recipe: what follows -- on the command line
ANSWER=""    # what the last command printed
FAULT=""     # why it failed: missing, exists, refused, capacity, ssh, remote, passing
MESSAGE=""   # in its own words, one line

exec 3>&1    # where a dry run prints commands

say() { printf '%(%H:%M:%S)T %s\n' -1 "$*" >&2; }

# stop STATUS MESSAGE: ends the script with one line.
stop() {
  printf '%s: %s\n' "${0##*/}" "$2" >&2
  exit "$1"
}

die() { stop "$BAD_INPUT" "$1"; }

usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

# read_settings WORDS: [--dry-run] [FILE] [NAME=value ...] [-- --setting value ...]
read_settings() {
  local word name file=""
  local -A given=() filed=()
  while (($#)); do
    word=$1
    shift
    case $word in
      --help | -h) usage && exit 0 ;;
      --dry-run) DRY_RUN=true ;;
      --) EXTRA=("$@") && break ;;
      -*) die "unknown option $word, expected --dry-run, a settings file, NAME=value or --" ;;
      [A-Z]*=*) take given "$word" "command line" ;;
      *)
        [[ -z $file ]] || die "two settings files, $file and $word, expected one"
        [[ -f $word && -r $word ]] || die "$word: no such settings file"
        file=$word
        read_file filed "$file"
        ;;
    esac
  done
  for name in "${!DEFAULTS[@]}"; do
    if [[ -v given[$name] ]]; then
      printf -v "$name" '%s' "${given[$name]}"
    elif [[ -v filed[$name] ]]; then
      printf -v "$name" '%s' "${filed[$name]}"
    else
      printf -v "$name" '%s' "${!name:-${DEFAULTS[$name]}}"
    fi
    [[ ${!name} != *[[:cntrl:]]* ]] || die "$name holds a control character, expected one line of text"
  done
  for word in "${EXTRA[@]}"; do
    [[ $word != *[[:cntrl:]]* ]] || die "a word after -- holds a control character, expected one line of text"
  done
  derive
}

# take INTO NAME=value WHERE: keeps one setting in the associative array INTO.
take() {
  local -n into=$1
  local name=${2%%=*}
  [[ -v DEFAULTS[$name] ]] || die "$3: unknown setting $name, expected one of $(printf '%s\n' "${!DEFAULTS[@]}" | sort | xargs)"
  into["$name"]=${2#*=}
}

# read_file INTO FILE: lines NAME=value, the value as it stands or within one pair of quotes; # begins a comment line.
read_file() {
  local line value number=0
  while IFS= read -r line || [[ -n $line ]]; do
    ((++number))
    line=${line%$'\r'}
    [[ $line =~ ^[[:space:]]*(#|$) ]] && continue
    [[ $line =~ ^([A-Z_]+)=(.*)$ ]] || die "$2, line $number: expected NAME=value, found '$line'"
    value=${BASH_REMATCH[2]}
    line=${BASH_REMATCH[1]}
    [[ $value =~ ^\"(.*)\"$ || $value =~ ^\'(.*)\'$ ]] && value=${BASH_REMATCH[1]}
    take "$1" "$line=$value" "$2, line $number"
  done <"$2"
}

# need NAME ...: these settings are given.
need() {
  local name missing=()
  for name in "$@"; do
    [[ -n ${!name} ]] || missing+=("$name")
  done
  ((${#missing[@]} == 0)) || die "missing ${missing[*]}, expected in a settings file (see tpu_scripts/slice.env.example), as NAME=value or in the environment"
}

# fits NAME PATTERN EXPECTED: the setting is empty or matches.
fits() {
  [[ -z ${!1} || ${!1} =~ $2 ]] || die "$1 is '${!1}', expected $3"
}

# What follows from the settings, and whether they can be.
derive() {
  fits PROJECT '^[a-z][a-z0-9.:-]*[a-z0-9]$' "a project ID, for instance my-project"
  fits ZONE '^[a-z]+-[a-z]+[0-9]+-[a-z0-9]+$' "a zone, for instance us-west4-a"
  fits NAME '^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$' "lower-case letters, digits and dashes, a letter first"
  fits BUCKET '^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$' "a bucket's name without gs://"
  fits STUDY '^[A-Za-z0-9][A-Za-z0-9._-]*$' "letters, digits, dots, dashes and underscores"
  fits PART '^[1-9][0-9]*/[1-9][0-9]*$' "I/N, for instance 1/3"
  fits PARTS '^[1-9][0-9]*$' "a number of parts"
  fits PYTHON '^3\.(1[1-9]|[2-9][0-9])$' "Python 3.11 or newer, for instance 3.12"
  fits RUNTIME '^[a-z0-9.-]+$' "a TPU software version, for instance v2-alpha-tpuv6e"
  fits IMAGE_FAMILY '^[a-z0-9-]+$' "an image family of ubuntu-os-accelerator-images"
  fits TOPOLOGY '^[0-9]+x[0-9]+(x[0-9]+)?$' "chips along each axis, for instance 2x2x2"
  fits NETWORK '^[A-Za-z0-9./_-]+$' "a network's name"
  fits SUBNETWORK '^[A-Za-z0-9./_-]+$' "a subnetwork's name"
  fits SERVICE_ACCOUNT '^[A-Za-z0-9._@:-]+$' "an e-mail address"
  fits INPUTS '^[A-Za-z0-9._/ -]+$' "relative paths with a space between, of letters, digits, dots, dashes and underscores"
  local name path
  for name in SPOT INTERNAL_IP KEEP; do fits "$name" '^[01]$' "0 or 1"; done
  for name in RESTARTS STOP_SECONDS; do fits "$name" '^[0-9]+$' "a whole number"; done
  for name in ATTEMPTS UNREACHABLE DISK_GB; do fits "$name" '^[1-9][0-9]*$' "a whole number above 0"; done
  for name in POLL BACKOFF MAX_HOURS WAIT_HOURS; do
    fits "$name" '^([0-9]+\.?[0-9]*|\.[0-9]+)$' "a number"
  done
  [[ -z $PART ]] || ((${PART%/*} <= ${PART#*/})) || die "PART is '$PART', expected I/N with I from 1 to N"
  for path in $INPUTS; do
    [[ $path != /* && "/$path/" != */../* ]] || die "INPUTS names $path, expected a path below the working directory"
  done
  [[ -z $CONFIG || (-f $CONFIG && -r $CONFIG) ]] || die "CONFIG is '$CONFIG': no such file, expected a recipe"
  STUDY=${STUDY:-$NAME}
  OUT=${OUT:-runs/$STUDY}
  STATE=${STATE:-$OUT.tpu/$NAME}
  SOURCE=${SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
  MAX_SECONDS=$(seconds "${MAX_HOURS:-0}")
  WAIT_SECONDS=$(seconds "$WAIT_HOURS")
  REGION=${ZONE%-*}
  # Of a study, or of one part of it: where kdjax keeps the runs, and where they come to in the end.
  local part=${PART:+.part-${PART/\//-of-}}
  RUNS="gs://$BUCKET/$STUDY$part"
  LOCAL=$OUT$part
  SHELF="gs://$BUCKET/$STUDY.setup/$NAME" # what set-up hands to the workers, and their logs
  STORE="gs://$BUCKET/$STUDY.inputs"      # what every slice of the study reads
  [[ -z $ACCELERATOR ]] || derive_slice
}

seconds() { awk -v hours="$1" 'BEGIN { printf "%d", hours * 3600 }'; }

# ACCELERATOR -> BACKEND, CHIPS, HOSTS, and the defaults of RUNTIME and TOPOLOGY.
derive_slice() {
  [[ $ACCELERATOR =~ ^(v5litepod|v5p|v6e|tpu7x)-([1-9][0-9]{0,4})$ ]] ||
    die "ACCELERATOR is '$ACCELERATOR', expected v5litepod-N or v6e-N (N chips), v5p-N or tpu7x-N (N cores, two a chip)"
  local generation=${BASH_REMATCH[1]} size=${BASH_REMATCH[2]}
  case $generation in
    v5litepod | v6e)
      [[ " 1 4 8 16 32 64 128 256 " == *" $size "* ]] ||
        die "ACCELERATOR is '$ACCELERATOR', expected 1, 4, 8, 16, 32, 64, 128 or 256 chips"
      BACKEND=queued CHIPS=$size HOSTS=$((size <= 8 ? 1 : size / 4))
      ;;
    *)
      ((size % 8 == 0)) || die "ACCELERATOR is '$ACCELERATOR', expected a multiple of 8 cores: hosts have four chips of two"
      BACKEND=queued CHIPS=$((size / 2)) HOSTS=$((size / 8))
      ;;
  esac
  case $generation in
    v5litepod) RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite} ;;
    v5p) RUNTIME=${RUNTIME:-v2-alpha-tpuv5} ;;
    v6e) RUNTIME=${RUNTIME:-v2-alpha-tpuv6e} ;;
    tpu7x) BACKEND=group && derive_topology ;;
  esac
}

derive_topology() {
  local -A known=([4]=2x2x1 [8]=2x2x2 [16]=2x2x4 [32]=2x4x4 [64]=4x4x4 [128]=4x4x8 [256]=4x8x8)
  TOPOLOGY=${TOPOLOGY:-${known[$CHIPS]:-}}
  [[ -n $TOPOLOGY ]] || die "ACCELERATOR is '$ACCELERATOR' with $CHIPS chips, expected TOPOLOGY for it, for instance 4x4x12"
  ((${TOPOLOGY//x/ * } == CHIPS)) || die "TOPOLOGY is $TOPOLOGY, expected as many chips as $ACCELERATOR has, $CHIPS"
}

# shown COMMAND ...: the command as a shell would take it.
shown() {
  local line
  printf -v line '%q ' "$@"
  printf '%s\n' "${line% }" >&3
}

# local_do COMMAND ...: something on this machine; in a dry run only in words.
local_do() {
  if $DRY_RUN; then shown "$@"; else "$@"; fi
}

# cloud WORDS ...: runs gcloud, what it prints goes to ANSWER. If it fails: FAULT and MESSAGE, status 1.
cloud() {
  ANSWER="" FAULT="" MESSAGE=""
  if $DRY_RUN; then
    shown gcloud "$@"
    return
  fi
  local errors=$TEMPORARY/$BASHPID.errors status=0
  ANSWER=$(gcloud "$@" 2>"$errors" </dev/null) || status=$?
  ((status)) || return 0
  MESSAGE=$(grep -m 1 '^worker\.sh: ' "$errors" || grep -m 1 -A 3 '^ERROR' "$errors" || tail -n 1 "$errors")
  MESSAGE=$(tr -s '[:space:]' ' ' <<<"${MESSAGE:-gcloud $1 ended with status $status and said nothing}")
  MESSAGE=${MESSAGE% }
  FAULT=$(kind_of "$status" "$(<"$errors")")
  return 1
}

# kind_of STATUS TEXT: what kind of failure a command of gcloud met.
kind_of() {
  case $2 in
    *"worker.sh: "*) echo remote ;; # our own script on a worker says so: the connection is fine
    *NOT_FOUND* | *"was not found"* | *"Did not find existing container"* | *"matched no objects"*) echo missing ;;
    *ALREADY_EXISTS* | *"already exists"*) echo exists ;;
    *"no more capacity"* | *RESOURCE_POOL_EXHAUSTED* | *"nsufficient capacity"* | *"nsufficient reserved capacity"* | *"currently unavailable"*) echo capacity ;;
    *[Qq]uota* | *QUOTA_EXCEEDED* | *PERMISSION_DENIED* | *"Required '"*"' permission"* | *"active account"* | *Reauthentication* | *INVALID_ARGUMENT* | *"unrecognized arguments"* | *"Invalid choice"* | *"Invalid value"* | *"must be specified"*) echo refused ;;
    *"return code [255]"* | *"Connection refused"* | *"Connection timed out"* | *"Connection closed"* | *"Connection reset"* | *publickey*) echo ssh ;;
    *"ERROR: "*) echo passing ;;
    *) if (($1 == 255)); then echo ssh; else echo remote; fi ;; # gcloud says ERROR, a worker's shell does not
  esac
}

# try FUNCTION WORDS ...: up to ATTEMPTS times, with growing pauses, as long as the fault is one that may pass.
try() {
  local attempt pause=$BACKOFF
  for ((attempt = 1; ; attempt++)); do
    "$@" && return
    [[ $FAULT == passing || $FAULT == ssh ]] && ((attempt < ATTEMPTS)) || return 1
    say "$MESSAGE (attempt $attempt of $ATTEMPTS; again in $pause s)"
    nap "$pause"
    pause=$(longer "$pause")
  done
}

# nap SECONDS: a sleep that a signal ends.
nap() {
  sleep "$1" &
  wait $!
}

# longer SECONDS: twice as long, at most five minutes.
longer() { awk -v pause="$1" 'BEGIN { pause *= 2; print (pause > 300 ? 300 : pause) }'; }

# everywhere COMMAND: one shell command on all workers at once; FROM[i] is what worker i printed, KIND[i] its fault.
# Status 1 if it failed on any; FAULT and MESSAGE are then of the first of these.
everywhere() {
  local worker fault="" message="" n=0
  FROM=() KIND=()
  for worker in "${WORKERS[@]}"; do
    if $DRY_RUN; then
      backend_ssh "$worker" "$1"
    else
      (
        try backend_ssh "$worker" "$1" || true
        printf '%s' "$ANSWER" >"$TEMPORARY/$n.answer"
        printf '%s\t%s\n' "$FAULT" "$MESSAGE" >"$TEMPORARY/$n.fault"
      ) &
    fi
    ((++n))
  done
  wait
  $DRY_RUN && return
  for ((n = 0; n < ${#WORKERS[@]}; n++)); do
    FROM[n]=$(<"$TEMPORARY/$n.answer")
    IFS=$'\t' read -r FAULT MESSAGE <"$TEMPORARY/$n.fault" || true
    KIND[n]=$FAULT
    [[ -n $fault || -z $FAULT ]] || fault=$FAULT message="worker ${WORKERS[n]}: $MESSAGE"
  done
  FAULT=$fault MESSAGE=$message
  [[ -z $fault ]]
}

# begin WORDS: settings, the back-end, and a place for temporary files.
begin() {
  local here
  here=$(dirname "${BASH_SOURCE[0]}")
  read_settings "$@"
  need PROJECT ZONE NAME ACCELERATOR BUCKET
  # shellcheck source=tpu_scripts/queued.sh
  source "$here/$BACKEND.sh"
  # shellcheck source=tpu_scripts/steps.sh
  source "$here/steps.sh"
  command -v gcloud >/dev/null || $DRY_RUN || die "gcloud is not installed: https://cloud.google.com/sdk/docs/install"
  TEMPORARY=$(mktemp -d)
  trap 'rm -rf "$TEMPORARY"' EXIT
}
