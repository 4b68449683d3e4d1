#!/bin/sh
# Makes the golden images beside it with QEMU 10's parallels driver: made and written by QEMU alone,
# read by us (tests/golden.rs, which knows what was written here).
set -eu
cd "$(dirname "$0")"
rm -f ./*.hds

image() { # name size
    qemu-img create -q -f parallels -o cluster_size=65536 "$1.hds" "$2"
}
pattern() { # name byte offset length
    qemu-io -f parallels -c "write -q -P $2 $3 $4" "$1.hds"
}

# Nothing was ever written.
image empty 1M

# A disk of 1 MiB: part of cluster 2, all of cluster 0, parts of clusters 14 and 15.
image written 1M
pattern written 1 131584 512
pattern written 2 0 65536
pattern written 3 979968 68608

# A disk that ends inside a cluster, with its last bytes written.
image odd 999424
pattern odd 4 983040 16384

# A disk whose index fills more than one page: clusters 1007 and 1008 lie on both sides of the border.
image border 128M
pattern border 5 66060288 512
pattern border 6 65994752 512
