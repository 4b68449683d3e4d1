package conformance

// pairConfig is one file for both our daemons. They detach what is idle when they stop, as a node that is drained does.
const pairConfig = `
root = "{root}"
run_dir = "{run}"

[disk_server]
binary = "{bin}/ploopd"

[service]
detach_on_stop = true

[names.ploop]
filesystem = "{filesystem}"
`

// containerdConfig keeps away from everything a containerd of the machine may own. CRI is off: it would look for a
// network configuration and for cgroups, and has no part in this.
const containerdConfig = `
version = {format}
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[proxy_plugins.ploop]
  type = "snapshot"
  address = "{address}"
`
