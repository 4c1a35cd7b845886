//! A folder with a SoftHSM2 of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use rand::SeedableRng;
use rand::rngs::StdRng;
use weft_pkcs11::{Pin, TokenAccess, TokenFault, TokenKeyStore};

const INSIDE: &str = "WEFT_TEST_LAB";
pub(crate) const PIN: &str = "2468-user";
const SO_PIN: &str = "1357-officer";

pub(crate) struct Lab {
    dir: PathBuf,
}

/// The library, where Debian puts it; `None` where it is not installed and need not be.
fn module() -> Option<PathBuf> {
    let path = PathBuf::from("/usr/lib/softhsm/libsofthsm2.so");
    match path.exists() {
        true => Some(path),
        false if std::env::var_os("CI").is_none() => None,
        false => panic!("softhsm2 is not installed"),
    }
}

/// Runs `test` in a process of its own that has an empty SoftHSM2.
pub(crate) fn in_lab(name: &str, test: impl FnOnce(&Lab)) {
    if module().is_none() {
        println!("softhsm2 is not installed: skipped");
        return;
    }
    if let Some(dir) = std::env::var_os(INSIDE) {
        return test(&Lab { dir: dir.into() });
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab {
        dir: dir.path().to_owned(),
    };
    fs::create_dir_all(lab.tokens()).unwrap();
    let text = format!(
        "directories.tokendir = {}\nlog.level = ERROR\n",
        lab.tokens().display()
    );
    fs::write(lab.conf(), text).unwrap();
    lab.init_token("mesh");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, dir.path())
        .env("SOFTHSM2_CONF", lab.conf())
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed: see above");
}

impl Lab {
    fn tokens(&self) -> PathBuf {
        self.dir.join("tokens")
    }

    fn conf(&self) -> PathBuf {
        self.dir.join("softhsm2.conf")
    }

    /// A key directory of this name.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn softhsm(&self, args: &[&str]) {
        let done = Command::new("softhsm2-util")
            .args(args)
            .env("SOFTHSM2_CONF", self.conf())
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    pub(crate) fn init_token(&self, label: &str) {
        let pins = ["--pin", PIN, "--so-pin", SO_PIN];
        self.softhsm(&[&["--init-token", "--free", "--label", label], &pins[..]].concat());
    }

    /// The token asks for another PIN from now on.
    pub(crate) fn change_pin(&self, old: &str, new: &str) {
        let session = self.session_with(old);
        let (old, new) = (AuthPin::new(old.into()), AuthPin::new(new.into()));
        session.set_pin(&old, &new).unwrap();
    }

    pub(crate) fn access(&self, label: &str, pin: &str) -> TokenAccess {
        TokenAccess {
            module: module(),
            label: Some(label.to_owned()),
            pin: Pin::new(pin.as_bytes().to_vec().into()),
        }
    }

    pub(crate) fn create(
        &self,
        directory: &Path,
        access: &TokenAccess,
    ) -> Result<TokenKeyStore, TokenFault> {
        // Each mesh draws its own.
        let seed = directory.as_os_str().as_encoded_bytes();
        let mut rng = StdRng::from_seed([seed[seed.len() - 1]; 32]);
        TokenKeyStore::create(directory, access, "weft.local", &mut rng)
    }

    /// A store in the token `mesh`, for a key directory of this name.
    pub(crate) fn store(&self, name: &str) -> TokenKeyStore {
        let directory = self.directory(name);
        self.create(&directory, &self.access("mesh", PIN)).unwrap()
    }

    /// A session beside those of the store.
    pub(crate) fn session(&self) -> Session {
        self.session_with(PIN)
    }

    fn session_with(&self, pin: &str) -> Session {
        let context = Pkcs11::new(module().unwrap()).unwrap();
        // The store has started the library for the whole process.
        let _ = context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let slots = context.get_slots_with_initialized_token().unwrap();
        let label = |slot: &Slot| context.get_token_info(*slot).unwrap().label().to_owned();
        let slot = slots.iter().find(|slot| label(slot) == "mesh").unwrap();
        let session = context.open_rw_session(*slot).unwrap();
        match session.login(UserType::User, Some(&AuthPin::new(pin.into()))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => session,
            Err(error) => panic!("{error}"),
        }
    }

    /// Pulls the token out: the folder of all tokens, or the token's own in it.
    pub(crate) fn pull_out(&self, whole: bool) -> Away {
        let from = match whole {
            true => self.tokens(),
            false => {
                let mut inside = fs::read_dir(self.tokens()).unwrap().flatten();
                inside.find(|entry| entry.path().is_dir()).unwrap().path()
            }
        };
        let to = self.dir.join("away");
        fs::rename(&from, &to).unwrap();
        Away { from, to }
    }
}

/// A token that is pulled out.
pub(crate) struct Away {
    from: PathBuf,
    to: PathBuf,
}

impl Away {
    pub(crate) fn put_back(self) {
        fs::rename(self.to, self.from).unwrap();
    }
}

/// Observes until something is seen.
#[track_caller]
pub(crate) fn eventually<T>(mut observe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(seen) = observe() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited for 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}
