# shellcheck shell=bash disable=SC2016,SC2034 # single quotes: commands for a container's shell; demo/run reads the figures
# The steps of the demo, each one a claim made and checked. Sourced by demo/run.

begin() {
  step "Two daemons" "a private containerd, ours as its proxy plugin, and the disk server that ours started"
  write_config "$REPO/demo/config.toml"
  start_ploop
  start_containerd
  C_VERSION=$("$C_BIN/containerd" --version | awk '{ print $3 }')
  say "containerd $C_VERSION, $(runc --version | head -1), $("$BIN/ploop-snapshotter" --version), Linux $(uname -r)"
  check "containerd knows the snapshotter" contains "$(ctr plugins ls)" "$SNAPSHOTTER"
  check "a disk server runs" alive ploopd
}

import_images() {
  step "Images into chains" "three images, each layer unpacked into a disk image of its own: 1, 5 and 100 layers"
  local image
  for image in busybox debian deep; do
    run ctr images import --snapshotter "$SNAPSHOTTER" "$IMAGES/$image.tar" || die "the import failed"
    say "$image: $MS ms"
  done
  # The deep image stands on the busybox layer, which is there already.
  check "105 snapshots, the shared layer once" equal "$(snapshots | wc -l)" 105
  check "all of them are committed" equal "$(snapshots | grep -c Committed)" 105
}

own_disk() {
  step "A disk of its own" "df inside a container: ext4 on a device of the configured size, not the host's disk"
  run ctr run --rm --snapshotter "$SNAPSHOTTER" "$(name_of busybox)" look df -hP / || die "the container did not run"
  local size type
  read -r size type < <(ctr run --rm --snapshotter "$SNAPSHOTTER" "$(name_of busybox)" look2 sh -c \
    'echo $(df -Pk / | tail -1 | awk "{ print \$2 }") $(grep " / " /proc/mounts | tail -1 | cut -d" " -f3)')
  check "the root is an ext4" equal "$type" ext4
  check "of 10 GiB, less what ext4 needs itself" between "$size" $((9 * 1024 * 1024)) $((10 * 1024 * 1024))
}
between() { [ "$1" -ge "$2" ] && [ "$1" -le "$3" ]; }

diverge() {
  step "Two containers of one image" "each changes the same file; neither sees the other's, and the image keeps its own"
  local c image
  image=$(name_of debian)
  for c in left right; do
    ctr run -d --snapshotter "$SNAPSHOTTER" "$image" $c sleep 1000 || die "$c did not start"
    inside $c "echo $c >/srv/app/version; rm -r /etc/apt; sync"
  done
  run inside left 'cat /srv/app/version'
  run inside right 'cat /srv/app/version'
  check "left has its own" equal "$(inside left 'cat /srv/app/version')" left
  check "right has its own" equal "$(inside right 'cat /srv/app/version')" right
  local fresh
  fresh=$(ctr run --rm --snapshotter "$SNAPSHOTTER" "$image" fresh sh -c 'cat /srv/app/version; ls -d /etc/apt /usr/share/doc 2>&1; stat -c "%a %u" /srv/app/part-00; cat /srv/app/replaced-later')
  check "a third one has the image's" equal "$(head -1 <<<"$fresh")" 2
  check "what a layer deleted is gone, what a container deleted is not" equal "$(grep -c '^/etc/apt$\|doc.*No such file' <<<"$fresh")" 2
  check "what a layer owns and permits is so" contains "$fresh" "4750 1000"
  check "a directory that a layer made a file is one" contains "$fresh" "now a file"
  remove_container left right
}

PREPARE_FIGURES="not measured"
quick_at_any_depth() {
  step "A new container in milliseconds" "Prepare over a chain of 1 and of 100 layers, asked at our socket, in turns"
  local figures shallow deep
  figures=$("$GO_BIN/timing" --socket "$DIR/run/$SNAPSHOTTER.sock" --snapshotter "$SNAPSHOTTER" --depths 1,100 --rounds 21 --json) || die "no figures"
  jq -r '.[] | "depth \(.depth): Prepare \(.prepare_median_ms) ms (median of \(.rounds), \(.prepare_min_ms) to \(.prepare_max_ms)), Remove \(.remove_median_ms) ms"' <<<"$figures" | show
  PREPARE_FIGURES=$(jq -r 'map("\(.prepare_median_ms) ms at depth \(.depth)") | join(", ")' <<<"$figures")
  shallow=$(jq '.[0].prepare_median_ms * 1000 | floor' <<<"$figures")
  deep=$(jq '.[1].prepare_median_ms * 1000 | floor' <<<"$figures")
  if emulated; then
    say "an emulated processor: the figures are shown, and no claim is made of them"
  else
    check "less than 200 ms over 100 layers" less "$deep" 200000
    check "depth costs next to nothing: less than twice and 10 ms" less "$deep" $((2 * shallow + 10000))
  fi
  check "the deepest container runs" equal "$(ctr run --rm --snapshotter "$SNAPSHOTTER" "$(name_of deep)" deepest cat /layers/latest)" 100
}

