# shellcheck shell=bash
# What the demo and the end-to-end suites share: a private containerd and a private ploop-snapshotter in one directory,
# words on the terminal, and the ending of everything that was started. Sourced, never run.
#
# The rule it guards: nothing outside $DIR is touched, and only processes that pid files under $DIR name are stopped.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
GO_BIN=$REPO/.cache/go/bin
export IMAGES=$REPO/.cache/images
BIN=${BIN:-$REPO/target/release}
SNAPSHOTTER=ploop
MS=0 # how long the last `run` took
KUBERNETES='' # what a suite adds to containerd's configuration when it is a kubelet; CRI is off else
NRI_OFF=false
emulated() { grep -q 'QEMU TCG' /proc/cpuinfo; }
# How long containerd waits for its plugins: as it does by itself, but for an emulated processor.
NRI_LIMIT=$(if emulated; then echo 20s; else echo 2s; fi)

PASSED=0
FAILED=0

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  BOLD=$'\e[1m' DIM=$'\e[2m' GREEN=$'\e[32m' RED=$'\e[31m' PLAIN=$'\e[0m'
else
  BOLD='' DIM='' GREEN='' RED='' PLAIN=''
fi

# -- words -----------------------------------------------------------------------------------------------------------

STEP=0
STEP_START=0
now() { date +%s%3N; }
seconds() { printf '%d.%d s' $(($1 / 1000)) $(($1 % 1000 / 100)); }

# step TITLE WHAT-IT-SHOWS
step() {
  step_end
  STEP=$((STEP + 1))
  STEP_START=$(now)
  printf '\n%s%d. %s%s\n   %s\n\n' "$BOLD" "$STEP" "$1" "$PLAIN" "$2"
}
step_end() {
  [ "$STEP_START" = 0 ] || printf '   %s(%s)%s\n' "$DIM" "$(seconds $(($(now) - STEP_START)))" "$PLAIN"
  STEP_START=0
}
say() { printf '   %s\n' "$*"; }
show() { sed 's/^/     | /'; }

# check CLAIM COMMAND...: the claim holds when the command succeeds.
check() {
  local claim=$1
  shift
  if "$@"; then
    PASSED=$((PASSED + 1))
    printf '   %sok%s     %s\n' "$GREEN" "$PLAIN" "$claim"
  else
    FAILED=$((FAILED + 1))
    printf '   %sWRONG%s  %s\n          (%s)\n' "$RED" "$PLAIN" "$claim" "$*"
  fi
}

die() {
  FAILED=$((FAILED + 1))
  printf '   %sFAILED%s %s\n' "$RED" "$PLAIN" "$*"
  exit 1
}

# run COMMAND...: the command as a person would type it, its output indented, its milliseconds in MS.
run() {
  local start rc=0
  printf '   %s$ %s%s\n' "$DIM" "$(shown "$@")" "$PLAIN"
  start=$(now)
  "$@" > >(show) 2>&1 || rc=$?
  # shellcheck disable=SC2034 # the steps read it
  MS=$(($(now) - start))
  wait $! || true # the indenter
  return $rc
}
shown() {
  local word line=
  for word in "$@"; do
    case $word in
    *[[:space:]\;\|\>\<\&]*) line+=" '$word'" ;;
    *) line+=" $word" ;;
    esac
  done
  echo "${line# }"
}

equal() { [ "$1" = "$2" ]; }
less() { [ "$1" -lt "$2" ]; }
contains() { grep -qF -- "$2" <<<"$1"; }
gone() { ! "$@" >/dev/null 2>&1; }

# eventually SECONDS COMMAND...
eventually() {
  local until=$(($(now) + $1 * 1000))
  shift
  until "$@"; do
    [ "$(now)" -lt "$until" ] || return 1
    sleep 0.1
  done
}

# -- processes -------------------------------------------------------------------------------------------------------

# A pid alone may be another's by tomorrow: it is written down with the time at which its process started.
started_at() { awk '{ sub(/.*\) /, ""); print $20 }' "/proc/$1/stat" 2>/dev/null; }
note_pid() { echo "$2 $(started_at "$2")" >"$DIR/pids/$1"; }
pid_of() {
  local pid start
  read -r pid start 2>/dev/null <"$DIR/pids/$1" || return 1
  [ -n "$start" ] && [ "$(started_at "$pid")" = "$start" ] && echo "$pid"
}
alive() { pid_of "$1" >/dev/null; }

# stop NAME: SIGTERM, and SIGKILL for who does not listen.
stop() {
  local pid
  pid=$(pid_of "$1") || { rm -f "$DIR/pids/$1"; return 0; }
  kill "$pid" 2>/dev/null || true
  if ! eventually "${2:-20}" gone alive "$1"; then
    say "$1 (pid $pid) did not stop when asked; killed"
    kill -9 "$pid" 2>/dev/null || true
    eventually 5 gone alive "$1" || true
    rm -f "$DIR/pids/$1"
    return 1
  fi
  rm -f "$DIR/pids/$1"
}

