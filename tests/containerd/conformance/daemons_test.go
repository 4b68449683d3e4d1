package conformance

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	startLimit = 30 * time.Second
	stopLimit  = 30 * time.Second
)

// process is a daemon that answers at a unix socket.
type process struct {
	command *exec.Cmd
	socket  string
	log     string
	ended   chan error
}

// startProcess starts a daemon and waits until its socket is answered.
func startProcess(socket, log, program string, args ...string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p := &process{command: exec.Command(program, args...), socket: socket, log: log, ended: make(chan error, 1)}
	p.command.Stdout, p.command.Stderr = file, file
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func() { p.ended <- p.command.Wait() }()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			return p, conn.Close()
		}
		select {
		case err := <-p.ended:
			return nil, fmt.Errorf("%s ended at its start: %v\n%s", program, err, tail(log))
		default:
		}
		if time.Since(start) > startLimit {
			_ = p.command.Process.Kill()
			return nil, fmt.Errorf("%s: nobody answers at %s after %s\n%s", program, socket, startLimit, tail(log))
		}
	}
}

// stop asks the daemon to end and waits for it.
func (p *process) stop() error {
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("%s is gone before its time: %w\n%s", p.command.Path, err, tail(p.log))
	}
	select {
	case err := <-p.ended:
		if err != nil {
			return fmt.Errorf("%s ended with %w\n%s", p.command.Path, err, tail(p.log))
		}
		return nil
	case <-time.After(stopLimit):
		_ = p.command.Process.Kill()
		return fmt.Errorf("%s did not end within %s\n%s", p.command.Path, stopLimit, tail(p.log))
	}
}

// pair is a ploop-snapshotter and the ploopd that it started, on a root of their own.
type pair struct {
	*process
	root string
	run  string
}

func startPair(root string) (*pair, error) {
	// A unix socket's path is short by nature (107 bytes): the sockets cannot lie below the suite's own directories.
	run, err := os.MkdirTemp("", "ploop-run-")
	if err != nil {
		return nil, err
	}
	bin, err := filepath.Abs(*binaries)
	if err != nil {
		return nil, err
	}
	config, socket := filepath.Join(run, "config.toml"), filepath.Join(run, name+".sock")
	text := strings.NewReplacer("{root}", root, "{run}", run, "{bin}", bin, "{filesystem}", *fileSystem).Replace(pairConfig)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := noteForClean(run, "runner", os.Getpid()); err != nil {
		return nil, err
	}
	p, err := startProcess(socket, filepath.Join(run, "ploop-snapshotter.log"), filepath.Join(bin, "ploop-snapshotter"), "--config", config)
	if err != nil {
		return nil, err
	}
	if err := noteForClean(run, "ploop-snapshotter", p.command.Process.Pid); err != nil {
		return nil, firstError(err, p.stop())
	}
	return &pair{process: p, root: root, run: run}, nil
}

// noteForClean writes down a process as demo/lib.sh does, so that `make demo-clean` can end what an interrupted suite left: its
// number, and the time at which it started, because numbers are used again.
func noteForClean(dir, name string, pid int) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return err
	}
	// The fields after the command's name, which may hold anything but ends with the last bracket.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if err := os.MkdirAll(filepath.Join(dir, "pids"), 0o700); err != nil {
		return err
	}
	repository, err := filepath.Abs(*repository)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "repository"), []byte(repository+"\n"), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "pids", name), fmt.Appendf(nil, "%d %s\n", pid, fields[19]), 0o600)
}

// stop ends both daemons in the order of a shutdown, and looks for what they left.
func (p *pair) stop() error {
	failed := p.process.stop()
	failed = firstError(failed, endOthers(p.run))
	failed = firstError(failed, leftBehind(p.root, p.run))
	if failed != nil {
		return fmt.Errorf("%w\nlogs are kept in %s\n%s", failed, p.run, tail(p.log))
	}
	return os.RemoveAll(p.run)
}

// containerDaemon is a containerd whose only snapshotter of interest is ours.
type containerDaemon struct {
	*process
	dir string
}

func (d *containerDaemon) stop() error {
	if err := d.process.stop(); err != nil {
		return err
	}
	return os.RemoveAll(d.dir)
}

func startContainerd(program, root, address string) (*containerDaemon, error) {
	dir, err := os.MkdirTemp("", "ploop-ctd-")
	if err != nil {
		return nil, err
	}
	socket, config := filepath.Join(dir, "c.sock"), filepath.Join(dir, "config.toml")
	version, err := exec.Command(program, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --version: %w", program, err)
	}
	format := "3"
	if fields := strings.Fields(string(version)); len(fields) > 2 && strings.HasPrefix(strings.TrimPrefix(fields[2], "v"), "1.") {
		format = "2"
	}
	text := strings.NewReplacer("{format}", format, "{root}", filepath.Join(filepath.Dir(root), "containerd"), "{state}", filepath.Join(dir, "state"),
		"{socket}", socket, "{address}", address).Replace(containerdConfig)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := startProcess(socket, filepath.Join(dir, "containerd.log"), program, "--config", config)
	if err != nil {
		return nil, err
	}
	return &containerDaemon{process: p, dir: dir}, nil
}

// tail is the end of a log, for a message.
func tail(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(lines) > 30 {
		lines = lines[len(lines)-30:]
	}
	return file + ":\n  " + strings.Join(lines, "\n  ")
}

var errStillThere = errors.New("left behind")
