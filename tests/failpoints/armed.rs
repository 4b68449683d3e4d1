//! A server whose processes die at the places that a test arms.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::support::ploopd::Ploopd;

/// A server, and the folder of its failpoints.
pub(super) struct Armed {
    pub(super) server: Ploopd,
    places: PathBuf,
}

impl Armed {
    pub(super) fn start() -> Self {
        let mut server = Ploopd::folders();
        let folder = server.config().parent().unwrap().to_owned();
        let places = folder.join("failpoints");
        fs::create_dir(&places).unwrap();
        // Every process of it is told, the first and those that follow.
        let script = folder.join("ploopd");
        let text = format!(
            "#!/bin/sh\nPLOOP_FAILPOINTS='{}' exec '{}' \"$@\"\n",
            places.display(),
            env!("CARGO_BIN_EXE_ploopd")
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        server.binary = script;
        server.connect(true).unwrap();
        Self { server, places }
    }

    /// Whoever comes to this place next dies there.
    pub(super) fn arm(&self, place: &str) {
        fs::write(self.places.join(place), "").unwrap();
    }

    /// Has somebody died there?
    pub(super) fn reached(&self, place: &str) -> bool {
        !self.places.join(place).exists()
    }
}
