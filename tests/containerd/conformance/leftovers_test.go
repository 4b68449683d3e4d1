package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// endOthers stops the processes whose command line names the given directory: the ploopd that a ploop-snapshotter
// started, which lives on after it by design.
func endOthers(dir string) error {
	asked := false
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		others, err := processesNaming(dir)
		if err != nil || len(others) == 0 {
			return err
		}
		if !asked {
			asked = true
			for _, pid := range others {
				if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
					return err
				}
			}
		}
		if time.Since(start) > stopLimit {
			for _, pid := range others {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			return fmt.Errorf("processes %v go on %s after SIGTERM: %w", others, stopLimit, errStillThere)
		}
	}
}

func processesNaming(dir string) ([]int, error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, line := range lines {
		text, err := os.ReadFile(line)
		if err != nil || !bytes.Contains(text, []byte(dir+"/")) {
			continue // a process that has ended meanwhile is no process of ours
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(line)))
		if err != nil {
			return nil, err
		}
		if pid != os.Getpid() {
			found = append(found, pid)
		}
	}
	return found, nil
}

// leftBehind names every mount and every loop device that still has to do with one of the directories.
func leftBehind(dirs ...string) error {
	var found []string
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		found = nil
		for _, dir := range dirs {
			mounts, err := mountsBelow(dir)
			if err != nil {
				return err
			}
			loops, err := loopsBelow(dir)
			if err != nil {
				return err
			}
			found = append(append(found, mounts...), loops...)
		}
		if len(found) == 0 {
			return nil
		}
		// The kernel lets go of a loop device a moment after its last opener did.
		if time.Since(start) > 5*time.Second {
			return fmt.Errorf("%w: %s", errStillThere, strings.Join(found, "; "))
		}
	}
}

func mountsBelow(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.SplitSeq(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir) {
			found = append(found, "mount "+fields[4])
		}
	}
	return found, nil
}

func loopsBelow(dir string) ([]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // unbound between the two looks
		}
		if backing := strings.TrimSpace(string(text)); strings.HasPrefix(backing, dir) {
			found = append(found, "loop device over "+backing)
		}
	}
	return found, nil
}
