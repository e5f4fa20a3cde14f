#!/usr/bin/env bash
# On a worker of a slice, in ~/kdjax: sets kdjax up, runs one job in the background, says how it is, stops it.
#
#   worker.sh set_up SHELF STORE|- PYTHON      installs SHELF/kdjax.tar.gz, copies SHELF/recipe.yaml and what is in STORE
#   worker.sh start RUNS SHELF WORDS ...       runs `kdjax WORDS` in ~/kdjax/work; what it leaves in out/ goes to RUNS in the end
#   worker.sh status                           running | exited STATUS | dead | idle, and the last line it said
#   worker.sh stop SECONDS                     SIGTERM, so that it saves; SIGKILL when it has not ended by then
set -euo pipefail

readonly UV=0.13.9 # https://github.com/astral-sh/uv: brings the Python that the machine's image lacks
HERE=$HOME/kdjax
export PATH=$HERE/bin:$PATH

fail() {
  echo "worker.sh: $1" >&2
  exit 1
}

set_up() {
  local shelf=$1 store=$2 python=$3 wanted
  mkdir -p "$HERE/work" "$HERE/bin"
  cd "$HERE"
  command -v gcloud >/dev/null || fail "gcloud is not on this machine, expected it from the image"
  gcloud storage cp "$shelf/kdjax.tar.gz" kdjax.tar.gz || fail "$shelf/kdjax.tar.gz cannot be copied"
  gcloud storage cp "$shelf/recipe.yaml" work/recipe.yaml || fail "$shelf/recipe.yaml cannot be copied"
  [[ $store == - ]] || gcloud storage rsync --recursive "$store" work || fail "$store cannot be copied"
  wanted="$python $(sha256sum kdjax.tar.gz)"
  if [[ $(cat installed 2>/dev/null) != "$wanted" ]]; then
    command -v uv >/dev/null ||
      curl -LsSf --retry 5 "https://astral.sh/uv/$UV/install.sh" | UV_INSTALL_DIR=$HERE/bin UV_NO_MODIFY_PATH=1 sh ||
      fail "uv $UV cannot be installed"
    uv venv --quiet --clear --python "$python" venv || fail "no Python $python"
    uv pip install --quiet --python venv/bin/python "kdjax[tpu] @ file://$HERE/kdjax.tar.gz" || fail "kdjax cannot be installed"
    echo "$wanted" >installed
  fi
  venv/bin/python -c 'import sys, kdjax; print("kdjax, Python", sys.version.split()[0])' || fail "kdjax cannot be imported"
}

# The job: kdjax in the foreground; its process, then its exit status are written down.
job() {
  local runs=$1 shelf=$2 status=0
  shift 2
  cd "$HERE/work"
  # When the machine goes down every process gets a SIGTERM; this one passes it on and waits for kdjax to save.
  trap '[[ ! -f $HERE/kdjax.pid ]] || kill -TERM "$(cat "$HERE/kdjax.pid")" 2>/dev/null || true' TERM
  echo $$ >"$HERE/job.pid"
  KDJAX_DISTRIBUTED=1 "$HERE/venv/bin/kdjax" "$@" >>"$HERE/log" 2>&1 &
  local kdjax=$!
  echo "$kdjax" >"$HERE/kdjax.pid"
  while :; do
    status=0
    wait "$kdjax" || status=$?
    kill -0 "$kdjax" 2>/dev/null || break # else the signal has cut the wait short
  done
  if ((status == 0)) && [[ -f out/study.json ]]; then # of several hosts, one writes it
    gcloud storage rsync --recursive --exclude='^(data|cache|runs)/.*' out "$runs" >>"$HERE/log" 2>&1 || status=74
  fi
  gcloud storage cp "$HERE/log" "$shelf/logs/$(hostname).log" >/dev/null 2>&1 || true
  echo "$status" >"$HERE/rc.new"
  mv "$HERE/rc.new" "$HERE/rc"
}

# Whether the job goes on: its number may be another process's since the machine was started again.
alive() { [[ ! -f $HERE/rc && -f $HERE/job.pid ]] && tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$HERE/job.pid")/cmdline" | grep -q 'worker\.sh job'; }

start() {
  if alive; then
    status
    return
  fi
  [[ -x $HERE/venv/bin/kdjax ]] || fail "kdjax is not installed, expected set-up before"
  rm -f "$HERE/rc" "$HERE/job.pid" "$HERE/kdjax.pid"
  # In a session of its own, so that it outlives the connection.
  setsid nohup bash "$0" job "$@" </dev/null >/dev/null 2>&1 &
  local waited=0
  until [[ -s $HERE/job.pid ]]; do
    ((++waited < 100)) || fail "the job did not start"
    sleep 0.1
  done
  echo started
}

status() {
  local state line
  # Alive comes first: a job that ends while this looks has written its exit status by the time it is gone.
  if alive; then
    state="running -"
  elif [[ -f $HERE/rc ]]; then
    state="exited $(cat "$HERE/rc")"
  elif [[ -f $HERE/job.pid ]]; then
    state="dead - vanished, last said:"
  else
    echo "idle -"
    return
  fi
  # The log comes after the state: what an ended job said last is in it by then.
  line=$(tail -c 2000 "$HERE/log" 2>/dev/null | tr '\r' '\n' | grep -v '^[[:space:]]*$' | tail -n 1 || true)
  echo "$state $line"
}

stop() {
  local waited=0
  if alive; then
    kill -TERM "$(cat "$HERE/kdjax.pid" 2>/dev/null || cat "$HERE/job.pid")" 2>/dev/null || true
  fi
  while alive && ((++waited < 5 * $1)); do sleep 0.2; done
  if alive; then
    kill -KILL "$(cat "$HERE/kdjax.pid")" 2>/dev/null || true
    waited=0
    while alive && ((++waited < 50)); do sleep 0.2; done
  fi
  status
}

"$@"
