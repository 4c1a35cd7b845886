//! Programs of others from PyPI, in environments that are made once under `target/interop`. Where one cannot be made
//! the tests that need it do nothing, except with `CI=true`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What was made; `None` when it could not be, and this is not CI. `what` names it.
pub(crate) fn or_skip(made: &'static Result<PathBuf, String>, what: &str) -> Option<&'static Path> {
    match made {
        Ok(made) => Some(made),
        Err(reason) if std::env::var("CI").as_deref() == Ok("true") => {
            panic!("CI must run against {what}, and cannot: {reason}")
        }
        Err(reason) => {
            #[expect(clippy::print_stderr, reason = "says which test is not run")]
            {
                eprintln!("skipped, there is no {what}: {reason}");
            }
            None
        }
    }
}

/// Makes an environment, unless it is there, and gives `product` within it. `install` makes it in the folder that it
/// is given, and says what of that is to be kept.
///
/// Its list of packages is part of its name: another list makes another environment.
pub(crate) fn made_once(
    name: &str,
    requirements: &str,
    product: &str,
    install: impl FnOnce(&Path) -> Result<PathBuf, String>,
) -> Result<PathBuf, String> {
    let sum = requirements.bytes().fold(0u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("interop");
    let place = base.join(format!("{name}-{sum:08x}"));
    let product = place.join(product);
    if product.exists() {
        return Ok(product);
    }
    // Made aside and moved in whole, so that an interrupted run leaves nothing half made.
    let aside = base.join(format!("making-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&base).map_err(|e| format!("{}: {e}", base.display()))?;
    let made = install(&aside).map(|kept| {
        // Another process may have been faster: its environment is as good.
        let _ = std::fs::rename(kept, &place);
    });
    let _ = std::fs::remove_dir_all(&aside);
    made.map(|()| product)
}

/// A Python environment in `place` that `pip install` was run in, with these arguments.
pub(crate) fn pip_install(place: &Path, args: &[&str]) -> Result<(), String> {
    run(Command::new("python3").args(["-m", "venv"]).arg(place))?;
    run(Command::new(place.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet"])
        .arg("--disable-pip-version-check")
        .args(args))
}

fn run(command: &mut Command) -> Result<(), String> {
    let said = |o: &Output| String::from_utf8_lossy(&o.stderr).into_owned();
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", said(&output))),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
