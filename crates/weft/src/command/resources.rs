//! `weft apply`, `weft get` and `weft delete`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use weft_control::{
    Action, AdminClient, ApplyReply, ResourceChange, ResourceFilter, ResourceList, WaitReply,
};
use weft_resources::Kind;

use super::admin::{connect, date, failed};
use super::inputs;
use crate::cli::{ApplyArgs, DeleteArgs, GetArgs};
use crate::failure::Failure;
use crate::output::{self, Format, Table};

/// What a change came to: the document of `-o json`.
#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(flatten)]
    reply: ApplyReply,
    /// With --wait: who has it in force, who refused, who did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<WaitReply>,
    /// With --wait and a receipt of every sidecar for something new: from the commit to the last of them,
    /// milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_receipt_ms: Option<f64>,
}

pub(super) async fn apply(args: ApplyArgs) -> Result<(), Failure> {
    // Before anything is asked of the control node: a broken file needs none.
    let resources = inputs::resources(&args.file)?;
    let client = connect(&args.admin).await?;
    let reply = client.apply(&resources).await.map_err(failed)?;
    conclude(
        &client,
        reply,
        args.wait.then_some(args.timeout),
        args.output.output,
    )
    .await
}

pub(super) async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    // The command line has one or the other.
    let keys = match (&args.kind, &args.name) {
        (Some(named), Some(name)) => vec![format!("{}/{}/{name}", kind(named)?, args.namespace)],
        // Two files may name the same one.
        _ => inputs::resources(&args.file)?
            .iter()
            .map(|resource| resource.key().to_string())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
    };
    let client = connect(&args.admin).await?;
    let reply = client.delete_all(keys).await.map_err(failed)?;
    conclude(
        &client,
        reply,
        args.wait.then_some(args.timeout),
        args.output.output,
    )
    .await
}

pub(super) async fn get(args: GetArgs) -> Result<(), Failure> {
    let filter = ResourceFilter {
        kind: args
            .kind
            .as_deref()
            .map(kind)
            .transpose()?
            .map(str::to_owned),
        namespace: args.namespace,
        name: args.name,
    };
    let client = connect(&args.admin).await?;
    let list = client.resources(&filter).await.map_err(failed)?;
    if let (Some(kind), Some(name)) = (&filter.kind, &filter.name) {
        if list.resources.is_empty() {
            let place = match &filter.namespace {
                Some(namespace) => format!(" in the namespace {namespace}"),
                None => String::new(),
            };
            return Err(Failure::new(
                format!("get {kind} {name}"),
                format!("there is none{place}"),
                "list those that are there with: weft get",
            ));
        }
        if let (Format::Json, [only]) = (args.output.output, list.resources.as_slice()) {
            return output::show(Format::Json, &only.resource, String::new);
        }
    }
    match args.output.output {
        Format::Yaml => output::line(&documents(&list)?),
        format => output::show(format, &list, || table(&list)),
    }
}

/// Resources as YAML documents that `weft apply` takes again.
fn documents(list: &ResourceList) -> Result<String, Failure> {
    let mut out = String::new();
    for (index, entry) in list.resources.iter().enumerate() {
        if index > 0 {
            out.push_str("---\n");
        }
        let text = serde_saphyr::to_string(&entry.resource)
            .map_err(|error| Failure::because("write the resource as YAML", &error))?;
        out.push_str(text.trim_end());
        out.push('\n');
    }
    Ok(out)
}

fn table(list: &ResourceList) -> String {
    let mut table = Table::new(
        &["KIND", "NAMESPACE", "NAME", "REVISION"],
        "no resources; write some with: weft apply -f FILE",
    );
    for entry in &list.resources {
        let mut parts = entry.key.splitn(3, '/');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        table.row([part(), part(), part(), entry.revision.to_string()]);
    }
    table.render()
}

