package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func architecture() string { return runtime.GOARCH }

// tree collects the entries of one layer; the first error stays.
type tree struct {
	buffer bytes.Buffer
	writer *tar.Writer
	err    error
}

func newTree() *tree {
	t := &tree{}
	t.writer = tar.NewWriter(&t.buffer)
	return t
}

func (t *tree) entry(h tar.Header, content []byte) {
	if t.err != nil {
		return
	}
	h.ModTime, h.Size, h.Format = epoch, int64(len(content)), tar.FormatPAX
	if t.err = t.writer.WriteHeader(&h); t.err == nil {
		_, t.err = t.writer.Write(content)
	}
}

func (t *tree) dir(name string, mode int64) {
	t.entry(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}, nil)
}

func (t *tree) file(name string, mode int64, content []byte) {
	t.entry(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, content)
}

func (t *tree) owned(name string, mode int64, uid, gid int, content []byte) {
	t.entry(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Uid: uid, Gid: gid}, content)
}

func (t *tree) symlink(name, target string) {
	t.entry(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

func (t *tree) hardlink(name, target string) {
	t.entry(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}, nil)
}

// without deletes what a lower layer has, in the words of the OCI layer format.
func (t *tree) without(dir, name string) {
	t.file(dir+"/.wh."+name, 0o644, nil)
}

func (t *tree) layer(gzip bool) (Layer, error) {
	if t.err != nil {
		return Layer{}, t.err
	}
	if err := t.writer.Close(); err != nil {
		return Layer{}, err
	}
	return Layer{Tar: t.buffer.Bytes(), Gzip: gzip}, nil
}

// applets are the names under which busybox is called by the demo and the suites.
var applets = strings.Fields(`[ awk basename cat chmod chown cmp cp cut date dd df dirname du echo env expr false find
	grep head hostname id kill ln ls md5sum mkdir mknod mount mv printf ps pwd rm rmdir sed seq sh sha256sum sleep sort
	stat sync tail tar tee test touch tr true truncate umount uname usleep wc xargs yes`)

// busyboxLayers: one layer, a busybox and the few files a container expects.
func busyboxLayers(busybox string) ([]Layer, error) {
	binary, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	t := newTree()
	for _, dir := range []string{"bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "var"} {
		t.dir(dir, 0o755)
	}
	t.dir("tmp", 0o1777)
	t.file("bin/busybox", 0o755, binary)
	for _, applet := range applets {
		t.symlink("bin/"+applet, "busybox")
	}
	t.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"))
	t.file("etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	layer, err := t.layer(true)
	return []Layer{layer}, err
}

// debianLayers: a minbase and, above it, one layer for each thing a layer can do to the one below.
func debianLayers(minbase string) ([]Layer, error) {
	base, err := os.ReadFile(minbase)
	if err != nil {
		return nil, err
	}
	layers := []Layer{{Tar: base}}

	adds := newTree()
	adds.dir("srv/app", 0o755)
	for i := range 64 {
		adds.file(fmt.Sprintf("srv/app/part-%02d", i), 0o644, bytes.Repeat([]byte{byte('a' + i%26)}, 32<<10))
	}
	adds.file("srv/app/version", 0o644, []byte("1\n"))
	adds.file("srv/app/removed-later", 0o644, []byte("a lower layer's file\n"))
	adds.dir("srv/app/replaced-later", 0o755)
	adds.file("srv/app/replaced-later/inside", 0o644, []byte("a lower layer's directory\n"))
	adds.hardlink("srv/app/version-link", "srv/app/version")
	adds.symlink("srv/current", "app")

	deletes := newTree()
	deletes.without("srv/app", "removed-later")
	deletes.without("usr/share", "doc")
	deletes.without("srv/app/replaced-later", ".wh..opq")

	permits := newTree()
	permits.owned("srv/app/part-00", 0o4750, 1000, 1000, bytes.Repeat([]byte{'a'}, 32<<10))
	permits.dir("srv/app", 0o711)
	permits.dir("srv/app/sticky", 0o1777)

	rewrites := newTree()
	rewrites.file("srv/app/version", 0o644, []byte("2\n"))
	rewrites.file("srv/app/replaced-later", 0o644, []byte("now a file\n"))

	for _, t := range []*tree{adds, deletes, permits, rewrites} {
		layer, err := t.layer(true)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	return layers, nil
}

// deepLayers: busybox at the bottom and tiny layers above it, each one adding a file and rewriting another.
func deepLayers(busybox string, depth int) ([]Layer, error) {
	if depth < 1 {
		return nil, fmt.Errorf("an image has at least one layer, not %d", depth)
	}
	layers, err := busyboxLayers(busybox)
	if err != nil {
		return nil, err
	}
	for i := 2; i <= depth; i++ {
		t := newTree()
		t.dir("layers", 0o755)
		t.file(fmt.Sprintf("layers/%03d", i), 0o644, fmt.Appendf(nil, "layer %d\n", i))
		t.file("layers/latest", 0o644, fmt.Appendf(nil, "%d\n", i))
		layer, err := t.layer(false)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	return layers, nil
}

// appendLayer: an archive of ours with one more layer, as a commit of a container makes it.
func appendLayer(base, file string) ([]Layer, ocispec.ImageConfig, error) {
	layers, config, err := readArchive(base)
	if err != nil {
		return nil, config, err
	}
	top, err := os.ReadFile(file)
	if err != nil {
		return nil, config, err
	}
	// ctr writes a diff compressed or plain, as it likes: the first bytes tell.
	if bytes.HasPrefix(top, []byte{0x1f, 0x8b}) {
		if top, err = decompress(top); err != nil {
			return nil, config, fmt.Errorf("%s: %w", file, err)
		}
	}
	return append(layers, Layer{Tar: top}), config, nil
}
