# shellcheck shell=bash
# What the scripts of the virtual machine share: where its images are, and how they are called.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck disable=SC2034 # its users read it
HERE=$REPO/tests/vm
# The images are the same for every work tree: PLOOP_VM_CACHE lets several share them.
VM=${PLOOP_VM_CACHE:-$REPO/.cache/vm}
# Programs of an administrator are not in everybody's PATH on Debian.
PATH=$PATH:/usr/sbin:/sbin

say() { echo "vm: $*" >&2; }
die() { say "$*"; exit 1; }

# One at a time makes an image; who waits finds it made.
locked() { # NAME COMMAND...
  mkdir -p "$VM"
  local lock
  exec {lock}>"$VM/$1.lock"
  flock "$lock"
  "${@:2}"
  exec {lock}>&-
}

# The mirror that this machine's apt uses for its own release holds the other releases too.
mirror() {
  local release site
  # shellcheck source=/dev/null
  release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  # shellcheck disable=SC2016 # apt-get fills these in, not the shell
  site=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' | awk -v r="$release" '$2 == r { print $1; exit }')
  [ -n "$site" ] || die "apt knows no mirror of Debian $release: the kernels and the root file system come from one"
  echo "$site"
}
