#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn id(name: &str) -> KeyId {
    KeyId::new(name).unwrap()
}

fn store() -> (tempfile::TempDir, FileKeyStore, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    let store = FileKeyStore::open(&keys).unwrap();
    (directory, store, keys)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_key_survives_in_a_file_that_only_its_owner_reads() {
    let (_directory, store, keys) = store();
    let made = store.generate(&id("root-1"), KeyType::P256).unwrap();
    assert_eq!(
        (mode(&keys), mode(&keys.join("root-1.key"))),
        (0o700, 0o600)
    );
    assert_eq!(
        fs::read_dir(&keys).unwrap().count(),
        1,
        "no temporary file stays"
    );
    let read = FileKeyStore::open(&keys)
        .unwrap()
        .signer(&id("root-1"))
        .unwrap();
    assert_eq!(read.der_bytes(), made.der_bytes());
    read.signature(b"x").unwrap();
}

#[test]
fn a_key_is_never_written_over_and_a_leftover_of_a_crash_is_no_obstacle() {
    let (_directory, store, keys) = store();
    fs::write(keys.join(".root-1.new"), "half a key").unwrap();
    store.generate(&id("root-1"), KeyType::P256).unwrap();
    assert!(matches!(
        store.generate(&id("root-1"), KeyType::P256),
        Err(Error::KeyExists { .. })
    ));
}

#[test]
fn a_key_is_removed_once_and_for_all() {
    let (_directory, store, _) = store();
    store.generate(&id("root-1"), KeyType::P256).unwrap();
    store.remove(&id("root-1")).unwrap();
    store.remove(&id("root-1")).unwrap();
    assert!(matches!(
        store.signer(&id("root-1")),
        Err(Error::KeyMissing { .. })
    ));
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_next_step() {
    let (_directory, store, keys) = store();
    store.generate(&id("root-1"), KeyType::P256).unwrap();
    let path = keys.join("root-1.key");
    for mode in [0o640, 0o604, 0o660, 0o644] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let Err(error) = store.signer(&id("root-1")) else {
            panic!("mode {mode:o} should be refused")
        };
        let text = error.to_string();
        assert!(
            text.contains(&format!("mode {mode:04o}")) && text.contains("chmod 600"),
            "{text}"
        );
    }
}

#[test]
fn a_directory_that_others_can_enter_is_refused() {
    let (_directory, _, keys) = store();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o755)).unwrap();
    let text = FileKeyStore::open(&keys).unwrap_err().to_string();
    assert!(text.contains("chmod 700"), "{text}");
}

#[test]
fn what_belongs_to_another_user_is_refused() {
    let (_directory, store, keys) = store();
    store.generate(&id("root-1"), KeyType::P256).unwrap();
    let path = keys.join("root-1.key");
    // Only root can give a file away; everyone else meets a file of root's in /.
    if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
        let Err(error) = store.signer(&id("root-1")) else {
            panic!("another owner should be refused")
        };
        assert!(
            error
                .to_string()
                .contains("belongs to user 12345, not to user"),
            "{error}"
        );
        std::os::unix::fs::chown(&keys, Some(12345), None).unwrap();
        assert!(matches!(
            FileKeyStore::open(&keys),
            Err(Error::KeyOwner { owner: 12345, .. })
        ));
    } else {
        assert!(matches!(
            FileKeyStore::open("/"),
            Err(Error::KeyOwner { owner: 0, .. })
        ));
    }
}

#[test]
fn a_link_in_place_of_a_key_is_not_followed() {
    let (_directory, store, keys) = store();
    store.generate(&id("root-1"), KeyType::P256).unwrap();
    symlink(keys.join("root-1.key"), keys.join("root-2.key")).unwrap();
    assert!(matches!(
        store.signer(&id("root-2")),
        Err(Error::KeyIo { .. })
    ));
    assert!(matches!(
        store.generate(&id("root-2"), KeyType::P256),
        Err(Error::KeyExists { .. })
    ));
}

