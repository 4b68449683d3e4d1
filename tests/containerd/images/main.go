// Command images builds the OCI image archives that the demo and the suites import.
//
// There is no registry anywhere in this: an image is made from what Debian's mirror gave (a static busybox, a
// minbase tree as a tar) and from layers written down in layers.go. The same input gives the same bytes: no clock,
// no random number and no map order reaches an archive.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("say what to build: busybox, pause, debian, deep or append")
	}
	verb, args := args[0], args[1:]
	flags := flag.NewFlagSet(verb, flag.ExitOnError)
	out := flags.String("out", "", "the archive to write")
	name := flags.String("name", "", "the image's full name, e.g. example.invalid/busybox:1")
	busybox := flags.String("busybox", "/bin/busybox", "a static busybox (verbs busybox, pause, deep)")
	minbase := flags.String("minbase", "", "a tar of a Debian tree (verb debian)")
	depth := flags.Int("depth", 100, "how many layers (verb deep)")
	base := flags.String("base", "", "the archive to build on (verb append)")
	layer := flags.String("layer", "", "a layer's tar to put on top (verb append)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" || *name == "" {
		return fmt.Errorf("%s needs --out and --name", verb)
	}

	var (
		layers []Layer
		config = defaultConfig()
		err    error
	)
	switch verb {
	case "busybox":
		layers, err = busyboxLayers(*busybox)
	case "pause":
		// What keeps a pod's namespaces: it does nothing, for ever.
		config.Cmd = []string{"/bin/sleep", "2147483647"}
		layers, err = busyboxLayers(*busybox)
	case "debian":
		layers, err = debianLayers(*minbase)
	case "deep":
		layers, err = deepLayers(*busybox, *depth)
	case "append":
		layers, config, err = appendLayer(*base, *layer)
	default:
		err = fmt.Errorf("unknown verb %q", verb)
	}
	if err != nil {
		return err
	}
	// A half-written archive must never pass for a whole one: write beside, then rename.
	beside := filepath.Join(filepath.Dir(*out), "."+filepath.Base(*out)+".new")
	defer os.Remove(beside)
	if err := writeArchive(beside, *name, config, layers); err != nil {
		return err
	}
	return os.Rename(beside, *out)
}
