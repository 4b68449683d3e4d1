package main

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Node is a containerd as its kubelet sees it.
type Node struct {
	*grpc.ClientConn
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
	cgroups string // where a pod's control group is made
}

// Pod is what a sandbox is made from.
type Pod struct {
	Name        string
	Handler     string
	Annotations map[string]string
	Users       uint // the host's first of 65,536; 0: the host's own
}

// Container is what a container is made from.
type Container struct {
	Pod     string
	Name    string
	Image   string
	Command []string
	Volumes []Volume
}

// Volume is an image that is shown as a folder.
type Volume struct {
	Image string
	Path  string
}

func connect(socket, cgroups string) (*Node, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &Node{conn, cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn), cgroups}, nil
}

func config(pod Pod, id, parent string) *cri.PodSandboxConfig {
	namespaces := &cri.NamespaceOption{
		// The host's network: no test here needs a network plugin.
		Network: cri.NamespaceMode_NODE,
		Pid:     cri.NamespaceMode_CONTAINER,
	}
	if pod.Users > 0 {
		users := []*cri.IDMapping{{HostId: uint32(pod.Users), ContainerId: 0, Length: 1 << 16}}
		namespaces.UsernsOptions = &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: users, Gids: users}
	}
	return &cri.PodSandboxConfig{
		Metadata:    &cri.PodSandboxMetadata{Name: pod.Name, Uid: id, Namespace: "suite"},
		Annotations: pod.Annotations,
		Linux: &cri.LinuxPodSandboxConfig{
			// Without one of its own there are no numbers of a pod.
			CgroupParent:    path.Join(parent, id),
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: namespaces},
		},
	}
}

// Sandbox makes a pod without containers.
func (n *Node) Sandbox(ctx context.Context, pod Pod) (string, error) {
	uid := fmt.Sprintf("%s-%d", pod.Name, time.Now().UnixNano())
	made, err := n.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{
		Config: config(pod, uid, n.cgroups), RuntimeHandler: pod.Handler,
	})
	return made.GetPodSandboxId(), err
}

// Create makes a container and does not start it.
func (n *Node) Create(ctx context.Context, want Container) (string, error) {
	// The kubelet would still know; whoever comes later asks.
	status, err := n.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: want.Pod})
	if err != nil {
		return "", err
	}
	sandbox := status.GetStatus()
	pod := Pod{Name: sandbox.GetMetadata().GetName(), Annotations: sandbox.GetAnnotations()}
	for _, users := range sandbox.GetLinux().GetNamespaces().GetOptions().GetUsernsOptions().GetUids() {
		pod.Users = uint(users.GetHostId())
	}
	podConfig := config(pod, sandbox.GetMetadata().GetUid(), n.cgroups)
	container := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: want.Name},
		Image:    &cri.ImageSpec{Image: want.Image, RuntimeHandler: sandbox.GetRuntimeHandler()},
		Command:  want.Command,
		Linux: &cri.LinuxContainerConfig{
			SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: podConfig.GetLinux().GetSecurityContext().GetNamespaceOptions(),
			},
		},
	}
	for _, volume := range want.Volumes {
		image, err := n.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: volume.Image}})
		if err != nil {
			return "", err
		}
		if image.GetImage() == nil {
			return "", fmt.Errorf("no image %s", volume.Image)
		}
		container.Mounts = append(container.Mounts, &cri.Mount{
			ContainerPath: volume.Path, Readonly: true,
			Image: &cri.ImageSpec{
				Image: image.GetImage().GetId(), UserSpecifiedImage: volume.Image, RuntimeHandler: sandbox.GetRuntimeHandler(),
			},
		})
	}
	made, err := n.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: want.Pod, Config: container, SandboxConfig: podConfig,
	})
	return made.GetContainerId(), err
}

// Start starts a container.
func (n *Node) Start(ctx context.Context, container string) error {
	_, err := n.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: container})
	return err
}

// Stop kills a container.
func (n *Node) Stop(ctx context.Context, container string) error {
	_, err := n.runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: container})
	return err
}

// Remove removes a container.
func (n *Node) Remove(ctx context.Context, container string) error {
	_, err := n.runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: container})
	return err
}

// Exec runs a command in a container and passes on what it prints.
func (n *Node) Exec(ctx context.Context, container string, command []string, out, errs io.Writer) error {
	said, err := n.runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: container, Cmd: command, Timeout: 30})
	if err != nil {
		return err
	}
	if _, err := out.Write(said.GetStdout()); err != nil {
		return err
	}
	if _, err := errs.Write(said.GetStderr()); err != nil {
		return err
	}
	if code := said.GetExitCode(); code != 0 {
		return fmt.Errorf("the command ended with %d", code)
	}
	return nil
}

// Stats says as JSON what the kubelet hears of a pod's use of the node.
func (n *Node) Stats(ctx context.Context, pod string) (string, error) {
	said, err := n.runtime.ListPodSandboxStats(ctx, &cri.ListPodSandboxStatsRequest{
		Filter: &cri.PodSandboxStatsFilter{Id: pod},
	})
	if err != nil {
		return "", err
	}
	text, err := protojson.Marshal(said)
	return string(text), err
}

// RemovePod stops a pod and removes it with its containers.
func (n *Node) RemovePod(ctx context.Context, pod string) error {
	if _, err := n.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod}); err != nil {
		return err
	}
	_, err := n.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod})
	return err
}

// Pods lists the ids of all pods.
func (n *Node) Pods(ctx context.Context) (string, error) {
	listed, err := n.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return "", err
	}
	var ids []string
	for _, pod := range listed.GetItems() {
		ids = append(ids, pod.GetId())
	}
	return strings.Join(ids, "\n"), nil
}

// Images lists the names of the images that CRI knows.
func (n *Node) Images(ctx context.Context) (string, error) {
	listed, err := n.images.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return "", err
	}
	var names []string
	for _, image := range listed.GetImages() {
		names = append(names, image.GetRepoTags()...)
	}
	return strings.Join(names, "\n"), nil
}