full_disk() {
  step "A full disk is one container's own affair" "one writes past the end of its 128 MiB and gets ENOSPC; its neighbour does not notice"
  local c said
  run ctr images import --snapshotter "$SNAPSHOTTER-small" "$IMAGES/busybox.tar" || die "the import failed"
  for c in greedy modest; do
    ctr run -d --snapshotter "$SNAPSHOTTER-small" "$(name_of busybox)" $c sleep 1000 || die "$c did not start"
  done
  # It flushes its own files: a sync of everything holds the inode of the other's deleted file for as long as it takes, and
  # with it that file's blocks.
  inside modest 'i=0; while [ $i -lt 20 ]; do dd if=/dev/urandom of=/f$i bs=64k count=16 conv=fsync 2>/dev/null && sha256sum /f$i >>/sums || echo bad >>/errors; i=$((i+1)); done; touch /done' &
  local neighbour=$!
  said=$(inside greedy 'dd if=/dev/zero of=/big bs=1M count=256; echo "dd ended with $?"' 2>&1)
  show <<<"$said"
  check "the greedy one was told: no space left" contains "$said" "No space left on device"
  check "and it lives: it can delete and write again" equal "$(inside greedy 'rm /big && echo again >/small && sync && cat /small')" again
  wait "$neighbour"
  check "its neighbour saw no error" equal "$(inside modest 'test -e /done && test ! -e /errors && sha256sum -c /sums 2>&1 | grep -c OK')" 20
  remove_container greedy modest
}

two_sizes() {
  step "Two sizes of one image" "a quota is the size of the disk: one label each; one fills up, is made larger, and goes on"
  local c
  ctr run -d --snapshotter "$SNAPSHOTTER" --snapshotter-label containerd.io/snapshot/ploop.size=300Mi "$(name_of busybox)" tight sleep 1000 || die "tight did not start"
  ctr run -d --snapshotter "$SNAPSHOTTER" --snapshotter-label containerd.io/snapshot/ploop.size=20Gi "$(name_of busybox)" roomy sleep 1000 || die "roomy did not start"
  for c in tight roomy; do run inside $c 'df -hP / | tail -1'; done
  check "one has 300 MiB" between "$(kilobytes tight)" $((200 << 10)) $((300 << 10))
  check "the other 20 GiB" between "$(kilobytes roomy)" $((19 << 20)) $((20 << 20))
  run inside tight 'dd if=/dev/zero of=/big bs=1M count=400 2>&1 | head -1; sync'
  run "$BIN/ploop" df --config "$DIR/config.toml"
  check "ploop df shows the full one" contains "$("$BIN/ploop" df --config "$DIR/config.toml" | grep ^tight)" "100%"
  grown tight 1Gi || die "it was not made larger"
  check "it has 1 GiB now" between "$(kilobytes tight)" $((850 << 10)) $((1 << 20))
  check "and goes on" equal "$(inside tight 'dd if=/dev/zero bs=1M count=100 >>/big 2>/dev/null && sync && echo written')" written
  run sh -c "$BIN/ploop ls --config $DIR/config.toml | sed -n '1p;/ active /p'"
  remove_container tight roomy
}
kilobytes() { inside "$1" "df -Pk / | tail -1 | awk '{ print \$2 }'"; }
# grown CONTAINER SIZE: while it runs. A kernel grows a mounted ext4 only for who has CAP_SYS_RESOURCE; without it the
# container has to stop for that.
grown() {
  run "$BIN/ploop" resize --config "$DIR/config.toml" "$1" "$2" && return
  if may_grow; then return 1; fi
  say "this machine keeps CAP_SYS_RESOURCE from us, without which a mounted ext4 cannot grow: $1 is stopped for it"
  ctr task kill -s KILL "$1" || return
  eventually 10 task_stopped "$1" || return
  ctr task rm "$1" >/dev/null 2>&1
  run "$BIN/ploop" resize --config "$DIR/config.toml" "$1" "$2" && ctr task start -d "$1"
}

space_comes_back() {
  step "rm gives space back" "what a container deletes, the host has again: discard reaches the file below"
  local empty full after others delta
  # Its own file is measured: what was removed a moment ago may still be going away beside it.
  others=$(deltas_left)
  ctr run -d --snapshotter "$SNAPSHOTTER" "$(name_of busybox)" tidy sleep 1000 || die "tidy did not start"
  delta=$(deltas_left | grep -vxF "$others")
  inside tidy sync
  empty=$(used "$delta")
  inside tidy 'dd if=/dev/urandom of=/big bs=1M count=200 2>/dev/null; sync'
  full=$(used "$delta")
  inside tidy 'rm /big; sync'
  eventually 10 space_is_back "$delta" "$empty" || true
  after=$(used "$delta")
  say "its file on the host: $((empty >> 20)) MiB before, $((full >> 20)) MiB with a file of 200 MiB, $((after >> 20)) MiB after rm"
  check "the file was there" less $((empty + (190 << 20))) "$full"
  check "at least nine tenths came back" space_is_back "$delta" "$empty"
  remove_container tidy
}
space_is_back() { less "$(used "$1")" $(($2 + (20 << 20))); }

