//! The language by tables: what matches, and what is refused where.

use std::collections::BTreeMap;

use super::{Field, Filters};

struct Subject {
    name: &'static str,
    parent: &'static str,
    kind: &'static str,
    labels: BTreeMap<&'static str, &'static str>,
}

impl Subject {
    fn value(&self, field: &Field) -> Option<&'static str> {
        match field {
            Field::Name => Some(self.name),
            Field::Parent => Some(self.parent),
            Field::Kind => Some(self.kind),
            Field::Label(key) => self.labels.get(key.as_str()).copied(),
            Field::Unknown => None,
        }
    }
}

/// A small world: a base, a layer over it, a container, a view, and labels that need quoting.
fn world() -> Vec<Subject> {
    let subject = |name, parent, kind, labels: &[(&'static str, &'static str)]| Subject {
        name,
        parent,
        kind,
        labels: labels.iter().copied().collect(),
    };
    vec![
        subject("base", "", "committed", &[("l", "x")]),
        subject(
            "layer",
            "base",
            "committed",
            &[
                ("containerd.io/snapshot.ref", "sha256:ab"),
                ("l", "omg_a.b-c"),
            ],
        ),
        subject(
            "k8s.io/12/sha256:ab",
            "layer",
            "active",
            &[("containerd.io/gc.root", "check-walk")],
        ),
        subject("a view", "k8s.io/12/base", "view", &[("a \"b\" \\ c", "")]),
        subject("牛", "layer", "active", &[("l", "too complex, yo")]),
    ]
}

fn matching(filters: &[&str]) -> String {
    let filters = Filters::parse(filters).unwrap();
    world()
        .iter()
        .enumerate()
        .filter(|(_, subject)| filters.matches(|field| subject.value(field)))
        .map(|(at, _)| at.to_string())
        .collect()
}

#[test]
fn a_filter_matches_what_it_says() {
    for (filter, wanted) in [
        ("", "01234"),
        // Presence.
        ("name", "01234"),
        ("parent", "01234"),
        ("labels.l", "014"),
        ("labels", ""),
        ("nothing", ""),
        ("nothing.at.all", ""),
        // Equality.
        ("name==layer", "1"),
        ("name==\"layer\"", "1"),
        ("name==k8s.io/12/sha256:ab", "2"),
        ("name==\"a view\"", "3"),
        ("name==牛", "4"),
        ("kind==active", "24"),
        ("kind==view", "3"),
        ("kind==committed", "01"),
        ("parent==\"\"", "0"),
        ("parent==\"k8s.io/12/base\"", "3"),
        ("labels.l==x", "0"),
        ("labels.l==omg_a.b-c", "1"),
        ("labels.l==\"too complex, yo\"", "4"),
        ("labels.\"containerd.io/gc.root\"==check-walk", "2"),
        ("labels.\"containerd.io/snapshot.ref\"==sha256:ab", "1"),
        ("labels.containerd.\"io/gc\".root==check-walk", "2"),
        ("labels.\"a \\\"b\\\" \\\\ c\"", "3"),
        ("labels.\"a \\\"b\\\" \\\\ c\"==\"\"", "3"),
        // Inequality is true of what is absent; only an empty value is not unequal to "".
        ("labels.l!=x", "1234"),
        ("labels.l!=\"\"", "014"),
        ("parent!=\"\"", "1234"),
        ("nothing!=x", "01234"),
        // Expressions.
        ("name~=^ba", "0"),
        ("name~=/a.?e/", "01"),
        ("name~=/^[a-z]{4,5}$/", "01"),
        ("name~=|/12/|", "2"),
        ("name~=/\\/12\\//", "2"),
        ("name~=\"^a v\"", "3"),
        ("name~=|牛|", "4"),
        ("name~=sha\\d+", "2"),
        ("labels.l~=^$", "23"),
        ("labels.l~=/./", "014"),
        // All of a row.
        ("kind==committed,parent==base", "1"),
        (
            "kind==active,labels.\"containerd.io/gc.root\"==check-walk",
            "2",
        ),
        ("parent!=\"\",labels.l", "14"),
        ("labels.l,name,kind!=active", "01"),
        ("kind==active,kind==view", ""),
        // Single quotes are characters like any other.
        ("name=='layer'", ""),
        // Space is skipped before a token.
        (" name == layer", "1"),
        ("name== \"layer\"", "1"),
        ("name==layer, kind==committed", "1"),
        ("labels. l", "014"),
    ] {
        assert_eq!(matching(&[filter]), wanted, "{filter}");
    }
}

#[test]
fn one_of_several_filters_is_enough() {
    assert_eq!(matching(&[]), "01234");
    assert_eq!(matching(&["name==base", "name==layer"]), "01");
    assert_eq!(matching(&["name==base,labels.l", "kind==view"]), "03");
    assert_eq!(matching(&["name==nobody", ""]), "01234");
}

#[test]
fn a_wrong_filter_is_refused_with_its_place() {
    for (filter, at, reason) in [
        ("name==foo,", 10, "expected a field"),
        ("labels.", 7, "expected a field"),
        (",", 0, "expected a field"),
        (".", 0, "expected a field"),
        ("==x", 0, "expected a field"),
        ("name,,kind", 5, "expected a field"),
        ("labels.?\"a\"==x", 7, "expected a field"),
        ("labels.'a'==x", 7, "expected a field"),
        ("labels.|l|==x", 7, "may quote a field"),
        ("labels.ns/key==value", 9, "expected an operator"),
        ("name ", 5, "expected an operator"),
        ("name layer", 5, "expected an operator"),
        ("name?=x", 4, "expected an operator"),
        ("name=x", 4, "unsupported operator \"=\""),
        ("name===x", 4, "unsupported operator \"===\""),
        ("name==", 6, "expected a value"),
        ("name~=,kind", 6, "expected a value"),
        ("name~=.", 6, "expected a value"),
        ("name== =x", 7, "expected a value"),
        ("name==.x", 6, "expected a value"),
        ("name==/x/", 6, "may quote this value"),
        ("name!=|x|", 6, "may quote this value"),
        ("name==\"x", 6, "not terminated"),
        ("name~=/x", 6, "not terminated"),
        ("labels.\"a\nb\"", 7, "not terminated"),
        ("labels.\"\\g\"", 8, "illegal escape"),
        ("name~=/a\\d/", 8, "illegal escape"),
        ("name==a b", 7, "unexpected ' '"),
        ("name==\"a\"b", 9, "unexpected 'b'"),
        ("name==a\0b", 7, "unexpected"),
        ("name~=(", 6, "bad expression"),
        ("name~=/a{99999999}/", 6, "bad expression"),
    ] {
        let error = Filters::parse(&["name", filter]).unwrap_err();
        assert_eq!((error.at, error.filter.as_str()), (at, filter), "{error}");
        assert!(error.reason.contains(reason), "{filter}: {error}");
    }
}

proptest::proptest! {
    /// Whatever a client sends: an answer, no panic.
    #[test]
    fn any_text_is_answered(text in r#"(name|labels|\.|,|==|!=|~=|"|/|\||\\|x|牛| |\PC){0,12}"#) {
        if let Err(error) = Filters::parse(&[&text]) {
            proptest::prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at));
        }
    }
}
