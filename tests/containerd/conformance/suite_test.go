// Package conformance drives containerd's own snapshotter suite against ploop-snapshotter: over its socket, and
// through a containerd daemon whose proxy plugin it is.
//
// Each of the suite's tests gets daemons, a root and sockets of its own, because the suite uses the same keys in
// several tests. When a test is over its daemons are stopped as an operator would stop them, and nothing of them may be left on
// the machine: no mount, no loop device, no process.
package conformance

import (
	"context"
	"flag"
	"sync/atomic"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The suite of the pinned containerd has this many tests. Another number means that the pin moved: look at what is new.
const tests = 21

// name is the snapshotter's name in the generated configuration.
const name = "ploop"

var (
	binaries   = flag.String("binaries", "", "the directory with ploop-snapshotter and ploopd")
	repository = flag.String("repository", ".", "the clone whose `make demo-clean` may clean up")
	fileSystem = flag.String("filesystem", "ext4", "the kind of file system that a disk has")
	containerD = flag.String("containerd", "", "the containerd to run TestThroughContainerd with")
)

// TestOverSocket is the suite against our gRPC door, with nothing between.
func TestOverSocket(t *testing.T) {
	suite(t, func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		pair, err := startPair(root)
		if err != nil {
			return nil, nil, err
		}
		conn, err := grpc.NewClient("unix://"+pair.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, nil, firstError(err, pair.stop())
		}
		door := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), name)
		return door, func() error { return firstError(conn.Close(), pair.stop()) }, nil
	})
}

// TestThroughContainerd is what upstream's integration/client/snapshot_test.go does: the same suite through a
// containerd daemon, which rewrites keys, filters labels, collects garbage. (That test itself is bound to the
// default snapshotter and to an image pulled from a registry, so it cannot be pointed here.)
func TestThroughContainerd(t *testing.T) {
	if *containerD == "" {
		t.Skip("give -containerd FILE to run this")
	}
	suite(t, func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		pair, err := startPair(root)
		if err != nil {
			return nil, nil, err
		}
		daemon, err := startContainerd(*containerD, root, pair.socket)
		if err != nil {
			return nil, nil, firstError(err, pair.stop())
		}
		client, err := containerd.New(daemon.socket)
		if err != nil {
			return nil, nil, firstError(err, daemon.stop(), pair.stop())
		}
		return client.SnapshotService(name), func() error {
			return firstError(client.Close(), daemon.stop(), pair.stop())
		}, nil
	})
}

// suite runs all of upstream's tests and insists that none was left out.
func suite(t *testing.T, start testsuite.SnapshotterFunc) {
	if *binaries == "" {
		t.Fatal("give -binaries DIR, the directory with ploop-snapshotter and ploopd")
	}
	var started atomic.Int32
	t.Cleanup(func() { // runs when the parallel tests are over
		if n := started.Load(); n != tests && flag.Lookup("test.run").Value.String() == "" {
			t.Errorf("%d of %d tests were started", n, tests)
		}
	})
	testsuite.SnapshotterSuite(t, name, func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		started.Add(1)
		return start(ctx, root)
	})
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
