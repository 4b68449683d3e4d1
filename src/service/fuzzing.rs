//! A door for `fuzz/`: filters over a snapshot of any words.

use super::BadFilter;
use super::filter::{Field, Filters};

/// Do these filters let a snapshot with this name, parent, kind and these labels through?
///
/// # Errors
/// [`BadFilter`] as `List` answers it.
pub fn matches(
    filters: &[String],
    (name, parent, kind): (&str, &str, &str),
    labels: &[(&str, &str)],
) -> Result<bool, BadFilter> {
    let label = |key: &str| labels.iter().find(|(own, _)| *own == key);
    let filters = Filters::parse(filters)?;
    Ok(filters.matches(|field| match field {
        Field::Name => Some(name),
        Field::Parent => Some(parent),
        Field::Kind => Some(kind),
        Field::Label(key) => label(key).map(|(_, value)| *value),
        Field::Unknown => None,
    }))
}
