// Command timing measures one call of a snapshotter: how long Prepare takes over parents of a given depth.
//
// It talks to the snapshotter's own socket, so that the figure holds nothing of containerd, and takes the depths in
// turns, so that a slow moment of the machine falls on all of them alike. What it prepares it removes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Figure is what was seen at one depth, in milliseconds.
type Figure struct {
	Depth         int     `json:"depth"`
	Rounds        int     `json:"rounds"`
	PrepareMedian float64 `json:"prepare_median_ms"`
	PrepareMin    float64 `json:"prepare_min_ms"`
	PrepareMax    float64 `json:"prepare_max_ms"`
	RemoveMedian  float64 `json:"remove_median_ms"`
}

func main() {
	socket := flag.String("socket", "", "the snapshotter's socket")
	name := flag.String("snapshotter", "ploop", "the snapshotter's name")
	depths := flag.String("depths", "1,100", "depths of the parents to prepare over, with commas between")
	rounds := flag.Int("rounds", 21, "how often at each depth")
	asJSON := flag.Bool("json", false, "print one JSON array")
	flag.Parse()
	figures, err := measure(*socket, *name, *depths, *rounds)
	if err != nil {
		fmt.Fprintln(os.Stderr, "timing:", err)
		os.Exit(1)
	}
	if *asJSON {
		if err := json.NewEncoder(os.Stdout).Encode(figures); err != nil {
			os.Exit(1)
		}
		return
	}
	for _, f := range figures {
		fmt.Printf("depth %3d: Prepare %6.1f ms (median of %d; %.1f to %.1f), Remove %.1f ms\n",
			f.Depth, f.PrepareMedian, f.Rounds, f.PrepareMin, f.PrepareMax, f.RemoveMedian)
	}
}

func measure(socket, name, depths string, rounds int) ([]Figure, error) {
	if socket == "" || rounds < 1 {
		return nil, errors.New("--socket is needed, and at least one round")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	door := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), name)

	parents, err := parentsByDepth(ctx, door)
	if err != nil {
		return nil, err
	}
	var figures []Figure
	for word := range strings.SplitSeq(depths, ",") {
		depth, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("depth %q: %w", word, err)
		}
		if parents[depth] == "" {
			return nil, fmt.Errorf("no committed snapshot has %d layers", depth)
		}
		figures = append(figures, Figure{Depth: depth, Rounds: rounds})
	}
	prepares, removes := make([][]float64, len(figures)), make([][]float64, len(figures))
	for round := range rounds {
		for i, f := range figures {
			key := fmt.Sprintf("timing/%d/%d/%d", os.Getpid(), f.Depth, round)
			start := time.Now()
			if _, err := door.Prepare(ctx, key, parents[f.Depth]); err != nil {
				return nil, fmt.Errorf("prepare at depth %d: %w", f.Depth, err)
			}
			prepares[i] = append(prepares[i], milliseconds(start))
			start = time.Now()
			// containerd's garbage collector removes what it did not make: it may have been here first.
			if err := door.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
				return nil, fmt.Errorf("remove at depth %d: %w", f.Depth, err)
			}
			removes[i] = append(removes[i], milliseconds(start))
		}
	}
	for i := range figures {
		slices.Sort(prepares[i])
		slices.Sort(removes[i])
		figures[i].PrepareMedian, figures[i].RemoveMedian = prepares[i][rounds/2], removes[i][rounds/2]
		figures[i].PrepareMin, figures[i].PrepareMax = prepares[i][0], prepares[i][rounds-1]
	}
	return figures, nil
}

// parentsByDepth finds the deepest chain and gives each of its committed snapshots by its depth: all the figures are
// then of one image.
func parentsByDepth(ctx context.Context, door snapshots.Snapshotter) (map[int]string, error) {
	parent := map[string]string{}
	err := door.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted {
			parent[info.Name] = info.Parent
		}
		return nil
	})
	var deepest []string
	for name := range parent {
		var chain []string
		for at := name; at != ""; at = parent[at] {
			chain = append(chain, at)
		}
		if len(chain) > len(deepest) {
			deepest = chain
		}
	}
	found := map[int]string{}
	for i, name := range deepest {
		found[len(deepest)-i] = name
	}
	return found, err
}

func milliseconds(since time.Time) float64 {
	return float64(time.Since(since).Microseconds()) / 1000
}
