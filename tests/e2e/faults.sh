# shellcheck shell=bash
# What the fault suites share, on top of demo/lib.sh: a node that says how it is, and containers that count. Sourced, never run.

# shellcheck source=demo/lib.sh
. "$(dirname "$0")/../../demo/lib.sh"

# node SPACE_WAIT: the daemons on $DIR/root and $DIR/run, with short limits and a page of their own.
node() {
  write_config "$REPO/tests/e2e/short.toml"
  # As on a node: ploop-snapshotter comes and goes, and the disks stay.
  sed -i '/^detach_on_stop/d' "$DIR/config.toml"
  sed -i "s/^space_wait.*/space_wait = \"$1\"/" "$DIR/config.toml"
  printf '\n[metrics]\naddress = "127.0.0.1:0"\n' >>"$DIR/config.toml"
  start_ploop
  start_containerd
  ctr images import --snapshotter "$SNAPSHOTTER-small" "$IMAGES/busybox.tar" >/dev/null || die "the import failed"
}

# page PATH: what the daemon's HTTP door answers. The port is whatever was free.
page() {
  local port
  port=$(sed -n 's/.*metrics address=127\.0\.0\.1:\([0-9]*\).*/\1/p' "$DIR/ploop-snapshotter.log" | tail -1)
  (
    exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
    printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
    timeout 10 cat <&3
  ) 2>/dev/null
}
# metric NAME: the sum over all its labels.
metric() { page /metrics | awk -v name="$1" 'index($1, name "{") == 1 { sum += $2 } END { print sum + 0 }'; }
metric_is() { test "$(metric "$1")" "$2" "$3"; }
readiness() { page /readyz | tr -d '\r' | sed '1,/^$/d'; }
ready_says() { contains "$(readiness)" "$1"; }
is_ready() { equal "$(readiness)" ready; }

# new NAME COMMAND: a container on a small disk.
new() { ctr run -d --snapshotter "$SNAPSHOTTER-small" "$(name_of busybox)" "$1" sh -c "$2"; }
# What a container that writes to places it has already, and flushes, does: it counts, and keeps every error, beside its disk.
# shellcheck disable=SC2016,SC2034 # for the container's shell; the suites use it
calm='dd if=/dev/urandom of=/f bs=64k count=16 2>/dev/null
  i=0; while true; do i=$((i+1))
    dd if=/dev/urandom of=/f bs=64k count=1 seek=$((i%16)) conv=notrunc,fsync 2>/run/said || cat /run/said >>/run/errors
    echo $i >/run/t; mv /run/t /run/ticks
  done'
counts() { ticked_since "$1" "$2" /run/ticks; }
# goes_on CONTAINER: it counts, and has seen no error.
goes_on() { eventually 15 counts "$1" "$(($(ticks "$1" /run/ticks) + 3))" && equal "$(inside "$1" 'cat /run/errors 2>/dev/null')" ""; }
# fresh NAME: a new container of the image runs; what it says is in $DIR/said. OF is the snapshotter and the image.
OF=("$SNAPSHOTTER-small" busybox)
fresh() { timeout 60 "$CTR" -a "$C_SOCKET" -n "$NAMESPACE" run --rm --snapshotter "${OF[0]}" "$(name_of "${OF[1]}")" "$1" true >"$DIR/said" 2>&1; }
# refused NAME WORD...: it does not, and the error says so.
refused() {
  local name=$1 word
  shift
  if fresh "$name"; then return 1; fi
  tail -1 "$DIR/said" | cut -c1-400 | show
  for word in "$@"; do grep -qF -- "$word" "$DIR/said" || return 1; done
}
# again CONTAINER: its process ends and another starts on the same disk, as a kubelet's restart would not even do.
again() {
  ctr task kill -s KILL "$1" >/dev/null 2>&1
  eventually 20 task_stopped "$1"
  ctr task rm "$1" >/dev/null 2>&1
  ctr task start -d "$1"
}

free() { df --output=avail -B1 "$DIR/root" | tail -1; }
# fill DIRECTORY: to the last block.
fill() {
  fallocate -l "$(df --output=avail -B1 "$1" | tail -1)" "$1/ballast" 2>/dev/null
  dd if=/dev/zero of="$1/ballast-2" bs=4k >/dev/null 2>&1
  true
}
empty() { rm -f "$1/ballast" "$1/ballast-2"; }
delta_numbers() { (cd "$DIR/root/deltas" && printf '%s\n' *.hds | sort -n); }
logged() { grep -hF -- "$1" "$DIR"/run/ploopd-*.log "$DIR/ploop-snapshotter.log" >/dev/null; }

# What containerd has dropped is removed when this returns. Its collector asks once: what finds no snapshotter then stays until
# something else is dropped.
collected() { ctr leases create --id collected >/dev/null && ctr leases delete --sync collected >/dev/null; }

# root_check: what `ploop check` says about the root while ploop-snapshotter is away; containers go on meanwhile.
root_check() {
  # Nobody reads what an earlier check said.
  rm -f "$DIR/said"
  collected || return
  stop ploop-snapshotter 30
  "$BIN/ploop" check "$DIR/root" >"$DIR/said" 2>&1
  local rc=$?
  start_ploop
  return $rc
}
# names WORD...: the check finds something, and names it.
names() {
  local word
  if root_check; then return 1; fi
  grep -v '^$' "$DIR/said" | head -5 | cut -c1-300 | show
  for word in "$@"; do grep -qF -- "$word" "$DIR/said" || return 1; done
}
# The control device of ublk, if disks go over it here.
ublk_there() { ls /dev/ublk-control 2>/dev/null; }
