//! `weft ca show` and `weft ca rotate`.

use weft_control::{CaInfo, RotateCa};

use super::admin::{connect, date, failed, left};
use super::rotation;
use crate::cli::CaCommand;
use crate::failure::Failure;
use crate::output::{self, Table};

pub(super) async fn run(command: CaCommand) -> Result<(), Failure> {
    match command {
        CaCommand::Show { admin, output } => {
            let ca = connect(&admin).await?.ca().await.map_err(failed)?;
            output::show(output.output, &ca, || table(&ca))
        }
        CaCommand::Rotate {
            admin,
            timeout,
            output,
        } => {
            let request = RotateCa {
                within_ms: None,
                timeout_ms: timeout.as_millis().try_into().ok(),
            };
            let client = connect(&admin).await?;
            let stream = client.rotate_ca(&request).await.map_err(failed)?;
            rotation::follow("rotate the issuing certificate", stream, output.output).await
        }
    }
}

fn table(ca: &CaInfo) -> String {
    let mut table = Table::new(
        &["ROLE", "STATE", "SERIAL", "ENDS", "LEFT"],
        "the authority has no certificate",
    );
    for authority in &ca.authorities {
        table.row([
            authority.role.clone(),
            authority.state.clone(),
            authority.serial.clone(),
            date(authority.not_after_unix),
            left(authority.seconds_left),
        ]);
    }
    format!(
        "trust domain  {}\npin           {}\ncertificates  live {}\n\n{}",
        ca.trust_domain,
        ca.pin,
        output::span(std::time::Duration::from_secs(ca.leaf_ttl_s)),
        table.render()
    )
}
