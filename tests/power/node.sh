# shellcheck shell=bash
# What the guest that is cut and the node that finds its disk have in common: where things lie on it. Sourced, never run.

# shellcheck source=demo/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../demo/lib.sh"

# The disk: a file system, and behind its end the marks.
export SIZE=$((6 << 30))
export MARKS=$((SIZE - (16 << 20)))

# house_of_power: a directory of this run, and in it the root and containerd's on the disk; the daemons' run directories
# are not on it.
house_of_power() {
  house e2e
  # The same on both sides: containerd's records name it.
  NAMESPACE=power
  echo $NAMESPACE >"$DIR/namespace"
  mkdir "$DIR/disk"
}
on_disk() { # what is mounted at $DIR/disk becomes a node's
  mkdir -p "$DIR"/disk/{root,containerd} "$DIR/c/root"
  mount --bind "$DIR/disk/root" "$DIR/root" && mount --bind "$DIR/disk/containerd" "$DIR/c/root"
}
off_disk() { umount "$DIR/root" "$DIR/c/root"; }
configured() {
  write_config "$REPO/demo/config.toml"
  sed -i 's/10Gi/1Gi/' "$DIR/config.toml"
}

# fio's part: files that it writes at random and flushes at their end; what it compares later follows from the same words.
fio_of() { # NUMBER
  echo "--name=fio-$1 --filename=fio-$(($1 % 4)) --size=4M --bs=512-16k --bsrange=512-16k --rw=randwrite --ioengine=psync --randseed=$1 --verify=crc32c"
}
