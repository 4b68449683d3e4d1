// Command cri does what a kubelet does, one call of CRI at a time, so that a shell suite can be the kubelet.
//
//	cri --socket PATH sandbox --name NAME [--handler HANDLER] [--users ID] [--annotation KEY=VALUE]...
//	cri --socket PATH create  --pod ID --name NAME --image IMAGE [--image-volume IMAGE:PATH] COMMAND...
//	cri --socket PATH start|stop|rm CONTAINER
//	cri --socket PATH exec CONTAINER COMMAND...
//	cri --socket PATH stats POD
//	cri --socket PATH remove POD
//	cri --socket PATH pods|images
//
// What is made is told by its id on standard output; what a call refuses, on standard error, as the kubelet would
// write it into the pod's events.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cri:", err)
		os.Exit(1)
	}
}

// pairs is a flag that may be given again and again.
type pairs map[string]string

func (p pairs) add(separator string) func(string) error {
	return func(word string) error {
		key, value, ok := strings.Cut(word, separator)
		if !ok {
			return fmt.Errorf("write KEY%sVALUE", separator)
		}
		p[key] = value
		return nil
	}
}

func run(args []string) error {
	outer := flag.NewFlagSet("cri", flag.ExitOnError)
	socket := outer.String("socket", "/run/containerd/containerd.sock", "containerd's socket")
	limit := outer.Duration("limit", time.Minute, "how long a call may take")
	cgroups := outer.String("cgroup-parent", "/ploop-suite", "where pods' control groups are made")
	if err := outer.Parse(args); err != nil {
		return err
	}
	if outer.NArg() == 0 {
		return errors.New("say what: sandbox, create, start, stop, rm, exec, stats, remove, pods or images")
	}
	node, err := connect(*socket, *cgroups)
	if err != nil {
		return err
	}
	defer node.Close()
	ctx, cancel := context.WithTimeout(context.Background(), *limit)
	defer cancel()

	verb := outer.Arg(0)
	flags := flag.NewFlagSet(verb, flag.ExitOnError)
	var (
		want    Pod
		inside  Container
		volumes = pairs{}
	)
	want.Annotations = pairs{}
	switch verb {
	case "sandbox":
		flags.StringVar(&want.Name, "name", "", "the pod's name")
		flags.StringVar(&want.Handler, "handler", "", "the runtime handler; containerd's default if empty")
		flags.UintVar(&want.Users, "users", 0, "the pod's users are those of the host from this one on; 0: they are the host's")
		flags.Func("annotation", "KEY=VALUE", pairs(want.Annotations).add("="))
	case "create":
		flags.StringVar(&inside.Pod, "pod", "", "the pod's id")
		flags.StringVar(&inside.Name, "name", "", "the container's name in the pod")
		flags.StringVar(&inside.Image, "image", "", "the image")
		flags.Func("image-volume", "IMAGE:PATH, mounted read-only", volumes.add(":/"))
	}
	if err := flags.Parse(outer.Args()[1:]); err != nil {
		return err
	}
	rest := flags.Args()
	first := ""
	if len(rest) > 0 {
		first = rest[0]
	}
	switch verb {
	case "sandbox":
		return say(node.Sandbox(ctx, want))
	case "create":
		inside.Command = rest
		for image, path := range volumes {
			inside.Volumes = append(inside.Volumes, Volume{Image: image, Path: "/" + path})
		}
		return say(node.Create(ctx, inside))
	case "start":
		return node.Start(ctx, first)
	case "stop":
		return node.Stop(ctx, first)
	case "rm":
		return node.Remove(ctx, first)
	case "exec":
		if len(rest) < 2 {
			return errors.New("exec needs a container and a command")
		}
		return node.Exec(ctx, first, rest[1:], os.Stdout, os.Stderr)
	case "stats":
		return say(node.Stats(ctx, first))
	case "remove":
		return node.RemovePod(ctx, first)
	case "pods":
		return say(node.Pods(ctx))
	case "images":
		return say(node.Images(ctx))
	default:
		return fmt.Errorf("unknown verb %q", verb)
	}
}

func say(line string, err error) error {
	if err == nil && line != "" {
		fmt.Println(line)
	}
	return err
}