/// Waits if that was asked for, says what came of it, and fails if a sidecar does not have it, in force and saved.
async fn conclude(
    client: &AdminClient,
    reply: ApplyReply,
    wait: Option<Duration>,
    format: Format,
) -> Result<(), Failure> {
    let wait = match wait {
        Some(deadline) => Some(
            client
                .wait(reply.revision, deadline)
                .await
                .map_err(failed)?,
        ),
        None => None,
    };
    // The receipts of a revision that was there before say nothing of this command.
    let changed = changed(&reply);
    let last_receipt_ms = wait
        .as_ref()
        .filter(|wait| changed && wait.is_complete())
        .and_then(|wait| {
            wait.receipts
                .iter()
                .filter_map(|receipt| receipt.after_ms)
                .max_by(f64::total_cmp)
        });
    let outcome = Outcome {
        reply,
        wait,
        last_receipt_ms,
    };
    output::show(format, &outcome, || sentence(&outcome))?;
    match outcome.wait {
        Some(wait) if !wait.is_complete() => Err(incomplete(&wait)),
        Some(wait) if wait.receipts.iter().any(|r| r.unsaved.is_some()) => Err(unsaved(&wait)),
        _ => Ok(()),
    }
}

/// Whether there is anything new.
fn changed(reply: &ApplyReply) -> bool {
    let new = |change: &ResourceChange| change.action != Action::Unchanged;
    reply.changes.iter().any(new)
}

fn sentence(outcome: &Outcome) -> String {
    let mut out = String::new();
    for change in &outcome.reply.changes {
        let action = match change.action {
            Action::Created => "created",
            Action::Updated => "updated",
            Action::Unchanged => "unchanged",
            Action::Deleted => "deleted",
        };
        let _ = writeln!(out, "{} {action}", change.key);
    }
    let _ = write!(out, "revision {}", outcome.reply.revision);
    if let Some(wait) = &outcome.wait {
        let sidecars = output::counted(wait.receipts.len(), "sidecar", "sidecars");
        let _ = write!(out, " in force on {sidecars}");
    }
    match outcome.last_receipt_ms {
        Some(ms) => {
            let _ = write!(out, ", the last after {ms:.1} ms");
        }
        None if outcome.wait.is_some() && !changed(&outcome.reply) => {
            out.push_str(", as it was before");
        }
        None => {}
    }
    for gone in outcome.wait.iter().flat_map(|wait| &wait.gone) {
        let _ = write!(
            out,
            "\nnote: {}/{} is gone since {}, and gets this when it comes back",
            gone.service,
            gone.instance,
            date(gone.since_unix_ms / 1000)
        );
    }
    out
}

/// Who would lose the change in a restart, each with the reason.
fn losing(wait: &WaitReply) -> impl Iterator<Item = String> {
    wait.receipts.iter().filter_map(|receipt| {
        let reason = receipt.unsaved.as_ref()?;
        let (service, instance) = (&receipt.service, &receipt.instance);
        Some(format!("{service}/{instance} could not save it ({reason})"))
    })
}

fn unsaved(wait: &WaitReply) -> Failure {
    Failure::new(
        format!(
            "revision {} is in force, but a restart of a sidecar would go back to what was before",
            wait.revision
        ),
        losing(wait).collect::<Vec<_>>().join(", "),
        "make room in its state directory: it tries again by itself; see: weft status",
    )
}

/// Who does not have the change, and why.
fn incomplete(wait: &WaitReply) -> Failure {
    let mut who: Vec<String> = wait
        .nacks
        .iter()
        .map(|nack| {
            let key = nack
                .key
                .as_deref()
                .map_or_else(String::new, |key| format!("{key}: "));
            format!(
                "{}/{} refused it ({key}{})",
                nack.service, nack.instance, nack.reason
            )
        })
        .collect();
    who.extend(wait.stragglers.iter().map(|late| {
        let why = if late.connected {
            "did not answer in time"
        } else {
            "is not connected, and may go on with what it knows"
        };
        format!("{}/{} {why}", late.service, late.instance)
    }));
    who.extend(losing(wait));
    let next = if wait.nacks.is_empty() {
        "it stays stored and reaches them when they can be reached; see: weft status"
    } else {
        "who refused it goes on with what it ran; mend or delete the resource"
    };
    Failure::new(
        format!(
            "revision {} is stored but not in force everywhere",
            wait.revision
        ),
        who.join(", "),
        next,
    )
}

