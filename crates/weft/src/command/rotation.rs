//! Shows the progress of a rotation: a bar on a terminal, nothing otherwise; then the result.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use weft_control::{Phase, Progress, ProgressStream};

use super::admin::{date, failed};
use crate::failure::Failure;
use crate::output::{self, Format};

/// Follows a rotation to its end and says what changed.
pub(super) async fn follow(
    what: &str,
    mut stream: ProgressStream,
    format: Format,
) -> Result<(), Failure> {
    let bar = bar();
    let mut last = None;
    while let Some(progress) = stream.next().await.map_err(failed)? {
        bar.set_length(progress.total.try_into().unwrap_or(u64::MAX));
        bar.set_position(progress.done.try_into().unwrap_or(u64::MAX));
        bar.set_message(phase(progress.phase));
        last = Some(progress);
    }
    bar.finish_and_clear();
    let Some(last) = last.filter(|progress| progress.finished) else {
        return Err(Failure::new(
            what,
            "the control node ended in the middle of it",
            "see where it stands with: weft ca show, weft cert show",
        ));
    };
    output::show(format, &last, || sentence(&last))?;
    if !has_failed(&last) {
        return Ok(());
    }
    Err(Failure::new(
        what,
        last.message.as_deref().unwrap_or("it did not finish"),
        match last.absent.is_empty() {
            true => "mend that, and run it again: it goes on where it stopped",
            false => {
                "look at their logs, then run it again; one that has ended is `gone` in `weft status` within 15 s and not waited for"
            }
        },
    ))
}

fn has_failed(progress: &Progress) -> bool {
    !matches!(progress.phase, Phase::Done | Phase::Waiting)
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{msg:<12} [{bar:30}] {pos}/{len} sidecars")
        .expect("the template is constant");
    ProgressBar::new(0).with_style(style)
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Started => "started",
        Phase::Distributing => "distributing",
        Phase::Waiting => "waiting",
        Phase::Prepared => "prepared",
        Phase::Activated => "activated",
        Phase::Renewing => "renewing",
        Phase::Retired => "retired",
        Phase::Done => "done",
        Phase::Failed => "failed",
    }
}

fn sentence(progress: &Progress) -> String {
    let mut table = output::Table::new(
        &["SERVICE", "INSTANCE", "SERIAL BEFORE", "SERIAL NOW"],
        "no connected sidecar needed a new certificate",
    );
    for one in &progress.rotated {
        table.row([
            one.service.clone(),
            one.instance.clone(),
            one.serial_before.clone(),
            one.serial_after.clone(),
        ]);
    }
    if let (Some(number), Phase::Done) = (progress.ended, progress.phase) {
        return format!(
            "rotation {number}, which had been waiting, is ended: its old root is dropped\nNOTHING NEW WAS BEGUN: the present root signs on; to replace it as well, run this again\nproof: weft ca evidence {number}\n"
        );
    }
    // Why none has changed, if it failed, is in the error.
    let mut out = match has_failed(progress) && progress.rotated.is_empty() {
        true => String::new(),
        false => table.render(),
    };
    if let (Some(before), Some(after)) = (&progress.issuer_before, &progress.issuer_after) {
        out.push_str(&format!("\nissuing certificate {before} → {after}\n"));
    }
    for (sidecar, from) in &progress.elsewhere {
        out.push_str(&format!(
            "{sidecar} has its identity from {from}, which alone replaces it: nothing was asked of it\n"
        ));
    }
    if !progress.missing.is_empty() {
        out.push_str(&format!("left behind: {}\n", progress.missing.join(", ")));
    }
    if !progress.gone.is_empty() {
        out.push_str(&format!(
            "not connected any more, and left with the certificate of before: {}\n",
            progress.gone.join(", ")
        ));
    }
    if let Some(until) = progress.until_unix {
        let whose = match progress.asleep.is_empty() {
            true => "those who have not been seen since".to_owned(),
            false => progress.asleep.join(", "),
        };
        out.push_str(&format!(
            "the old root stays trusted until {}, for certificates of: {whose}\nthe control node then drops it by itself; `--now` drops it at once\n",
            date(until)
        ));
    }
    if let Some(number) = progress.evidence {
        out.push_str(&format!("proof: weft ca evidence {number}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(phase: Phase) -> Progress {
        Progress {
            phase,
            finished: true,
            ..Progress::default()
        }
    }

    #[test]
    fn a_rotation_that_failed_is_not_blamed_on_absent_sidecars() {
        assert_eq!(sentence(&progress(Phase::Failed)), "");
        assert!(sentence(&progress(Phase::Done)).starts_with("no connected sidecar needed"));
        let ended = Progress {
            ended: Some(5),
            ..progress(Phase::Done)
        };
        assert!(sentence(&ended).contains("NOTHING NEW WAS BEGUN"));
    }

    #[test]
    fn who_has_its_identity_from_elsewhere_is_named() {
        let mut done = progress(Phase::Done);
        let from = "unix:///run/spire/agent.sock".to_owned();
        done.elsewhere = vec![("orders.default/a1".to_owned(), from)];
        let told = sentence(&done);
        assert!(
            told.contains("orders.default/a1 has its identity from unix:///run/spire/agent.sock"),
            "{told}"
        );
        assert!(!has_failed(&done));
    }

    #[test]
    fn what_the_old_root_waits_for_is_never_an_empty_list() {
        let mut waiting = progress(Phase::Waiting);
        waiting.until_unix = Some(1_800_000_000);
        let told = sentence(&waiting);
        assert!(told.contains("for certificates of: those who"), "{told}");
        waiting.asleep = vec!["orders".to_owned()];
        assert!(sentence(&waiting).contains("certificates of: orders"));
    }
}
