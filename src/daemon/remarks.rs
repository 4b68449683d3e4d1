//! What people should see to although every call is served: it stands below "ready".

use std::sync::Arc;

use crate::link::{DiskStats, Servers};

/// How many disks are called by name.
const NAMED: usize = 5;

/// Disks whose writes wait for the host's space, and disks that answer errors only.
pub(super) async fn of_disks(servers: Arc<Servers>) -> Result<(), String> {
    match servers.stats(None).await {
        Ok(disks) => amiss(&disks).map_or(Ok(()), Err),
        // That a server is silent is said by the check of it.
        Err(_) => Ok(()),
    }
}

fn amiss(disks: &[DiskStats]) -> Option<String> {
    let mut said = Vec::new();
    if let Some(names) = names(disks, |disk| disk.held_requests > 0) {
        let held: u64 = disks.iter().map(|disk| disk.held_requests).sum();
        said.push(format!(
            "requests that wait for space on the host: {held}, of {names}; make room"
        ));
    }
    if let Some(names) = names(disks, |disk| disk.failed.is_some()) {
        said.push(format!(
            "answer errors only: {names}; restart their containers"
        ));
    }
    (!said.is_empty()).then(|| said.join(" - "))
}

/// The disks that this is true of, the first few of them by name.
fn names(disks: &[DiskStats], wanted: fn(&DiskStats) -> bool) -> Option<String> {
    let found: Vec<_> = disks
        .iter()
        .filter(|disk| wanted(disk))
        .map(|disk| disk.id.as_str())
        .collect();
    let (named, more) = found.split_at(found.len().min(NAMED));
    match (named, more.len()) {
        ([], _) => None,
        (_, 0) => Some(named.join(", ")),
        (_, more) => Some(format!("{} and {more} more", named.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::amiss;
    use crate::link::DiskStats;

    fn disk(id: &str, held: u64, failed: bool) -> DiskStats {
        DiskStats {
            id: id.to_owned(),
            held_requests: held,
            failed: failed.then(|| "gone".to_owned()),
            ..DiskStats::default()
        }
    }

    #[test]
    fn who_waits_and_who_failed_is_called_by_name() {
        assert_eq!(amiss(&[]), None);
        assert_eq!(amiss(&[disk("s1", 0, false)]), None);
        let disks = [
            disk("s1", 0, false),
            disk("s2", 3, false),
            disk("s3", 0, true),
        ];
        assert_eq!(
            amiss(&disks).as_deref(),
            Some(
                "requests that wait for space on the host: 3, of s2; make room - \
                 answer errors only: s3; restart their containers"
            )
        );
    }

    #[test]
    fn a_whole_node_is_one_short_line() {
        let disks: Vec<_> = (0..200).map(|n| disk(&format!("s{n}"), 1, false)).collect();
        let said = amiss(&disks).unwrap();
        assert!(
            said.ends_with("200, of s0, s1, s2, s3, s4 and 195 more; make room"),
            "{said}"
        );
    }
}
