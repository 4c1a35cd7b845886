use super::*;

/// Two files that are there, by path.
fn file(path: &Path) -> Option<FileIdentity> {
    match path.to_str() {
        Some("/bin/envoy") => FileIdentity::of(Path::new("/proc/self/exe")),
        Some("/bin/other") => FileIdentity::of(Path::new("/")),
        _ => None,
    }
}

fn caller(uid: u32, gid: u32, unit: Option<&str>, program: &str) -> Caller {
    Caller {
        uid,
        gid,
        unit: unit.map(str::to_owned),
        program: file(Path::new(program)),
    }
}

fn entries(texts: &[&str]) -> Vec<Entry> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn without_an_entry_nobody_is_allowed() {
    for uid in [0, 1000] {
        assert!(!allowed(&[], &caller(uid, uid, None, ""), file));
    }
    let empty = Entry::default();
    assert!(!empty.allows(&caller(0, 0, None, ""), file));
}

#[test]
fn an_entry_allows_who_fits_every_part_of_it_and_any_entry_is_enough() {
    let envoy = || caller(1000, 100, Some("envoy.service"), "/bin/envoy");
    let cases: &[(&[&str], bool)] = &[
        (&["uid=1000"], true),
        (&["uid=1001"], false),
        (&["gid=100"], true),
        (&["gid=1000"], false),
        (&["unit=envoy.service"], true),
        (&["unit=other.service"], false),
        (&["exe=/bin/envoy"], true),
        (&["exe=/bin/other"], false),
        (&["exe=/not/there"], false),
        (
            &["uid=1000 gid=100 unit=envoy.service exe=/bin/envoy"],
            true,
        ),
        (
            &["uid=1001 gid=100 unit=envoy.service exe=/bin/envoy"],
            false,
        ),
        (
            &["uid=1000 gid=101 unit=envoy.service exe=/bin/envoy"],
            false,
        ),
        (&["uid=1000 gid=100 unit=x.service exe=/bin/envoy"], false),
        (
            &["uid=1000 gid=100 unit=envoy.service exe=/bin/other"],
            false,
        ),
        (&["uid=1", "uid=1000"], true),
        (&["uid=1", "gid=2"], false),
    ];
    for (texts, expected) in cases {
        assert_eq!(
            allowed(&entries(texts), &envoy(), file),
            *expected,
            "{texts:?}"
        );
    }
}

#[test]
fn what_is_not_known_of_a_caller_fits_nothing() {
    let unknown = caller(1000, 100, None, "/not/there");
    for text in ["unit=envoy.service", "exe=/bin/envoy", "exe=/not/there"] {
        assert!(!allowed(&entries(&[text]), &unknown, file), "{text}");
    }
}

#[test]
fn an_entry_reads_back_as_it_was_written() {
    for text in [
        "uid=0",
        "gid=4294967295",
        "uid=1 gid=2 unit=a@b.service exe=/usr/bin/envoy",
        "unit=docker-0123.scope",
    ] {
        assert_eq!(text.parse::<Entry>().unwrap().to_string(), text);
    }
    let spaced: Entry = "  uid=1   gid=2 ".parse().unwrap();
    assert_eq!(spaced.to_string(), "uid=1 gid=2");
}

#[test]
fn text_that_would_allow_more_or_less_than_it_seems_is_refused() {
    for text in [
        "",
        " ",
        "uid",
        "uid=",
        "uid=+1",
        "uid=-1",
        "uid=4294967296",
        "uid=root",
        "uid=1 uid=2",
        "uid=1,gid=2",
        "user=1",
        "unit=envoy",
        "unit=.service",
        "unit=a/b.service",
        "exe=envoy",
        "exe=",
        "UID=1",
    ] {
        assert!(text.parse::<Entry>().is_err(), "{text:?} was taken");
    }
}

#[test]
fn the_unit_is_the_first_group_below_the_slices() {
    let cases = [
        ("0::/system.slice/orders.service\n", Some("orders.service")),
        (
            "0::/system.slice/system-app.slice/app@1.service\n",
            Some("app@1.service"),
        ),
        // What a user's own manager named below it says nothing.
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/orders.service\n",
            Some("user@1000.service"),
        ),
        (
            "0::/system.slice/a.service/system.slice/orders.service\n",
            Some("a.service"),
        ),
        (
            "12:cpu:/x\n1:name=systemd:/system.slice/orders.service\n0::/\n",
            Some("orders.service"),
        ),
        ("0::/\n", None),
        ("0::/../orders.service\n", None),
        ("0::/kubepods/pod1/abc\n", None),
        ("0::/orders.service.d/orders.service\n", None),
        ("", None),
        ("nonsense", None),
    ];
    for (text, expected) in cases {
        assert_eq!(unit_of(text).as_deref(), expected, "{text:?}");
    }
}