#[test]
fn what_is_no_key_says_so() {
    let (_directory, store, keys) = store();
    store.generate(&id("root-1"), KeyType::P256).unwrap();
    let path = keys.join("root-1.key");
    for (text, expected) in [
        (String::new(), "does not hold a PRIVATE KEY"),
        ("x".repeat(100_000), "does not hold a PRIVATE KEY"),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(),
            "not a P-256, P-384 or Ed25519 key",
        ),
    ] {
        fs::write(&path, text).unwrap();
        let Err(error) = store.signer(&id("root-1")) else {
            panic!("{expected}")
        };
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("`weft ca restore`"), "{error}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_names_itself() {
    let (_directory, _, keys) = store();
    let text = FileKeyStore::open(keys.join("a/b"))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("cannot make the key directory") && text.contains("a/b"),
        "{text}"
    );
    fs::write(keys.join("file"), "").unwrap();
    assert!(matches!(
        FileKeyStore::open(keys.join("file")),
        Err(Error::KeyIo { .. })
    ));
}

#[test]
fn a_key_name_cannot_leave_the_directory() {
    for name in ["", "..", "a/b", "A", "-rf", "a.key", "a b", &"a".repeat(65)] {
        assert!(KeyId::new(name).is_err(), "{name:?} should be refused");
    }
    assert!(serde_json::from_str::<KeyId>("\"../../etc/x\"").is_err());
}

#[test]
fn a_key_in_memory_shows_nothing() {
    assert_eq!(
        format!("{:?}", SoftKey::generate(KeyType::P256).unwrap()),
        "SoftKey(p256, redacted)"
    );
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec()).unwrap()
}

#[test]
fn a_sealed_key_is_nothing_without_the_secret() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    let store = FileKeyStore::open_sealed(&keys, &secret("correct horse")).unwrap();
    for kind in [KeyType::P256, KeyType::P384, KeyType::Ed25519] {
        let name = id(&format!("root-{kind}"));
        let made = store.generate(&name, kind).unwrap();
        let plain = store.export(&name).unwrap();
        let file = fs::read(keys.join(format!("{name}.key"))).unwrap();
        let sealed = String::from_utf8(file).unwrap();
        assert!(sealed.starts_with("-----BEGIN WEFT SEALED PRIVATE KEY-----"));
        assert!(!sealed.contains(&STANDARD.encode(&plain)[20..40]));
        assert_eq!(mode(&keys.join(format!("{name}.key"))), 0o600);

        let again = FileKeyStore::open_sealed(&keys, &secret("correct horse")).unwrap();
        assert_eq!(again.signer(&name).unwrap().der_bytes(), made.der_bytes());
    }
    let wrong = FileKeyStore::open_sealed(&keys, &secret("battery staple")).unwrap_err();
    assert!(matches!(wrong, Error::WrongSecret { .. }), "{wrong}");
    let none = FileKeyStore::open(&keys).unwrap_err();
    assert!(none.to_string().contains("--ca-secret-file"), "{none}");
    let short = Secret::new(b"short".to_vec()).unwrap_err();
    assert!(short.to_string().contains("at least 8"), "{short}");
}

#[test]
fn keys_that_lie_unsealed_are_sealed_when_a_secret_comes() {
    let (_directory, store, keys) = store();
    let made = store.generate(&id("root-1"), KeyType::P256).unwrap();
    let sealed = FileKeyStore::open_sealed(&keys, &secret("correct horse")).unwrap();
    let text = fs::read_to_string(keys.join("root-1.key")).unwrap();
    assert!(text.contains("SEALED"), "{text}");
    assert_eq!(
        sealed.signer(&id("root-1")).unwrap().der_bytes(),
        made.der_bytes()
    );
}

#[test]
fn a_sealed_key_that_was_changed_or_renamed_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    let store = FileKeyStore::open_sealed(&keys, &secret("correct horse")).unwrap();
    store.generate(&id("root-1"), KeyType::P256).unwrap();
    fs::copy(keys.join("root-1.key"), keys.join("root-2.key")).unwrap();
    let Err(renamed) = store.signer(&id("root-2")) else {
        panic!("a key under another name should be refused")
    };
    assert!(renamed.to_string().contains("was changed"), "{renamed}");
    fs::write(keys.join("root-3.key"), to_pem(PLAIN, b"x").as_bytes()).unwrap();
    fs::set_permissions(keys.join("root-3.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let Err(plain) = store.signer(&id("root-3")) else {
        panic!("an unsealed key among sealed ones should be refused")
    };
    assert!(plain.to_string().contains("unsealed"), "{plain}");
}
