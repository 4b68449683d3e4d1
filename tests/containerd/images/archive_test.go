package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// An archive whose last gzip block was never written was once imported "unexpected EOF" by containerd: what is written
// must come back whole.
func TestWhatIsWrittenIsReadBack(t *testing.T) {
	busybox := filepath.Join(t.TempDir(), "busybox")
	if err := os.WriteFile(busybox, bytes.Repeat([]byte("binary"), 10_000), 0o755); err != nil {
		t.Fatal(err)
	}
	layers, err := deepLayers(busybox, 5)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string) []byte {
		file := filepath.Join(t.TempDir(), name)
		if err := writeArchive(file, "example.invalid/deep:1", defaultConfig(), layers); err != nil {
			t.Fatal(err)
		}
		again, config, err := readArchive(file)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) != 5 || config.Cmd[0] != "/bin/sh" {
			t.Fatalf("%d layers, command %v", len(again), config.Cmd)
		}
		for i := range again {
			if !bytes.Equal(again[i].Tar, layers[i].Tar) || again[i].Gzip != layers[i].Gzip {
				t.Errorf("layer %d is not what was written", i)
			}
		}
		bytes, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	if !bytes.Equal(write("one.tar"), write("two.tar")) {
		t.Error("the same layers made two different archives")
	}
}