/// A kind as people type it: any case, singular or plural.
fn kind(text: &str) -> Result<&'static str, Failure> {
    Kind::from_command(text).map(Kind::as_str).ok_or_else(|| {
        let kinds: Vec<&str> = Kind::ALL.into_iter().map(Kind::as_str).collect();
        Failure::usage(format!(
            "'{text}' is not a kind of resource; use one of {}",
            kinds.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_control::{NackInfo, Receipt, Straggler};

    #[test]
    fn kinds_are_taken_in_any_case_and_plural() {
        for text in ["HTTPRoute", "httproute", "HttpRoutes"] {
            assert_eq!(kind(text).unwrap(), "HTTPRoute");
        }
        assert_eq!(
            kind("authorizationpolicies").unwrap(),
            "AuthorizationPolicy"
        );
        let error = kind("route").unwrap_err().to_string();
        assert!(
            error.contains("'route'") && error.contains("HTTPRoute"),
            "{error}"
        );
    }

    #[test]
    fn an_unchanged_apply_tells_no_time_of_old_receipts() {
        let outcome = |action, last_receipt_ms| Outcome {
            reply: ApplyReply {
                revision: 7,
                changes: vec![ResourceChange {
                    key: "HTTPRoute/default/x".to_owned(),
                    action,
                }],
            },
            wait: Some(WaitReply {
                revision: 7,
                receipts: Vec::new(),
                nacks: Vec::new(),
                stragglers: Vec::new(),
                gone: Vec::new(),
            }),
            last_receipt_ms,
        };
        let said = sentence(&outcome(Action::Unchanged, None));
        assert!(said.ends_with("on 0 sidecars, as it was before"), "{said}");
        let said = sentence(&outcome(Action::Updated, Some(1.5)));
        assert!(said.ends_with(", the last after 1.5 ms"), "{said}");
        let said = sentence(&outcome(Action::Updated, None));
        assert!(said.ends_with("on 0 sidecars"), "{said}");
    }

    #[test]
    fn who_could_not_save_a_change_is_named_with_the_reason() {
        let receipt = |instance: &str, unsaved: Option<&str>| Receipt {
            instance: instance.to_owned(),
            service: "orders.default".to_owned(),
            revision: 7,
            in_force_unix_ms: 1,
            took_us: 1,
            after_ms: None,
            unsaved: unsaved.map(str::to_owned),
        };
        let wait = WaitReply {
            revision: 7,
            receipts: vec![
                receipt("a1", None),
                receipt("b2", Some("snapshot.json: the disk is full")),
            ],
            nacks: Vec::new(),
            stragglers: Vec::new(),
            gone: Vec::new(),
        };
        let said = unsaved(&wait).to_string();
        assert!(
            said.contains("orders.default/b2 could not save it (snapshot.json: the disk is full)"),
            "{said}"
        );
        assert!(
            !said.contains("a1") && said.contains("weft status"),
            "{said}"
        );
    }

    #[test]
    fn who_does_not_have_a_change_is_named_with_the_reason() {
        let wait = WaitReply {
            revision: 7,
            receipts: Vec::new(),
            nacks: vec![NackInfo {
                instance: "a1".to_owned(),
                service: "orders.default".to_owned(),
                revision: 7,
                running: Some(6),
                key: Some("OutboundListener/default/x".to_owned()),
                reason: "address in use".to_owned(),
            }],
            stragglers: vec![Straggler {
                connected: true,
                instance: "b2".to_owned(),
                service: "invoices.default".to_owned(),
                acked_revision: None,
            }],
            gone: Vec::new(),
        };
        let said = incomplete(&wait).to_string();
        for part in [
            "revision 7",
            "orders.default/a1 refused it (OutboundListener/default/x: address in use)",
            "invoices.default/b2 did not answer in time",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}