live_commit() {
  step "A commit of a running container" "ctr snapshots diff while it writes; the diff becomes a layer, the layer an image, the image a container"
  ctr run -d --snapshotter "$SNAPSHOTTER" "$(name_of busybox)" live sh -c 'i=0; while true; do i=$((i+1)); echo $i >/t; mv /t /ticks; sleep 0.1; done' || die "live did not start"
  inside live 'mkdir /made; echo by hand >/made/file; rm /etc/group; sync'
  printf '   %s$ ctr snapshots diff live%s\n' "$DIM" "$PLAIN"
  ctr snapshots --snapshotter "$SNAPSHOTTER" diff live >"$DIR/live.tar" || die "the diff failed"
  local files
  files=$(tar tf "$DIR/live.tar" 2>/dev/null || tar tzf "$DIR/live.tar")
  show <<<"$files"
  check "the diff has the new file" contains "$files" made/file
  check "and the deleted one, as a whiteout" contains "$files" etc/.wh.group
  check "and nothing that did not change" gone contains "$files" bin/busybox
  local before
  before=$(ticks live)
  check "the container went on" eventually 5 ticked_since live "$before"
  "$GO_BIN/images" append --base "$IMAGES/busybox.tar" --layer "$DIR/live.tar" --name "$(name_of committed)" --out "$DIR/committed.tar" || die "no image made of it"
  ctr images import --snapshotter "$SNAPSHOTTER" "$DIR/committed.tar" >/dev/null || die "the import failed"
  run ctr run --rm --snapshotter "$SNAPSHOTTER" "$(name_of committed)" copy sh -c 'cat /made/file; ls /etc'
  check "a container of the commit has the file" equal "$(ctr run --rm --snapshotter "$SNAPSHOTTER" "$(name_of committed)" copy2 cat /made/file)" "by hand"
  remove_container live
}

snapshotter_killed() {
  step "kill -9 of ploop-snapshotter" "a container writes all the while; it notices nothing, and the next snapshotter knows everything"
  local before disks pid
  ctr run -d --snapshotter "$SNAPSHOTTER" "$(name_of busybox)" writer sh -c \
    'i=0; while true; do i=$((i+1)); (dd if=/dev/urandom of=/w$((i%8)) bs=64k count=16 conv=fsync 2>/dev/null && echo $i >/t && mv /t /ticks) || echo bad >>/errors; done' || die "writer did not start"
  before=$(snapshots | sort)
  disks=$(pid_of ploopd)
  pid=$(pid_of ploop-snapshotter)
  printf '   %s$ kill -9 %s%s\n' "$DIM" "$pid" "$PLAIN"
  kill -9 "$pid"
  eventually 5 gone alive ploop-snapshotter
  local tick
  tick=$(ticks writer)
  check "the container writes on without it" eventually 10 ticked_since writer "$tick"
  start_ploop
  check "the disk servers are the same processes" equal "$(pid_of ploopd)" "$disks"
  eventually 10 snapshots_answer || true
  check "the new one knows the same snapshots" equal "$(snapshots | sort)" "$before"
  check "and makes new containers" equal "$(ctr run --rm --snapshotter "$SNAPSHOTTER" "$(name_of busybox)" after echo yes)" yes
  check "no write ever failed" equal "$(inside writer 'ls /errors 2>/dev/null')" ""
  remove_container writer
}
snapshots_answer() { ctr snapshots --snapshotter "$SNAPSHOTTER" ls >/dev/null 2>&1; }

removed() {
  step "Removal" "containers and images are removed, and their disks and files with them"
  check "no container is left" none ctr container ls -q
  # shellcheck disable=SC2046
  run ctr images rm --sync $(ctr images ls -q)
  check "no snapshot is left" eventually 20 no_snapshots "$SNAPSHOTTER"
  check "of the small ones neither" eventually 20 no_snapshots "$SNAPSHOTTER-small"
  check "no disk is attached" eventually 20 none disks_left
  check "no delta is left on the host's disk" eventually 20 none deltas_left
  say "left in the root: $(cd "$DIR/root" && find . -type f | sort | tr '\n' ' ')"
}

nothing_left() {
  step "Nothing is left behind" "both daemons stop in order; no process, mount, loop or ublk device remains"
  check "containerd stopped when asked" stops containerd
  check "ploop-snapshotter stopped when asked" stops ploop-snapshotter
  check "every ploopd stopped when asked" stop_ploopds 30
  check "no mount is left" none mounts_left
  check "no loop or ublk device is left" none disks_left
  check "no shim is left" none shims
}
stops() { alive "$1" && stop "$1" 30; }
