package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// agree looks at containerd, at the snapshotter, and into every chain.
func (all *crowd) agree(ctx context.Context, containerd *client.Client, direct, namespace, name string) error {
	wanted := flatten(all.layers)
	for active := range all.actives {
		wanted = append(wanted, active)
	}
	if err := same(ctx, containerd, all.snapshotter, direct, namespace, name, wanted); err != nil {
		return err
	}
	for who, chain := range all.layers {
		if len(chain) == 0 {
			continue
		}
		view := "view-" + who
		mounts, err := all.snapshotter.View(ctx, view, top(chain), kept)
		if err != nil {
			return fmt.Errorf("view of %s: %w", top(chain), err)
		}
		err = mount.WithTempMount(ctx, mounts, func(root string) error { return holds(root, chain) })
		if err != nil {
			return fmt.Errorf("what is in %s: %w", top(chain), err)
		}
		if err := all.clear(ctx, view); err != nil {
			return err
		}
	}
	// A view that was removed while containerd's collector ran is the snapshotter's until the next time.
	return collect(ctx, containerd, all.snapshotter)
}

// removeAll leaves nothing, and looks whether that is so.
func (all *crowd) removeAll(ctx context.Context, containerd *client.Client, direct, namespace, name string) error {
	for active := range all.actives {
		if err := all.clear(ctx, active); err != nil {
			return err
		}
	}
	for _, chain := range all.layers {
		for _, layer := range slices.Backward(chain) {
			if err := all.clear(ctx, layer); err != nil {
				return err
			}
		}
	}
	return same(ctx, containerd, all.snapshotter, direct, namespace, name, nil)
}

// same: containerd knows these, and the snapshotter knows these, and neither knows another.
func same(ctx context.Context, containerd *client.Client, through snapshots.Snapshotter, direct, namespace, name string, wanted []string) error {
	// A containerd that died between the snapshotter's answer and its own record clears up with its garbage.
	if err := collect(ctx, containerd, through); err != nil {
		return err
	}
	known, err := list(ctx, through)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient("unix://"+direct, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	found, err := list(ctx, proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), name))
	if err != nil {
		return err
	}
	// There a key is "namespace/number/key".
	var own []string
	for _, key := range found {
		if strings.HasPrefix(key, namespace+"/") {
			own = append(own, path.Base(key))
		}
	}
	for _, list := range [][]string{wanted, known, own} {
		slices.Sort(list)
	}
	if !slices.Equal(wanted, known) {
		return fmt.Errorf("containerd does not know what was acknowledged: %s", difference(wanted, known))
	}
	if !slices.Equal(known, own) {
		return fmt.Errorf("the snapshotter does not know what containerd knows: %s", difference(known, own))
	}
	return nil
}

// collect runs containerd's garbage collector, to its end. It looks at those snapshotters only from which something was
// removed since it began or last looked, even when that look failed because the snapshotter was away: so one is removed.
func collect(ctx context.Context, containerd *client.Client, through snapshots.Snapshotter) error {
	const removed = "removed-before-the-collection"
	if _, err := through.Prepare(ctx, removed, "", kept); err != nil {
		return err
	}
	if err := through.Remove(ctx, removed); err != nil {
		return err
	}
	service := containerd.LeasesService()
	lease, err := service.Create(ctx, leases.WithRandomID())
	if err != nil {
		return err
	}
	return service.Delete(ctx, lease, leases.SynchronousDelete)
}

func list(ctx context.Context, from snapshots.Snapshotter) (names []string, err error) {
	err = from.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		names = append(names, info.Name)
		return nil
	})
	return names, err
}

func difference(wanted, found []string) string {
	var words []string
	for _, name := range wanted {
		if !slices.Contains(found, name) {
			words = append(words, name+" is missing")
		}
	}
	for _, name := range found {
		if !slices.Contains(wanted, name) {
			words = append(words, name+" is too much")
		}
	}
	return strings.Join(words[:min(len(words), 10)], ", ")
}

func flatten(chains map[string][]string) (layers []string) {
	for _, chain := range chains {
		layers = append(layers, chain...)
	}
	return layers
}
