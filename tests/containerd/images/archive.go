package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	_ "crypto/sha256" // go-digest finds the algorithm here
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageName is the annotation by which containerd names what it imports.
const imageName = "io.containerd.image.name"

// epoch stands in every header where a time is asked for.
var epoch = time.Unix(1_700_000_000, 0).UTC()

// Layer is one layer as a plain tar, and the media type under which it is stored.
type Layer struct {
	Tar  []byte
	Gzip bool
}

func defaultConfig() ocispec.ImageConfig {
	return ocispec.ImageConfig{
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Cmd: []string{"/bin/sh"},
	}
}

// writeArchive writes an OCI layout as one tar.
func writeArchive(file, name string, config ocispec.ImageConfig, layers []Layer) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)

	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
	}
	image := ocispec.Image{
		Created:  &epoch,
		Platform: ocispec.Platform{Architecture: architecture(), OS: "linux"},
		Config:   config,
		RootFS:   ocispec.RootFS{Type: "layers"},
	}
	seen := map[digest.Digest]bool{}
	blob := func(mediaType string, content []byte) (ocispec.Descriptor, error) {
		d := ocispec.Descriptor{
			MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content)),
		}
		if seen[d.Digest] {
			return d, nil
		}
		seen[d.Digest] = true
		return d, putFile(w, path.Join("blobs", "sha256", d.Digest.Encoded()), content)
	}

	for _, layer := range layers {
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, digest.FromBytes(layer.Tar))
		content, mediaType := layer.Tar, ocispec.MediaTypeImageLayer
		if layer.Gzip {
			if content, err = compress(layer.Tar); err != nil {
				return err
			}
			mediaType = ocispec.MediaTypeImageLayerGzip
		}
		d, err := blob(mediaType, content)
		if err != nil {
			return err
		}
		manifest.Layers = append(manifest.Layers, d)
	}
	put := func(mediaType string, value any) (ocispec.Descriptor, error) {
		content, err := json.Marshal(value)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		return blob(mediaType, content)
	}
	if manifest.Config, err = put(ocispec.MediaTypeImageConfig, image); err != nil {
		return err
	}
	top, err := put(ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return err
	}
	top.Platform = &image.Platform
	top.Annotations = map[string]string{imageName: name}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{top},
	})
	if err != nil {
		return err
	}
	if err := putFile(w, ocispec.ImageIndexFile, index); err != nil {
		return err
	}
	if err := putFile(w, ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}

func putFile(w *tar.Writer, name string, content []byte) error {
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: epoch,
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

func compress(plain []byte) ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(plain); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil { // before the bytes are taken: it writes the end
		return nil, err
	}
	return out.Bytes(), nil
}

func decompress(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// readArchive gives back the layers and the config of an archive that writeArchive made.
func readArchive(file string) ([]Layer, ocispec.ImageConfig, error) {
	var none ocispec.ImageConfig
	f, err := os.Open(file)
	if err != nil {
		return nil, none, err
	}
	defer f.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, none, fmt.Errorf("%s: %w", file, err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			return nil, none, fmt.Errorf("%s: %s: %w", file, h.Name, err)
		}
	}
	content := func(d ocispec.Descriptor) []byte {
		return files[path.Join("blobs", "sha256", d.Digest.Encoded())]
	}
	var (
		index    ocispec.Index
		manifest ocispec.Manifest
		image    ocispec.Image
	)
	if err := json.Unmarshal(files[ocispec.ImageIndexFile], &index); err != nil {
		return nil, none, fmt.Errorf("%s: its index: %w", file, err)
	}
	if len(index.Manifests) != 1 {
		return nil, none, fmt.Errorf("%s: %d images inside, 1 expected", file, len(index.Manifests))
	}
	if err := json.Unmarshal(content(index.Manifests[0]), &manifest); err != nil {
		return nil, none, fmt.Errorf("%s: its manifest: %w", file, err)
	}
	if err := json.Unmarshal(content(manifest.Config), &image); err != nil {
		return nil, none, fmt.Errorf("%s: its config: %w", file, err)
	}
	var layers []Layer
	for _, d := range manifest.Layers {
		layer := Layer{Tar: content(d), Gzip: d.MediaType == ocispec.MediaTypeImageLayerGzip}
		if layer.Gzip {
			if layer.Tar, err = decompress(layer.Tar); err != nil {
				return nil, none, fmt.Errorf("%s: layer %s: %w", file, d.Digest, err)
			}
		}
		layers = append(layers, layer)
	}
	return layers, image.Config, nil
}