# A ploopd is not our child: ploop-snapshotter starts it, detached. Its command line names our directory. The oldest comes first.
find_ploopds() { pgrep -f "^[^ ]*ploopd .*$DIR/" | sort -n; }
find_ploopd() { find_ploopds | grep -m 1 .; }
note_ploopds() {
  local pid name=ploopd n=1
  for pid in $(find_ploopds); do
    note_pid "$name" "$pid"
    n=$((n + 1))
    name=ploopd-$n
  done
}
# stop_ploopds SECONDS: every disk server.
stop_ploopds() {
  local rc=0 file
  note_ploopds
  for file in "$DIR"/pids/ploopd*; do
    [ ! -e "$file" ] || stop "${file##*/}" "$1" || rc=1
  done
  return $rc
}

answers() { # is somebody listening at this unix socket?
  "$CTR" -a "$1" --connect-timeout 1s version >/dev/null 2>&1
}
listening() { grep -qF " $1" /proc/net/unix; }

# -- the house -------------------------------------------------------------------------------------------------------

# house KIND: makes $DIR, private to this run. /var/tmp, because /tmp may be memory, and because a socket's path is short.
house() {
  DIR=$(mktemp -d "/var/tmp/ploop-$1.XXXXXX") || { echo "no directory can be made in /var/tmp" >&2; exit 1; }
  mkdir -p "$DIR"/{pids,run,root,c}
  echo "$REPO" >"$DIR/repository"
  ublks >"$DIR/ublks"
  note_pid runner $$
  NAMESPACE=${DIR##*/}
  choose_containerd
}

choose_containerd() {
  case ${CONTAINERD:-1} in
  1) C_BIN=$(dirname "$(command -v containerd)") C_FORMAT=2 ;;
  2) C_BIN=$GO_BIN C_FORMAT=3 ;;
  *) die "CONTAINERD is 1 (the distribution's) or 2 (the newest 2.x), not ${CONTAINERD}" ;;
  esac
  CTR=$C_BIN/ctr
  C_SOCKET=$DIR/c.sock
}

start_containerd() {
  cat >"$DIR/containerd.toml" <<EOF
version = $C_FORMAT
root = "$DIR/c/root"
state = "$DIR/c/state"
$([ -n "$KUBERNETES" ] || echo 'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]')

[grpc]
  address = "$C_SOCKET"
[ttrpc]
  address = "$C_SOCKET.ttrpc"

[proxy_plugins.$SNAPSHOTTER]
  type = "snapshot"
  address = "$DIR/run/$SNAPSHOTTER.sock"
[proxy_plugins.$SNAPSHOTTER-small]
  type = "snapshot"
  address = "$DIR/run/$SNAPSHOTTER-small.sock"
EOF
  if [ "$C_FORMAT" = 3 ]; then
    local name
    for name in "$SNAPSHOTTER" "$SNAPSHOTTER-small" native ${KUBERNETES:+overlayfs}; do
      cat >>"$DIR/containerd.toml" <<EOF
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "$name"
  differ = "walking"
EOF
    done
  fi
  [ -z "$KUBERNETES" ] || sed -e "s#@DIR@#$DIR#g" -e "s#@NRI_OFF@#$NRI_OFF#g" -e "s#@NRI_LIMIT@#$NRI_LIMIT#g" "$KUBERNETES" >>"$DIR/containerd.toml"
  # containerd looks for its shim in PATH, and that for runc.
  PATH=$C_BIN:$PATH setsid "$C_BIN/containerd" --config "$DIR/containerd.toml" >>"$DIR/containerd.log" 2>&1 </dev/null &
  note_pid containerd $!
  disown
  eventually 20 answers "$C_SOCKET" || { tail -5 "$DIR/containerd.log" | show; die "containerd does not answer"; }
}

# write_config TEMPLATE: one file for both our daemons.
write_config() {
  sed -e "s#@DIR@#$DIR#g" -e "s#@BIN@#$BIN#g" "$1" >"$DIR/config.toml"
}

start_ploop() {
  setsid "$BIN/ploop-snapshotter" --config "$DIR/config.toml" >>"$DIR/ploop-snapshotter.log" 2>&1 </dev/null &
  note_pid ploop-snapshotter $!
  disown
  eventually 30 ploop_ready || { tail -5 "$DIR/ploop-snapshotter.log" | show; die "ploop-snapshotter does not answer"; }
  note_ploopds
}
ploop_ready() {
  alive ploop-snapshotter || die "ploop-snapshotter ended at its start: $(tail -3 "$DIR/ploop-snapshotter.log")"
  listening "$DIR/run/$SNAPSHOTTER.sock" && listening "$DIR/run/$SNAPSHOTTER-small.sock"
}

# ctr, talking to our containerd. Its remarks about the machine's cgroups are not ours.
ctr() {
  local rc=0 remarks
  remarks=$(mktemp "$DIR/ctr.XXXXXX")
  "$CTR" -a "$C_SOCKET" -n "$NAMESPACE" "$@" 2>"$remarks" || rc=$?
  grep -v 'DEPRECATION\|exit with non-zero exit code' "$remarks" >&2 || true
  rm -f "$remarks"
  return $rc
}
name_of() { echo "example.invalid/$1:1"; }

