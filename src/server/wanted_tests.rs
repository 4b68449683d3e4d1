use super::Wanted;
use crate::proto::v1;

fn delta(path: &str, format: v1::Format, sealed: bool) -> v1::Delta {
    v1::Delta {
        path: path.to_owned(),
        format: format.into(),
        seal: sealed.then_some(v1::Seal {
            length: 1,
            digest: 2,
            allocated: 3,
        }),
    }
}

fn request(id: &str, deltas: Vec<v1::Delta>, read_only: bool) -> v1::AttachRequest {
    v1::AttachRequest {
        id: id.to_owned(),
        deltas,
        read_only,
        will_grow: false,
    }
}

#[test]
fn good_requests_are_understood() {
    let base = delta("/d/base.raw", v1::Format::Raw, true);
    let top = delta("/d/top.hds", v1::Format::Ploop, false);
    let wanted = Wanted::parse(request("a-1", vec![base.clone(), top], false)).unwrap();
    assert_eq!(wanted.top(), std::path::Path::new("/d/top.hds"));
    assert_eq!(wanted.deltas[0].allocated, 3);
    assert_eq!(wanted.chain().len(), 2);
    let view = Wanted::parse(request("a-1", vec![base], true)).unwrap();
    assert_eq!(view.difference(&wanted), Some("other access"));
    assert_eq!(view.difference(&view.clone()), None);
}

#[test]
fn bad_requests_are_refused_with_what_to_do() {
    let ploop = |path: &str| delta(path, v1::Format::Ploop, false);
    let raw = |path: &str| delta(path, v1::Format::Raw, false);
    let long = "a".repeat(65);
    for (id, deltas, read_only, says) in [
        ("", vec![ploop("/a")], false, "no disk id"),
        ("A", vec![ploop("/a")], false, "no disk id"),
        ("../a", vec![ploop("/a")], false, "no disk id"),
        (long.as_str(), vec![ploop("/a")], false, "no disk id"),
        ("a", vec![], false, "at least one delta"),
        ("a", vec![ploop("a")], false, "absolute"),
        ("a", vec![ploop("")], false, "absolute"),
        ("a", vec![ploop("/a\0b")], false, "absolute"),
        ("a", vec![ploop("/a/../b")], false, "no \"..\""),
        ("a", vec![ploop("/a"), raw("/b")], true, "only the lowest"),
        ("a", vec![raw("/a")], false, "never written"),
        (
            "a",
            vec![delta("/a", v1::Format::Ploop, true)],
            false,
            "never written",
        ),
    ] {
        let error = Wanted::parse(request(id, deltas, read_only)).unwrap_err();
        assert!(error.to_string().contains(says), "{id}: {error}");
    }
    let mut odd = ploop("/a");
    odd.format = 77;
    let error = Wanted::parse(request("a", vec![odd], false)).unwrap_err();
    assert!(error.to_string().contains("format 77"), "{error}");
}
