//! Instructions by callgrind: the difference of two runs that do a part a different number of times, so that
//! start, preparation and end cancel out.

use std::process::Stdio;

use tokio::process::Command;

use super::scenarios::{ALL, Scenario};
use crate::error::{Error, Result};
use crate::pairs::own;
use crate::process::find;

/// Of the shorter run, and how many more the longer one does.
const FEW: u32 = 20;
const MORE: u32 = 100;
/// What glibc chooses by processor: copies of memory are to be the same everywhere.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-ERMS,-FSRM";

/// Instructions of one.
pub(super) async fn instructions(scenario: &Scenario) -> Result<u64> {
    let few = total(scenario, FEW).await?;
    let many = total(scenario, FEW + MORE).await?;
    Ok(many.saturating_sub(few) / u64::from(MORE))
}

/// Does a part so many times: what callgrind looks at.
pub(crate) fn repeat(name: &str, times: u32) -> Result<()> {
    let scenario = ALL.iter().find(|scenario| scenario.name == name);
    let scenario = scenario.ok_or_else(|| Error::Protocol(format!("no part is named '{name}'")))?;
    let mut once = (scenario.make)();
    (0..times).for_each(|_| once());
    Ok(())
}

async fn total(scenario: &Scenario, times: u32) -> Result<u64> {
    let valgrind = find("valgrind").ok_or(Error::Missing {
        what: "valgrind",
        how: "apt-get install valgrind".into(),
    })?;
    let mut command = Command::new(valgrind);
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own::myself()?)
        .args(["role", "part", scenario.name, &times.to_string()])
        .env("GLIBC_TUNABLES", TUNABLES)
        .stdin(Stdio::null());
    let output = command.output().await.map_err(Error::io("run valgrind"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    collected(&said).ok_or_else(|| Error::Command {
        command: format!("valgrind … {}", scenario.name),
        reason: said.lines().last().unwrap_or("it said nothing").to_owned(),
    })
}

/// `==4711== Collected : 123456`
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_what_callgrind_says() {
        let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7==\n";
        assert_eq!(collected(said), Some(123_456));
        assert_eq!(collected("==7== Process terminating"), None);
    }

    #[test]
    fn an_unknown_part_is_named() {
        let said = repeat("nothing", 1).unwrap_err().to_string();
        assert!(said.contains("'nothing'"), "{said}");
    }
}
