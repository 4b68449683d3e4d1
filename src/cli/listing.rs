//! What is on this node, in columns: `ploop ls`, `df` and `tree`.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Value, json};

use super::node::survey;
use super::output::{self, Align, Style};
use super::verdict::Verdict;
use crate::config::Config;
use crate::proto::v1::{Inside, Snapshot, SnapshotKind, SurveyReply};
use crate::units::Bytes;

/// What is not known, or has no meaning here.
const NONE: &str = "-";
/// Hexadecimal digits that are enough to tell digests and ids apart, as other tools show them.
const SHORT: usize = 12;
/// From how many on a run of them is a digest or an id.
const LONG: usize = 32;

/// Every snapshot.
pub(super) fn ls(config: &Config, whole: bool, style: Style) -> Result<Verdict> {
    let survey = survey(config)?;
    if style == Style::Json {
        output::json(&as_json(&survey, |_| true));
        return Ok(Verdict::Clean);
    }
    let now = now();
    let rows = survey.snapshots.iter().map(|seen| {
        vec![
            seen.snapshotter.clone(),
            shown(&seen.key, whole),
            kind(seen).to_owned(),
            Bytes(seen.size).to_string(),
            used(seen),
            Bytes(seen.own).to_string(),
            Bytes(seen.shared).to_string(),
            seen.depth.to_string(),
            age(now.saturating_sub(seen.created)),
            container(seen, whole),
        ]
    });
    output::table(
        &[
            ("SNAPSHOTTER", Align::Left),
            ("KEY", Align::Left),
            ("KIND", Align::Left),
            ("SIZE", Align::Right),
            ("USED", Align::Right),
            ("OWN", Align::Right),
            ("SHARED", Align::Right),
            ("DEPTH", Align::Right),
            ("AGE", Align::Right),
            ("CONTAINER", Align::Left),
        ],
        &rows.collect::<Vec<_>>(),
    );
    Ok(Verdict::Clean)
}

/// Every container as its own `df` sees it, and what that means for the host.
pub(super) fn df(config: &Config, whole: bool, style: Style) -> Result<Verdict> {
    let survey = survey(config)?;
    let is_active = |seen: &Snapshot| seen.kind() == SnapshotKind::Active;
    if style == Style::Json {
        output::json(&as_json(&survey, is_active));
        return Ok(Verdict::Clean);
    }
    let active: Vec<&Snapshot> = survey
        .snapshots
        .iter()
        .filter(|seen| is_active(seen))
        .collect();
    let rows = active.iter().map(|seen| {
        let inside = seen.inside.as_ref();
        let say = |read: &dyn Fn(&Inside) -> String| inside.map_or(NONE.to_owned(), read);
        vec![
            container(seen, whole),
            Bytes(seen.size).to_string(),
            say(&|it| Bytes(it.used).to_string()),
            say(&|it| Bytes(it.available).to_string()),
            say(&|it| percent(it.used, it.used + it.available)),
            say(&|it| it.inodes.to_string()),
            say(&|it| percent(it.inodes.saturating_sub(it.free_inodes), it.inodes)),
            Bytes(seen.own).to_string(),
        ]
    });
    output::table(
        &[
            ("CONTAINER", Align::Left),
            ("SIZE", Align::Right),
            ("USED", Align::Right),
            ("AVAIL", Align::Right),
            ("USE%", Align::Right),
            ("INODES", Align::Right),
            ("IUSE%", Align::Right),
            ("ON HOST", Align::Right),
        ],
        &rows.collect::<Vec<_>>(),
    );
    for line in host(&survey, &active) {
        output::line(&line);
    }
    Ok(Verdict::Clean)
}

/// What was promised, beside what there is.
fn host(survey: &SurveyReply, active: &[&Snapshot]) -> Vec<String> {
    let promised: u64 = active.iter().map(|seen| seen.size).sum();
    // Layers are held too, but no container grows into them.
    let may_grow: u64 = active
        .iter()
        .map(|seen| seen.size.saturating_sub(seen.own))
        .sum();
    let held: u64 = survey.snapshots.iter().map(|seen| seen.own).sum();
    let mut lines = vec![
        String::new(),
        format!(
            "{}: {} of {} free; {} hold snapshots",
            survey.root,
            Bytes(survey.host_free),
            Bytes(survey.host_size),
            Bytes(held),
        ),
    ];
    lines.push(if may_grow > survey.host_free {
        format!(
            "containers were promised {}: more than the host has left; if it fills up, their writes wait for space",
            Bytes(promised)
        )
    } else {
        format!(
            "containers were promised {}, and the host has it",
            Bytes(promised)
        )
    });
    if survey.reserve > 0 {
        let refused = survey.host_free < survey.reserve;
        lines.push(format!(
            "new containers leave {} free{}",
            Bytes(survey.reserve),
            if refused { ": none is made now" } else { "" }
        ));
    }
    lines
}

/// What stands on what. A lone child stands below its parent in the same column, so that a hundred layers
/// still fit on a screen.
pub(super) fn tree(config: &Config, whole: bool) -> Result<Verdict> {
    let survey = survey(config)?;
    for line in draw(&survey.snapshots, whole) {
        output::line(&line);
    }
    Ok(Verdict::Clean)
}

