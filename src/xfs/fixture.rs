//! An XFS in a file, and a device over it, for tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Layout, Tools, make};

/// Makes one; it may be written to.
pub(super) async fn made(path: &Path, size: u64) {
    use std::os::unix::fs::PermissionsExt;
    let tools = Tools::find().await.unwrap();
    make(path, &Layout::new(size).unwrap(), &tools)
        .await
        .unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A device with sectors as our disks have them, until it is dropped.
pub(super) struct Loop {
    pub(super) path: PathBuf,
}

impl Loop {
    pub(super) fn over(file: &Path) -> Self {
        let file = file.to_str().unwrap();
        let path = run(
            "losetup",
            &["-f", "--show", "-b", "4096", "--direct-io=on", file],
        );
        Self { path: path.into() }
    }

    pub(super) fn mount(&self, options: &str) -> Mounted {
        let point = tempfile::tempdir().unwrap();
        let (device, at) = (self.path.to_str().unwrap(), point.path().to_str().unwrap());
        run("mount", &["-t", "xfs", "-o", options, device, at]);
        Mounted(point)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // In use it goes with its last user.
        let _ = Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}

/// A mount, until it is dropped.
pub(super) struct Mounted(tempfile::TempDir);

impl Mounted {
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for _ in 0..100 {
            let done = Command::new("umount").arg(self.0.path()).status();
            if done.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