# inside CONTAINER COMMAND: in a shell of a running container.
EXECS=0
inside() {
  EXECS=$((EXECS + 1))
  ctr task exec --exec-id "e$EXECS-$BASHPID-$RANDOM" "$1" sh -c "$2"
}
# may_grow: a kernel grows a mounted ext4 only for who has CAP_SYS_RESOURCE, the 24th.
may_grow() {
  local effective
  effective=$(awk '/^CapEff/ { print $2 }' /proc/self/status)
  [ $((0x$effective >> 24 & 1)) = 1 ]
}
# ticks CONTAINER [FILE]: how far its counter is.
ticks() {
  local n
  n=$(inside "$1" "cat ${2:-/ticks} 2>/dev/null")
  echo "${n:-0}"
}
ticked_since() { [ "$(ticks "$1" "${3:-}")" -gt "$2" ]; }
remove_container() {
  local c
  for c in "$@"; do
    ctr task kill -s KILL "$c" >/dev/null 2>&1 || true
    eventually 10 task_stopped "$c" || true
    ctr task rm "$c" >/dev/null 2>&1 || true
    ctr container rm "$c" >/dev/null 2>&1 || true
  done
}
task_stopped() { ! ctr task ls 2>/dev/null | awk -v c="$1" '$1 == c && $3 == "RUNNING" { found = 1 } END { exit !found }'; }

snapshots() { ctr snapshots --snapshotter "${1:-$SNAPSHOTTER}" ls | tail -n +2; }
no_snapshots() { [ -z "$(snapshots "$1")" ]; }

# -- what is left ----------------------------------------------------------------------------------------------------

mounts_left() { awk -v d="$DIR/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo; }
loops_left() {
  local file
  for file in /sys/block/loop*/loop/backing_file; do
    if grep -q "^$DIR/" "$file" 2>/dev/null; then
      file=${file#/sys/block/}
      echo "/dev/${file%%/*}"
    fi
  done
}
# A ublk device does not say whose it is: those count that were not there when we began.
ublks() { find /dev -maxdepth 1 -name 'ublkb*' | sort; }
disks_left() {
  loops_left
  comm -13 "$DIR/ublks" <(ublks)
}
deltas_left() { find "$DIR/root" -name '*.hds' 2>/dev/null; }
none() { [ -z "$("$@")" ]; }
used() { du -s --block-size=1 "$1" | cut -f1; } # bytes on the host's disk

# What is unmounted, killed and removed at the end is all that lies below $DIR: with an empty one that would be the machine.
ours() {
  case ${DIR:-} in
  /var/tmp/ploop-?*) [ -d "$DIR" ] && [ ! -L "$DIR" ] && [ -O "$DIR" ] ;;
  *) false ;;
  esac
}
# A suite with a function of this name would unmount and remove what its own answer says.
readonly -f ours

# tear_down: ends what was started, whatever state it is in. Succeeds when nothing had to be forced.
tear_down() {
  local rc=0 pid device
  ours || { say "${DIR:-nothing} is no directory of ours: nothing is torn down"; return 1; }
  if alive containerd; then
    # shellcheck disable=SC2046
    remove_container $(timeout 10 "$CTR" -a "$C_SOCKET" -n "$NAMESPACE" container ls -q 2>/dev/null)
  fi
  stop containerd || rc=1
  # A shim is no child of containerd's; its command line names our socket.
  for pid in $(shims); do
    kill -9 "$pid" 2>/dev/null || true
    rc=1
  done
  # A mount of one of our disks may lie anywhere.
  for device in $(loops_left); do
    findmnt -rn -o TARGET -S "$device" | xargs -r -n 1 umount -l && rc=1
  done
  stop ploop-snapshotter 30 || rc=1
  stop_ploopds 30 || rc=1
  while read -r mount; do
    umount -l "$mount" 2>/dev/null || true
    rc=1
  done < <(mounts_left | sort -r)
  for device in $(loops_left); do
    losetup -d "$device" 2>/dev/null || true
    rc=1
  done
  # A kubelet's pods have control groups under this name; they are empty now.
  find /sys/fs/cgroup -depth -type d -path "/sys/fs/cgroup/*${DIR##*/}*" -exec rmdir {} + 2>/dev/null
  return $rc
}
shims() { pgrep -f "containerd-shim-runc-v2 .*-address $C_SOCKET( |\$)"; }

# farewell: for EXIT. The directory stays when something is wrong, because its logs say why.
farewell() {
  local rc=$?
  trap - EXIT INT TERM
  step_end
  ours || exit 1
  tear_down || true
  if [ "$FAILED" = 0 ] && [ $rc = 0 ]; then
    rm -rf --one-file-system "$DIR"
  else
    say ""
    say "logs are kept in $DIR (make demo-clean removes it)"
    rm -rf --one-file-system "$DIR/c" "$DIR/root"
    rm -f "$DIR/pids/runner"
  fi
  [ $rc != 0 ] || [ "$FAILED" = 0 ] || rc=1
  exit $rc
}
