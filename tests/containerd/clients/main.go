// Command clients is many clients of one containerd at once: each prepares, mounts, writes, commits and removes
// snapshots as fast as it goes, while somebody else may kill what serves them. A call that failed is cleared away
// and tried again; what was acknowledged must be so.
//
// In the end it looks whether all agree: containerd's snapshots are those that were acknowledged, the snapshotter's are
// containerd's, and every committed layer holds what was written into it. Then it removes all of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
)

// How long one call may take, and how long something may be in the way of clearing up; the least depth at which a chain is
// removed.
const (
	callLimit  = 40 * time.Second
	clearLimit = 2 * time.Minute
	shallow    = 2
)

// Without this label containerd's garbage collector takes them for nobody's.
var kept = snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "2000-01-01T00:00:00Z"})

type crowd struct {
	snapshotter     snapshots.Snapshotter
	rounds, failed  atomic.Int64
	calls           atomic.Int64
	mutex           sync.Mutex
	firstWords      []string
	layers, actives map[string][]string // what must be there: the committed chain, and the active one on it
}

func main() {
	address := flag.String("containerd", "", "containerd's socket")
	direct := flag.String("socket", "", "the snapshotter's own socket")
	namespace := flag.String("namespace", "clients", "containerd's namespace")
	name := flag.String("snapshotter", "ploop", "the snapshotter's name")
	count := flag.Int("clients", 32, "how many")
	seconds := flag.Int("seconds", 20, "for how long")
	undisturbed := flag.Bool("undisturbed", false, "nobody kills anything: a call that fails is a failure")
	hold := flag.String("hold", "", "a file: what was made is removed when it is gone")
	flag.Parse()
	ctx := namespaces.WithNamespace(context.Background(), *namespace)
	if err := run(ctx, *address, *direct, *namespace, *name, *count, *seconds, *undisturbed, *hold); err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, address, direct, namespace, name string, count, seconds int, undisturbed bool, hold string) error {
	containerd, err := client.New(address)
	if err != nil {
		return err
	}
	defer containerd.Close()
	all := &crowd{
		snapshotter: containerd.SnapshotService(name),
		layers:      map[string][]string{},
		actives:     map[string][]string{},
	}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	var group sync.WaitGroup
	problems := make(chan error, count)
	for n := range count {
		group.Go(func() {
			if err := all.work(ctx, fmt.Sprintf("client-%d", n), shallow+n%5, end); err != nil {
				problems <- err
			}
		})
	}
	group.Wait()
	close(problems)
	for problem := range problems {
		err = errors.Join(err, problem)
	}
	fmt.Printf("%d clients, %d s: %d rounds, %.1f/s; %d calls, %.1f/s; %d rounds met a failure\n",
		count, seconds, all.rounds.Load(), float64(all.rounds.Load())/float64(seconds),
		all.calls.Load(), float64(all.calls.Load())/float64(seconds), all.failed.Load())
	for _, words := range all.firstWords {
		fmt.Println("  such as:", words)
	}
	if undisturbed && all.failed.Load() > 0 {
		err = errors.Join(err, errors.New("calls failed although nobody was killed"))
	}
	if err != nil {
		return err
	}
	if err := all.agree(ctx, containerd, direct, namespace, name); err != nil {
		return err
	}
	fmt.Printf("agreed: %d layers in %d chains, %d active\n", len(flatten(all.layers)), len(all.layers), len(all.actives))
	for hold != "" {
		if _, err := os.Stat(hold); err != nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return all.removeAll(ctx, containerd, direct, namespace, name)
}

// call is one call with its limit; it is counted.
func (all *crowd) call(ctx context.Context, act func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	all.calls.Add(1)
	return act(ctx)
}

// work is one client's life: a chain grows to its depth and goes again.
func (all *crowd) work(ctx context.Context, who string, deepest int, end time.Time) error {
	var chain []string
	for round := 0; time.Now().Before(end); round++ {
		layer := fmt.Sprintf("%s-%d", who, round)
		err := all.grow(ctx, chain, layer)
		if err == nil {
			chain = append(chain, layer)
			all.rounds.Add(1)
		} else {
			all.note(err)
			// Whatever became of it: it goes.
			if err := all.clear(ctx, layer, "active-"+layer); err != nil {
				return err
			}
		}
		if len(chain) == deepest {
			for ; len(chain) > 0; chain = chain[:len(chain)-1] {
				if err := all.clear(ctx, chain[len(chain)-1]); err != nil {
					return err
				}
			}
		}
	}
	// What stays until all have looked: the chain, and a snapshot on it that nobody has mounted.
	active := "left-" + who
	err := all.patiently(ctx, func(ctx context.Context) error {
		_, err := all.snapshotter.Prepare(ctx, active, top(chain), kept)
		if errdefs.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
	all.mutex.Lock()
	defer all.mutex.Unlock()
	all.layers[who], all.actives[active] = chain, chain
	return err
}

// grow is the life of one layer, as an unpack goes.
func (all *crowd) grow(ctx context.Context, chain []string, layer string) error {
	active := "active-" + layer
	var mounts []mount.Mount
	err := all.call(ctx, func(ctx context.Context) (err error) {
		mounts, err = all.snapshotter.Prepare(ctx, active, top(chain), kept)
		return err
	})
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	err = mount.WithTempMount(ctx, mounts, func(root string) error {
		if err := holds(root, chain); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(root, layer), []byte(layer), 0o644)
	})
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return all.call(ctx, func(ctx context.Context) error {
		if err := all.snapshotter.Commit(ctx, layer, active, kept); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		return nil
	})
}

// clear removes, until nobody knows the names any more.
func (all *crowd) clear(ctx context.Context, names ...string) error {
	for _, name := range names {
		err := all.patiently(ctx, func(ctx context.Context) error {
			if err := all.snapshotter.Remove(ctx, name); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return nil
}

// patiently tries until it works.
func (all *crowd) patiently(ctx context.Context, act func(context.Context) error) error {
	for begun := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		err := all.call(ctx, act)
		if err == nil || time.Since(begun) > clearLimit {
			return err
		}
		all.note(err)
	}
}

func (all *crowd) note(err error) {
	all.failed.Add(1)
	all.mutex.Lock()
	defer all.mutex.Unlock()
	if len(all.firstWords) < 5 {
		all.firstWords = append(all.firstWords, err.Error())
	}
}

func top(chain []string) string {
	if len(chain) == 0 {
		return ""
	}
	return chain[len(chain)-1]
}

// holds looks whether every layer's file is there, as written.
func holds(root string, chain []string) error {
	for _, layer := range chain {
		found, err := os.ReadFile(filepath.Join(root, layer))
		if err != nil {
			return err
		}
		if string(found) != layer {
			return fmt.Errorf("%s holds %q", layer, found)
		}
	}
	return nil
}