fn draw(all: &[Snapshot], whole: bool) -> Vec<String> {
    let mut below: BTreeMap<(&str, &str), Vec<&Snapshot>> = BTreeMap::new();
    for seen in all {
        let place = (seen.snapshotter.as_str(), seen.parent.as_str());
        below.entry(place).or_default().push(seen);
    }
    let mut lines = Vec::new();
    let roots: Vec<&str> = below
        .keys()
        .filter(|(_, parent)| parent.is_empty())
        .map(|(name, _)| *name)
        .collect();
    for name in roots {
        lines.push(name.to_owned());
        // From below on a stack of our own: a chain may be long.
        let mut left = Vec::new();
        push(&mut left, &below[&(name, "")], "", true);
        while let Some((seen, lead, indent)) = left.pop() {
            lines.push(format!("{lead}{}", tree_line(seen, whole)));
            if let Some(children) = below.get(&(name, seen.key.as_str())) {
                push(&mut left, children, &indent, false);
            }
        }
    }
    lines
}

/// Puts children on the stack, the first on top: what goes before the name, and before all below it.
fn push<'a>(
    left: &mut Vec<(&'a Snapshot, String, String)>,
    children: &[&'a Snapshot],
    indent: &str,
    branch: bool,
) {
    let alone = children.len() == 1 && !branch;
    for (at, seen) in children.iter().enumerate().rev() {
        let last = at + 1 == children.len();
        let (lead, deeper) = match (alone, last) {
            (true, _) => ("", ""),
            (false, true) => ("└─ ", "   "),
            (false, false) => ("├─ ", "│  "),
        };
        left.push((seen, format!("{indent}{lead}"), format!("{indent}{deeper}")));
    }
}

fn tree_line(seen: &Snapshot, whole: bool) -> String {
    let key = shown(&seen.key, whole);
    let own = Bytes(seen.own);
    match seen.kind() {
        SnapshotKind::Active => {
            let of_pod = seen.container.as_ref();
            let whose = of_pod.map_or(String::new(), |_| format!(" ({})", container(seen, whole)));
            format!(
                "{key}{whose}: container of {}, {own} its own",
                Bytes(seen.size)
            )
        }
        SnapshotKind::View => format!("{key}: view"),
        _ => format!("{key}: {own}"),
    }
}

fn kind(seen: &Snapshot) -> &'static str {
    match seen.kind() {
        SnapshotKind::View => "view",
        SnapshotKind::Active => "active",
        SnapshotKind::Committed => "committed",
        SnapshotKind::Unspecified => NONE,
    }
}

fn used(seen: &Snapshot) -> String {
    let inside = seen.inside.as_ref();
    inside.map_or(NONE.to_owned(), |it| Bytes(it.used).to_string())
}

/// Whose it is: the pod's words, or the id in containerd's key, or the whole key.
fn container(seen: &Snapshot, whole: bool) -> String {
    if seen.kind() != SnapshotKind::Active {
        return NONE.to_owned();
    }
    match &seen.container {
        Some(it) => format!("{}/{}/{}", it.namespace, it.pod, it.name),
        None => {
            let id = seen.key.splitn(3, '/').nth(2);
            shown(id.unwrap_or(&seen.key), whole)
        }
    }
}

/// A key on one line of a terminal: digests and ids are cut, what would move the cursor is escaped.
fn shown(key: &str, whole: bool) -> String {
    let mut text = String::new();
    let mut rest = key;
    while !rest.is_empty() {
        let digits = rest
            .bytes()
            .take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            .count();
        if digits >= LONG && !whole {
            text.push_str(&rest[..SHORT]);
        } else {
            text.push_str(&rest[..digits]);
        }
        rest = &rest[digits..];
        let mut characters = rest.chars();
        if let Some(character) = characters.next() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        rest = characters.as_str();
    }
    text
}

/// As `df`: rounded up, so that 100 % means full.
fn percent(part: u64, all: u64) -> String {
    if all == 0 {
        return NONE.to_owned();
    }
    let hundredths = u128::from(part) * 100;
    format!("{}%", hundredths.div_ceil(u128::from(all)))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

/// The largest whole unit.
fn age(seconds: i64) -> String {
    let (value, unit) = match seconds {
        ..0 => (0, "s"),
        0..120 => (seconds, "s"),
        120..7200 => (seconds / 60, "m"),
        7200..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86400, "d"),
    };
    format!("{value}{unit}")
}

fn as_json(survey: &SurveyReply, is: impl Fn(&Snapshot) -> bool) -> Value {
    let snapshots = survey.snapshots.iter().filter(|seen| is(seen));
    let snapshots: Vec<Value> = snapshots.map(snapshot_json).collect();
    json!({
        "root": survey.root,
        "host_bytes": survey.host_size,
        "host_free_bytes": survey.host_free,
        "reserve_bytes": survey.reserve,
        "snapshots": snapshots,
    })
}

fn snapshot_json(seen: &Snapshot) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "snapshotter": seen.snapshotter,
        "key": seen.key,
        "parent": text(&seen.parent),
        "kind": kind(seen),
        "size_bytes": seen.size,
        "own_bytes": seen.own,
        "shared_bytes": seen.shared,
        "depth": seen.depth,
        "created_unix": seen.created,
        "device": text(&seen.device),
        "inside": seen.inside.as_ref().map(|it| json!({
            "mounted_at": it.at,
            "size_bytes": it.size,
            "used_bytes": it.used,
            "available_bytes": it.available,
            "inodes": it.inodes,
            "free_inodes": it.free_inodes,
        })),
        "container": seen.container.as_ref().map(|it| json!({
            "namespace": it.namespace,
            "pod": it.pod,
            "name": it.name,
        })),
    })
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
